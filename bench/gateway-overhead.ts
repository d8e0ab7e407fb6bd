/**
 * What the example gateway adds to a request on loopback: one client, one request at a time, to an
 * upstream that answers at once, directly and through the gateway in turns. Client, gateway and
 * upstream are processes of their own; a lazygraph session with 102 graphs is connected.
 *
 *   npm run bench:gateway-overhead        prints the table, writes bench/results/gateway-overhead.json
 */

import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Pool } from "undici";
import { quantile } from "../src/bench/stats.ts";
import { FakeEngine, plan } from "../test/helpers/fake-engine.ts";

const REQUESTS = 5_000;
const WARM_UP = 1_000;
const SIZES = Array.from({ length: 51 }, (_, index) => (index + 1) * 8);
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TSX = ["--import", "tsx"];

interface Sample {
  readonly firstByteMs: number;
  readonly totalMs: number;
}

async function startUpstream(): Promise<{ child: ChildProcess; url: string }> {
  const file = fileURLToPath(new URL("lib/stub-upstream.ts", import.meta.url));
  const child = fork(file, { execArgv: TSX });
  const [{ port }] = (await once(child, "message")) as [{ port: number }];
  return { child, url: `http://127.0.0.1:${port}` };
}

async function startGateway(upstream: string) {
  const child = spawn(process.execPath, [...TSX, "examples/gateway/src/main.ts"], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...process.env,
      ENGINES: `a=${upstream}`,
      LISTEN: "127.0.0.1:0",
      LAZYGRAPH_ENDPOINT: "tcp://127.0.0.1:0",
    },
  });
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  const [, url = "", endpoint = ""] = /at (\S+); engines connect to (\S+)/.exec(line) ?? [];
  return { child, url, endpoint };
}

async function ask(pool: Pool, stream: boolean): Promise<Sample> {
  const body = JSON.stringify({ model: "x", prompt: "one two three", stream });
  const headers = { "content-type": "application/json" };
  const started = performance.now();
  let firstByteMs: number | undefined;
  const answer = await pool.request({ method: "POST", path: "/v1/completions", headers, body });
  for await (const _chunk of answer.body) firstByteMs ??= performance.now() - started;
  return { firstByteMs: firstByteMs ?? Number.NaN, totalMs: performance.now() - started };
}

async function measure(direct: Pool, gateway: Pool, stream: boolean) {
  const samples: { direct: Sample[]; gateway: Sample[] } = { direct: [], gateway: [] };
  for (let index = 0; index < WARM_UP + REQUESTS; index++) {
    // In turns, so that whatever else the machine does falls on both.
    const one = await ask(direct, stream);
    const other = await ask(gateway, stream);
    if (index < WARM_UP) continue;
    samples.direct.push(one);
    samples.gateway.push(other);
  }
  return samples;
}

function figures(samples: readonly number[]) {
  const [p50, p90, p99] = [0.5, 0.9, 0.99].map((share) => quantile(samples, share));
  return { p50, p90, p99 };
}

const upstream = await startUpstream();
const gateway = await startGateway(upstream.url);
const engine = new FakeEngine({ name: "a", graphs: plan(...SIZES), heartbeatMs: 1000 });
await engine.connect(gateway.endpoint);
await engine.got("freeze");
const pools = [new Pool(upstream.url), new Pool(gateway.url)] as const;
const rows: object[] = [];
console.log("| answer | figure | direct p50 / p90 / p99, ms | gateway | added at p50 |");
console.log("|---|---|--:|--:|--:|");
for (const stream of [false, true]) {
  const samples = await measure(...pools, stream);
  for (const figure of ["firstByteMs", "totalMs"] as const) {
    const direct = figures(samples.direct.map((sample) => sample[figure]));
    const through = figures(samples.gateway.map((sample) => sample[figure]));
    const added = (through.p50 ?? 0) - (direct.p50 ?? 0);
    const text = [direct, through].map(({ p50, p90, p99 }) =>
      [p50, p90, p99].map((ms) => ms?.toFixed(3)).join(" / "),
    );
    const answer = stream ? "16 events" : "whole";
    console.log(`| ${answer} | ${figure} | ${text.join(" | ")} | ${added.toFixed(3)} |`);
    rows.push({ answer, figure, direct, gateway: through, addedP50Ms: added, n: REQUESTS });
  }
}
const host = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
const result = { what: "milliseconds on loopback, one request at a time", host, rows };
await writeFile(
  new URL("results/gateway-overhead.json", import.meta.url),
  `${JSON.stringify(result, null, 2)}\n`,
);
await Promise.all(pools.map((pool) => pool.destroy()));
engine.disconnect();
gateway.child.kill("SIGTERM");
await once(gateway.child, "exit");
upstream.child.disconnect();

/**
 * Five hundred streams under way when the example gateway is told to stop, installed and started as
 * people start it: by `npm start`, through npm and its shell, and as process 1 of a namespace, as
 * in an image.
 *
 * Hypothesis: none is cut off; the gateway ends with 0. Refuted by a stream without its last
 * event or another exit code: exit code 1.
 *
 *   npm run bench:drain        prints the counts, writes bench/results/drain.json
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { startSimulatedServer } from "../src/testing.ts";
import { begun } from "../test/gateway/streams.ts";
import { linkPacked, ROOT } from "../test/package/packed.ts";

const STREAMS = 500;
const DRAIN_SECONDS = 90;
const NODE = [process.execPath, "--import", "tsx", "src/main.ts"] as const;

interface Way {
  readonly name: string;
  readonly command: readonly string[];
  /** Whom the signal goes to: the process itself, or what `unshare` has started in its place. */
  readonly target: (child: ChildProcess) => Promise<number>;
}

const WAYS: readonly Way[] = [
  { name: "npm start", command: ["npm", "start"], target: async ({ pid = 0 }) => pid },
  {
    name: "process 1",
    command: ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", ...NODE],
    target: processOne,
  },
];

async function processOne({ pid = 0 }: ChildProcess): Promise<number> {
  const [child = ""] = (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).split(" ");
  const status = await readFile(`/proc/${child}/status`, "utf8");
  const [, inside] = /^NSpid:.*\t(\d+)$/m.exec(status) ?? [];
  if (inside !== "1") throw new Error(`Expected process 1 of its namespace, got ${inside}.`);
  return Number(child);
}

async function drain({ name, command, target }: Way, folder: string) {
  const engine = await startSimulatedServer({ speed: 1, requestsMax: STREAMS });
  await engine.ready;
  const [program = "", ...args] = command;
  const child = spawn(program, args, {
    cwd: folder,
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...process.env,
      ...{ LISTEN: "127.0.0.1:0", ENGINES: `a=${engine.url}`, DRAIN_SECONDS: `${DRAIN_SECONDS}` },
      LAZYGRAPH_ENDPOINT: "tcp://127.0.0.1:0",
    },
  });
  let url: string | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    [url] = /http:\/\/\S+(?=;)/.exec(line) ?? [];
    if (url !== undefined) break;
  }
  if (url === undefined) throw new Error(`Expected ${name} to say where it listens.`);
  child.stdout.resume();
  while (!(await fetch(`${url}/readyz`)).ok) await new Promise((done) => setTimeout(done, 20));
  const streams = await begun(url, engine.model, STREAMS);
  const ended = once(child, "close");
  const toldAt = performance.now();
  process.kill(await target(child), "SIGTERM");
  const ends = await Promise.all(streams);
  const [code] = (await ended) as [number | null];
  const seconds = (performance.now() - toldAt) / 1000;
  await engine.close();
  const whole = ends.filter((end) => end === "whole").length;
  return { name, streams: STREAMS, whole, code, seconds, limitSeconds: DRAIN_SECONDS };
}

const folder = await mkdtemp(join(tmpdir(), "lazygraph-drain-"));
await cp(join(ROOT, "examples", "gateway"), folder, { recursive: true });
await linkPacked(folder);
const ways = [];
for (const way of WAYS) {
  const found = await drain(way, folder);
  ways.push(found);
  console.log(`${found.name}: ${found.whole} of ${STREAMS} whole, exit code ${found.code}`);
}
await rm(folder, { recursive: true });
const result = { what: "streams under way at SIGTERM that ended with their last event", ways };
const file = new URL("results/drain.json", import.meta.url);
await writeFile(file, `${JSON.stringify(result, null, 1)}\n`);
process.exitCode = ways.every(({ whole, code }) => whole === STREAMS && code === 0) ? 0 : 1;

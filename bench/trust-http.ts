/**
 * How soon a probe of the controller is answered while others hold all 256 places and send nothing,
 * and while they come again as soon as they are closed: fresh connections, one probe after another,
 * by this build and by an earlier one. Client, attackers and controller share the machine.
 *
 * Hypothesis: with this build each probe is answered, within 200 ms at p99. Refuted by one that
 * isn't, or by a larger figure; exit code 1 then.
 *
 *   BEFORE=…/src/cli/main.ts npm run bench:trust-http
 *     prints a table, writes bench/results/trust-http.json
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { cpus } from "node:os";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { quantile } from "../src/measure/statistics.ts";

/** All places; then some more, one by one, for those that a crowd at once left free. */
const CONNECTIONS = 256;
const MORE = 20;
const MORE_EVERY_MS = 20;
const PROBES = Number(process.env["PROBES"] ?? 300);
const PROBE_EVERY_MS = 20;
/** For a build that answers nobody until its own time-outs have passed. */
const FIRST_ANSWER_MS_MAX = 90_000;
const P99_MS_MAX = 200;
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const LOADER = ["--import", "tsx"];
const SERVE = ["serve", "--endpoint", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--no-plan"];

type Attack = "silent" | "renewed";

interface Figures {
  readonly build: "before" | "this";
  readonly attack: Attack;
  /** From all connections being there to the first answer. */
  readonly firstAnswerMs: number | null;
  readonly probes: number;
  readonly answered: number;
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
}

async function probe(url: URL): Promise<number | undefined> {
  const began = performance.now();
  const sent = request({
    host: url.hostname,
    port: url.port,
    path: "/healthz",
    agent: false,
  }).end();
  try {
    const [response] = await once(sent, "response", { signal: AbortSignal.timeout(10_000) });
    response.resume();
    await once(response, "end");
    return response.statusCode === 200 ? performance.now() - began : undefined;
  } catch {
    sent.destroy();
    return undefined;
  }
}

/** Connections that send nothing; those that are closed come again where that is the attack. */
function attackers(url: URL, attack: Attack): { ready: Promise<unknown>; stop: () => void } {
  const sockets = new Set<Socket>();
  let isOver = false;
  const open = (): Promise<unknown> => {
    const socket = connect(Number(url.port), url.hostname);
    sockets.add(socket);
    socket.on("error", () => undefined);
    // Who doesn't read never learns that it was closed.
    socket.resume();
    socket.once("close", () => {
      sockets.delete(socket);
      if (attack === "renewed" && !isOver) void open();
    });
    return once(socket, "connect").catch(() => undefined);
  };
  const crowd = async (): Promise<void> => {
    await Promise.all(Array.from({ length: CONNECTIONS }, open));
    for (let n = 0; n < MORE; n += 1) {
      await open();
      await sleep(MORE_EVERY_MS);
    }
  };
  const ready = crowd();
  const stop = (): void => {
    isOver = true;
    for (const socket of sockets) socket.destroy();
  };
  return { ready, stop };
}

async function measure(build: Figures["build"], main: readonly string[], attack: Attack) {
  const args = [...main, ...SERVE, "--json", "--quiet"];
  const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    const url = new URL((JSON.parse(line) as { http: string }).http);
    await probe(url);
    const crowd = attackers(url, attack);
    await crowd.ready;
    const began = performance.now();
    let firstAnswerMs: number | null = null;
    while (firstAnswerMs === null && performance.now() - began < FIRST_ANSWER_MS_MAX) {
      if ((await probe(url)) !== undefined) firstAnswerMs = performance.now() - began;
      else await sleep(PROBE_EVERY_MS);
    }
    const times: number[] = [];
    if (firstAnswerMs !== null) {
      for (let n = 0; n < PROBES; n += 1) {
        const ms = await probe(url);
        if (ms !== undefined) times.push(ms);
        await sleep(PROBE_EVERY_MS);
      }
    }
    crowd.stop();
    const at = (share: number): number | null =>
      times.length === 0 ? null : quantile(times, share);
    const figures: Figures = {
      build,
      attack,
      firstAnswerMs,
      probes: firstAnswerMs === null ? 0 : PROBES,
      answered: times.length,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
    };
    return figures;
  } finally {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}

const shown = (ms: number | null): string => (ms === null ? "none" : `${ms.toFixed(1)} ms`);

const { BEFORE: before } = process.env;
const rows: Figures[] = [];
for (const attack of ["silent", "renewed"] as const) {
  if (before !== undefined) rows.push(await measure("before", [...LOADER, before], attack));
  rows.push(await measure("this", [...LOADER, "src/cli/main.ts"], attack));
}
for (const { build, attack, firstAnswerMs, probes, answered, p50Ms, p99Ms } of rows) {
  console.log(
    `${build.padEnd(6)} ${attack.padEnd(8)} first answer ${shown(firstAnswerMs)}; ` +
      `${answered} of ${probes} probes answered, p50 ${shown(p50Ms)}, p99 ${shown(p99Ms)}`,
  );
}
const document = {
  atIso: new Date().toISOString(),
  node: process.version,
  processors: `${cpus().length} x ${cpus()[0]?.model}`,
  connections: CONNECTIONS,
  rows,
};
const file = new URL("results/trust-http.json", import.meta.url);
writeFileSync(file, `${JSON.stringify(document, null, 1)}\n`);
const ours = rows.filter(({ build }) => build === "this");
const isRefuted = ours.some(
  ({ probes, answered, p99Ms }) => answered < probes || p99Ms === null || p99Ms > P99_MS_MAX,
);
if (isRefuted) process.exitCode = 1;

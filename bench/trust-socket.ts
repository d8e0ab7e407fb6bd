/**
 * What an honest engine, a probe and the operator notice of one peer that sends inventories as large
 * as they may be, 70 a second, for 20 s: `lazygraph serve`, by this build and by an earlier one. All
 * of it shares the machine.
 *
 * Hypothesis: with this build no heartbeat of the controller's comes more than an interval late at
 * the honest engine, and it is not lost; probes are answered within 200 ms at p99; and a SIGTERM in
 * the middle of it ends the process within 2 s. Refuted by one that isn't so; exit code 1 then.
 *
 *   [BEFORE=…/dist/cli/main.js] npm run bench:trust-socket
 *     after `npm run build:ts`: prints a table, writes bench/results/trust-socket.json
 */

import { fork, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { cpus } from "node:os";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Dealer } from "zeromq";
import { quantile } from "../src/measure/statistics.ts";
import { encode } from "../src/wire/codec.ts";
import { type SocketRow, trustSocketFindings } from "./lib/claims-trust.ts";
import { typeOf } from "./lib/fleet-probe.ts";

const SECONDS = 20;
const HEARTBEAT_MS = 1000;
const PROBE_EVERY_MS = 50;
const PROBE_MS_MAX = 10_000;
const END_MS_MAX = 30_000;
const DIST = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const HOSTILE = fileURLToPath(new URL("lib/hostile-peer.ts", import.meta.url));
const SERVE = ["serve", "--endpoint", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--no-plan"];

/** An engine that does nothing but say that it is there, and listen for the same. */
class HonestEngine {
  readonly #dealer = new Dealer({ linger: 0, sendTimeout: 0 });
  readonly #beat: NodeJS.Timeout;
  #heardAt = 0;
  lost = 0;
  missed = 0;
  longestSilenceMs = 0;

  constructor(endpoint: string) {
    this.#dealer.connect(endpoint);
    this.#hello();
    void this.#read();
    this.#beat = setInterval(() => this.#send(encode({ type: "heartbeat" })), HEARTBEAT_MS);
  }

  #hello(): void {
    this.#send(
      encode({
        type: "hello",
        versionMin: 1,
        versionMax: 2,
        engine: "honest",
        session: "honest",
        pluginVersion: "0.1.0",
        vllmVersion: "0.33.0",
        model: "honest",
        host: "honest",
        pid: process.pid,
        phase: "loading",
        mode: "idle",
        tensorParallel: 1,
        pipelineParallel: 1,
        simulated: "honest",
      }),
    );
  }

  #send(frame: Buffer): void {
    void this.#dealer.send(frame).catch(() => undefined);
  }

  async #read(): Promise<void> {
    for await (const [frame] of this.#dealer) {
      if (frame === undefined) continue;
      this.look();
      this.#heardAt = performance.now();
      // Whoever is asked who he is has been given up.
      if (typeOf(frame) !== "resync") continue;
      this.lost += 1;
      this.#hello();
    }
  }

  /** Counts the silence so far. */
  look(): void {
    if (this.#heardAt === 0) return;
    const silentMs = performance.now() - this.#heardAt;
    this.longestSilenceMs = Math.max(this.longestSilenceMs, silentMs);
    if (silentMs > 2 * HEARTBEAT_MS) this.missed += 1;
  }

  get isThere(): boolean {
    return this.#heardAt > 0;
  }

  close(): void {
    clearInterval(this.#beat);
    this.#dealer.close();
  }
}

async function probe(url: URL): Promise<number | undefined> {
  const began = performance.now();
  const sent = request({ host: url.hostname, port: url.port, path: "/healthz", agent: false });
  sent.on("error", () => undefined);
  try {
    const answered = once(sent, "response", { signal: AbortSignal.timeout(PROBE_MS_MAX) });
    sent.end();
    const [response] = await answered;
    response.resume();
    await once(response, "end");
    return performance.now() - began;
  } catch {
    sent.destroy();
    return undefined;
  }
}

async function measure(build: SocketRow["build"], main: string): Promise<SocketRow> {
  const child = spawn(process.execPath, [main, ...SERVE, "--json", "--quiet"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const exited = once(child, "exit");
  let hostile: ReturnType<typeof fork> | undefined;
  let honest: HonestEngine | undefined;
  try {
    const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    const { endpoint, http } = JSON.parse(line) as { endpoint: string; http: string };
    honest = new HonestEngine(endpoint);
    while (!honest.isThere) await sleep(20);
    hostile = fork(HOSTILE, [endpoint], { execArgv: ["--import", "tsx"] });
    await once(hostile, "message");
    const times: number[] = [];
    let probes = 0;
    const until = performance.now() + 1000 * SECONDS;
    while (performance.now() < until) {
      probes += 1;
      const ms = await probe(new URL(http));
      if (ms !== undefined) times.push(ms);
      await sleep(PROBE_EVERY_MS);
    }
    honest.look();
    const { lost, missed, longestSilenceMs } = honest;
    const began = performance.now();
    child.kill("SIGTERM");
    await Promise.race([exited, sleep(END_MS_MAX)]);
    return {
      build,
      seconds: SECONDS,
      lost,
      missedHeartbeats: missed,
      longestSilenceMs,
      probes,
      answered: times.length,
      healthzP50Ms: times.length === 0 ? null : quantile(times, 0.5),
      healthzP99Ms: times.length === 0 ? null : quantile(times, 0.99),
      sigtermMs: performance.now() - began,
    };
  } finally {
    hostile?.kill("SIGKILL");
    honest?.close();
    child.kill("SIGKILL");
    await exited;
  }
}

if (!existsSync(DIST)) throw new Error("Expected a build in dist: run `npm run build:ts`.");
const { BEFORE: before } = process.env;
const rows: SocketRow[] = [];
if (before !== undefined) rows.push(await measure("before", before));
rows.push(await measure("this", DIST));
const shown = (ms: number | null): string => (ms === null ? "none" : `${ms.toFixed(0)} ms`);
for (const row of rows) {
  console.log(
    `${row.build}: honest engine lost ${row.lost} times, ${row.missedHeartbeats} heartbeats missed, ` +
      `longest silence ${shown(row.longestSilenceMs)}; /healthz ${row.answered} of ${row.probes} ` +
      `answered, p50 ${shown(row.healthzP50Ms)}, p99 ${shown(row.healthzP99Ms)}; SIGTERM ` +
      `${shown(row.sigtermMs)}`,
  );
}
const document = {
  atIso: new Date().toISOString(),
  node: process.version,
  processors: `${cpus().length} x ${cpus()[0]?.model}`,
  rows,
};
const file = new URL("results/trust-socket.json", import.meta.url);
writeFileSync(file, `${JSON.stringify(document, null, 1)}\n`);
const told = { source: "trust-socket.json", command: "npm run bench:trust-socket" };
const isMissed = trustSocketFindings({ rows }, told).some(({ value, limit, sense }) =>
  sense === "atMost" ? value > limit : value < limit,
);
if (isMissed) process.exitCode = 1;

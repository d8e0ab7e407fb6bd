/** One cell of the main job: start a server, wait, measure, stop it. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createWriteStream, existsSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { quantile } from "../../src/bench/stats.ts";
import { type StreamRequest, streamRequest } from "../../src/bench/stream.ts";
import { ServerAddress } from "../../src/measure/server-address.ts";

export type Mode = "stock" | "eager" | "lazy" | "idle";

export interface Cell {
  readonly round: number;
  readonly mode: Mode;
  readonly gpu: number;
}

export interface DecodeResult {
  readonly concurrent: number;
  /** Time per output token, median over requests, in each repetition. */
  readonly tpotMs: readonly number[];
}

export interface CellResult extends Cell {
  readonly model: string;
  readonly serve: string;
  /** Seconds in vLLM's capture_model, synchronised: capture and what vLLM does around it. */
  readonly captureBeforeReadySeconds: number;
  /** Seconds in its graph manager alone: the captures themselves. */
  readonly capturesAloneSeconds: number;
  readonly spawnToReadySeconds: number;
  readonly spawnToFirstTokenSeconds: number;
  /** From the controller; absent for stock, and for lazy, which never runs out of wishes. */
  readonly readyToSettledSeconds?: number;
  readonly longestCaptureMs?: number;
  readonly graphsPlanned?: number;
  readonly graphsCaptured?: number;
  readonly graphsCapturedAfterDecode?: number;
  /** Stock: free memory lost over capture_model. Ours: sum over graphs of pool and driver growth. */
  readonly graphBytes: number;
  readonly deviceUsedMiB: number;
  readonly decode: readonly DecodeResult[];
  /** The controller's last snapshot. */
  readonly engine?: EngineJson;
}

const READY_TIMEOUT_SECONDS = 600;
const SETTLE_TIMEOUT_SECONDS = 120;
const LEVELS = [1, 8, 64, 256] as const;
const OUTPUT_TOKENS = 128;
const REPETITIONS = Number(process.env["REPETITIONS"] ?? 3);
const run = promisify(execFile);

export async function runCell(cell: Cell, out: string): Promise<CellResult> {
  const model = process.env["MODEL"] as string;
  const serve = process.env["VLLM_SERVE"] ?? "vllm serve";
  const name = `${cell.round}-${cell.mode}`;
  const [port, httpPort] = [await freePort(), await freePort()];
  const timing = join(out, "cells", `${name}.timing`);
  const serveCommand = [
    ...serve.split(/\s+/),
    model,
    ...(process.env["SERVE_ARGS"] ?? "").split(/\s+/).filter((word) => word !== ""),
    "--port",
    String(port),
  ];
  const cli = new URL("../../dist/cli/main.js", import.meta.url).pathname;
  const ours = ["run", "--mode", cell.mode, "--quiet", "--http", `127.0.0.1:${httpPort}`, "--"];
  const command =
    cell.mode === "stock" ? serveCommand : [process.execPath, cli, ...ours, ...serveCommand];
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    CUDA_VISIBLE_DEVICES: String(cell.gpu),
    LAZYGRAPH_TEST_TIMING: timing,
    ...(cell.mode === "stock" ? { LAZYGRAPH_DISABLE: "1" } : {}),
  };
  const spawnedAt = performance.now();
  const child = spawn(command[0] as string, command.slice(1), {
    env,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const log = createWriteStream(join(out, "cells", `${name}.log`));
  child.stdout?.pipe(log, { end: false });
  child.stderr?.pipe(log, { end: false });
  try {
    const url = new URL(`http://127.0.0.1:${port}`);
    await untilReady(url, child, name);
    const readyAt = performance.now();
    const first = await streamed(completion(url, model, 1, 0));
    const engine = cell.mode === "stock" ? undefined : await settled(httpPort, cell.mode);
    const deviceUsedMiB = await deviceUsed(cell.gpu);
    const decode: DecodeResult[] = [];
    for (const concurrent of LEVELS) decode.push(await decodeLevel(url, model, concurrent));
    const after = cell.mode === "stock" ? undefined : await engineSnapshot(httpPort);
    const timed = readTiming(timing);
    return {
      ...cell,
      model,
      serve: serveCommand.slice(0, -2).join(" "),
      captureBeforeReadySeconds: timed.captureModelSeconds,
      capturesAloneSeconds: timed.captureSeconds,
      spawnToReadySeconds: (readyAt - spawnedAt) / 1000,
      spawnToFirstTokenSeconds: (first.firstAtMs - spawnedAt) / 1000,
      ...(engine === undefined ? {} : engineFigures(engine, after, cell.mode)),
      graphBytes: engine === undefined ? timed.freeLostBytes : sumBytes(after ?? engine),
      deviceUsedMiB,
      decode,
    };
  } finally {
    await stop(child);
    log.end();
  }
}

export interface EngineJson {
  readonly graphs: readonly { status: string; ms?: number; bytes?: number }[];
  readonly settled?: boolean;
  readonly readyToSettledSeconds?: number;
  readonly longestCaptureMs?: number;
  readonly longestStallMs?: number;
}

function engineFigures(
  engine: EngineJson,
  after: EngineJson | undefined,
  mode: Mode,
): Partial<CellResult> {
  const captured = (json: EngineJson) => json.graphs.filter((g) => g.status === "captured").length;
  const settledSeconds = engine.readyToSettledSeconds;
  return {
    ...(mode === "lazy" || settledSeconds === undefined
      ? {}
      : { readyToSettledSeconds: settledSeconds }),
    longestCaptureMs: Math.max(...(after ?? engine).graphs.map((graph) => graph.ms ?? 0)),
    graphsPlanned: engine.graphs.length,
    graphsCaptured: captured(engine),
    graphsCapturedAfterDecode: captured(after ?? engine),
    engine: after ?? engine,
  };
}

function sumBytes(engine: EngineJson): number {
  return engine.graphs.reduce((sum, graph) => sum + (graph.bytes ?? 0), 0);
}

/** Milliseconds of the first and the last token. Rejects when the request failed. */
async function streamed(
  request: StreamRequest,
): Promise<{ readonly firstAtMs: number; readonly lastAtMs: number }> {
  const { tokensAtMs, failure } = await streamRequest(request);
  if (failure !== undefined) throw new Error(`${failure.kind}: ${failure.detail}`);
  return { firstAtMs: tokensAtMs[0] as number, lastAtMs: tokensAtMs.at(-1) as number };
}

function completion(url: URL, model: string, maxTokens: number, seed: number): StreamRequest {
  const prompt = Array.from(
    { length: 32 },
    (_, i) => 1000 + ((seed * 7919 + i * 104_729) % 90_000),
  );
  return {
    server: new ServerAddress(url),
    endpoint: "completions",
    model,
    prompt,
    maxTokens,
    ignoreEos: true,
    timeoutMs: 120_000,
  };
}

async function decodeLevel(url: URL, model: string, concurrent: number): Promise<DecodeResult> {
  const round = (maxTokens: number) =>
    Promise.all(
      Array.from({ length: concurrent }, (_, i) => streamed(completion(url, model, maxTokens, i))),
    );
  await round(16); // first use of a size, and in lazy mode the time to earn its graph
  const tpotMs: number[] = [];
  for (let repetition = 0; repetition < REPETITIONS; repetition += 1) {
    const times = await round(OUTPUT_TOKENS);
    tpotMs.push(
      quantile(
        times.map((t) => (t.lastAtMs - t.firstAtMs) / (OUTPUT_TOKENS - 1)),
        0.5,
      ),
    );
  }
  return { concurrent, tpotMs };
}

async function untilReady(url: URL, child: ChildProcess, name: string): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_SECONDS * 1000;
  while (performance.now() < deadline) {
    if (child.exitCode !== null) {
      throw new Error(`${name}: the server ended with code ${child.exitCode}; see its log.`);
    }
    try {
      const response = await fetch(new URL("/health", url), { signal: AbortSignal.timeout(1000) });
      if (response.ok) return;
    } catch {
      // not listening yet
    }
    await sleep(10);
  }
  throw new Error(`${name}: not ready within ${READY_TIMEOUT_SECONDS} s; see its log.`);
}

async function engineSnapshot(httpPort: number): Promise<EngineJson> {
  const response = await fetch(`http://127.0.0.1:${httpPort}/v1/engines`);
  const body = (await response.json()) as { engines: EngineJson[] };
  const engine = body.engines[0];
  if (engine === undefined) throw new Error("The engine never joined its controller.");
  return engine;
}

/** Idle mode fills while nothing runs; the others have nothing to wait for. */
async function settled(httpPort: number, mode: Mode): Promise<EngineJson> {
  const deadline = performance.now() + SETTLE_TIMEOUT_SECONDS * 1000;
  let engine = await engineSnapshot(httpPort);
  while (mode !== "lazy" && engine.readyToSettledSeconds === undefined) {
    if (performance.now() > deadline) throw new Error(`${mode}: not settled in time.`);
    await sleep(50);
    engine = await engineSnapshot(httpPort);
  }
  return engine;
}

async function deviceUsed(gpu: number): Promise<number> {
  const query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", String(gpu)];
  const { stdout } = await run("nvidia-smi", query);
  return Number(stdout.trim());
}

interface Timing {
  readonly captureModelSeconds: number;
  readonly captureSeconds: number;
  readonly freeLostBytes: number;
}

/** What the test plugin wrote, over all ranks: the slowest, and the most memory. */
function readTiming(file: string): Timing {
  if (!existsSync(file)) {
    throw new Error(
      "vLLM's capture was not timed: install worker/testing into vLLM's Python (see main-job.sh).",
    );
  }
  const lines = readFileSync(file, "utf8").trim().split("\n");
  const ranks = lines.map((line) => JSON.parse(line) as Timing);
  const most = (pick: (rank: Timing) => number): number => Math.max(...ranks.map(pick));
  return {
    captureModelSeconds: most((rank) => rank.captureModelSeconds),
    captureSeconds: most((rank) => rank.captureSeconds),
    freeLostBytes: most((rank) => rank.freeLostBytes),
  };
}

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        resolve(typeof address === "object" && address !== null ? address.port : 0),
      );
    });
  });
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.pid === undefined) return;
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill("SIGTERM");
  const late = sleep(15_000).then(() => "late" as const);
  if ((await Promise.race([ended, late])) === "late") process.kill(-child.pid, "SIGKILL");
  await ended;
  try {
    process.kill(-child.pid, "SIGKILL"); // stray ranks would keep the GPU's memory
  } catch {
    // nobody left
  }
}

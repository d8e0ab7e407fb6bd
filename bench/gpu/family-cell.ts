/** One cell of families.sh: start a server, measure, stop it. */

import { execFile } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { freePort } from "../../src/bench/engine-command.ts";
import { Timeline } from "../../src/bench/timeline.ts";
import { completion, type DecodeResult, decodeLevel, streamed } from "./lib/decode.ts";
import {
  type EngineJson,
  engineSnapshot,
  graphBytes,
  graphsCaptured,
  settledEngine,
} from "./lib/engine-view.ts";
import {
  cacheEnvironment,
  kvTokensOf,
  serveCommand,
  serveEnvironment,
} from "./lib/family-command.ts";
import {
  cellName,
  decodes,
  type Family,
  type FamilyCell,
  isOurs,
  modeOf,
} from "./lib/family-plan.ts";
import type {
  CaptureCosts,
  CellResult,
  OurFigures,
  ParityResult,
  StartResult,
  TokensResult,
  VerifyResult,
} from "./lib/family-result.ts";
import { runParityLoad } from "./lib/parity-load.ts";
import { type Server, startServer, stopServer, untilReady } from "./lib/server.ts";
import { overRanks, performanceMs, type RankTiming } from "./lib/start-timing.ts";
import { stepClockOf } from "./lib/step-times.ts";

export interface CellOptions {
  readonly family: Family;
  readonly cell: FamilyCell;
  readonly gpus: readonly number[];
  readonly model: string;
  /** Words before the command, as `taskset` and its own. */
  readonly pin: readonly string[];
  readonly serve: readonly string[];
  readonly lazygraph: readonly string[];
  readonly via: "launcher" | "spawn";
  readonly python: string;
  readonly caches?: string;
  readonly repetitions: number;
  /** Concurrent requests to decode with. */
  readonly levels: readonly number[];
  /** Of the cells' files. */
  readonly folder: string;
  /** Of parity cells: ours, from spawn to ready, in the same round. */
  readonly oursReadySeconds?: number;
  /** From spawn. */
  readonly readySecondsMax: number;
  readonly signal: AbortSignal;
}

const SETTLED_SECONDS_MAX = 120;
const TOKENS_MS_MAX = 400_000;
const here = new URL(".", import.meta.url).pathname;
const execute = promisify(execFile);

interface Running extends Pick<CellOptions, "cell" | "model" | "signal"> {
  readonly url: URL;
  readonly httpPort: number;
  readonly server: Server;
  readonly timings: string;
  readonly log: string;
}

export async function runFamilyCell(options: CellOptions): Promise<CellResult> {
  const { cell } = options;
  if (cell.kind === "tokens") return tokensCell(options);
  if (cell.kind !== "parity") return served(options, cell.kind === "verify" ? VERIFY : {});
  const timeline = await Timeline.open();
  try {
    return await served(options, timeline.variables, timeline);
  } finally {
    await timeline.close();
  }
}

/** @param timeline whose folder is in the server's environment, for parity cells */
async function served(
  options: CellOptions,
  more: Readonly<Record<string, string>>,
  timeline?: Timeline,
): Promise<CellResult> {
  const { cell } = options;
  const running = await start(options, more);
  const stop = () => void running.server.child.kill("SIGTERM");
  options.signal.addEventListener("abort", stop, { once: true });
  try {
    if (timeline !== undefined) return await parityCell(options, running, timeline);
    if (cell.kind === "verify") return await verifyCell(options, running);
    return await startCell(options, running);
  } finally {
    options.signal.removeEventListener("abort", stop);
    await stopServer(running.server);
  }
}

const VERIFY = { LAZYGRAPH_VERIFY: "1", LAZYGRAPH_TEST_WEIGHTS: "fan-in" };

async function start(
  options: CellOptions,
  more: Readonly<Record<string, string>>,
): Promise<Running> {
  const { family, cell, gpus, caches, pin, model, serve, lazygraph, folder, signal } = options;
  const name = cellName(cell);
  const timings = join(folder, `${name}.timing`);
  const log = join(folder, `${name}.log`);
  // What an earlier run left would count as this one's.
  rmSync(timings, { recursive: true, force: true });
  mkdirSync(timings, { recursive: true });
  const [port, httpPort] = [await freePort(), await freePort()];
  const env = {
    ...process.env,
    ...serveEnvironment(family, cell.arm, caches === undefined ? { gpus } : { gpus, caches }),
    LAZYGRAPH_TEST_TIMING: timings,
    LAZYGRAPH_TEST_STEPS: timings,
    ...more,
  };
  const served = serveCommand(family, cell, { model, serve, port, httpPort, lazygraph });
  const command = [...pin, ...served];
  const server = startServer({ name, command, env, log });
  const url = new URL(`http://127.0.0.1:${port}`);
  return { cell, model, signal, url, httpPort, server, timings, log };
}

async function startCell(options: CellOptions, running: Running): Promise<StartResult> {
  const { family, cell, gpus, via } = options;
  const { url, model, httpPort, server } = running;
  const readyAt = await untilReady(url, server, options.readySecondsMax);
  const first = await streamed(completion(url, model, 1, 0));
  const atReady = isOurs(cell.arm) ? await engineSnapshot(httpPort) : undefined;
  const before = isOurs(cell.arm)
    ? await settledEngine(httpPort, modeOf(cell.arm), SETTLED_SECONDS_MAX)
    : undefined;
  const decode: DecodeResult[] = [];
  const clock = stepClockOf(running.timings);
  for (const concurrent of decodes(cell, family) ? options.levels : []) {
    decode.push(await decodeLevel(url, model, concurrent, options.repetitions, clock));
  }
  const after = isOurs(cell.arm) ? await engineSnapshot(httpPort) : undefined;
  const { deviceBeganAt, ...timing } = timingOf(running.timings);
  const kvTokens = kvTokensOf(readFileSync(running.log, "utf8"));
  const since = (ms: number) =>
    deviceBeganAt === undefined ? undefined : (ms - performanceMs(deviceBeganAt)) / 1000;
  const [toReady, toFirst] = [since(readyAt), since(first.firstAtMs)];
  return {
    ...cell,
    shape: family.shape,
    gpus,
    via,
    args: [...family.args, ...family.startArgs],
    timing,
    spawnToReadySeconds: (readyAt - server.spawnedAtMs) / 1000,
    spawnToFirstTokenSeconds: (first.firstAtMs - server.spawnedAtMs) / 1000,
    ...(toReady === undefined ? {} : { deviceToReadySeconds: toReady }),
    ...(toFirst === undefined ? {} : { deviceToFirstTokenSeconds: toFirst }),
    ...(kvTokens === undefined ? {} : { kvTokens }),
    decode,
    ...(atReady === undefined || before === undefined || after === undefined
      ? {}
      : { ours: oursOf(atReady, before, after) }),
  };
}

function oursOf(atReady: EngineJson, before: EngineJson, after: EngineJson): OurFigures {
  const { unsupported, readyToSettledSeconds } = after;
  const forecast = atReady.forecast?.bytes;
  return {
    ...(unsupported === undefined ? {} : { unsupported }),
    ...capturesOf(after),
    graphsAtReady: graphsCaptured(atReady),
    graphsBeforeDecode: graphsCaptured(before),
    ...(readyToSettledSeconds === undefined ? {} : { readyToSettledSeconds }),
    ...(forecast === undefined ? {} : { forecastBytes: forecast + graphBytes(atReady) }),
    takenBytes: graphBytes(after),
    captures: after.graphs.flatMap(({ id = "", ms, bytes = 0 }) => {
      return ms === undefined ? [] : [{ id, ms, bytes }];
    }),
  };
}

function timingOf(folder: string) {
  const files = readdirSync(folder).filter((file) => file.startsWith("rank-"));
  const lines = files.flatMap((file) => {
    return readFileSync(join(folder, file), "utf8").trim().split("\n");
  });
  if (lines.length === 0) {
    throw new Error(
      "Expected the timing of vLLM's capture, got none: install worker/testing into its Python.",
    );
  }
  return overRanks(lines.map((line) => JSON.parse(line) as RankTiming));
}

async function parityCell(
  options: CellOptions,
  running: Running,
  timeline: Timeline,
): Promise<ParityResult> {
  const { family, cell, gpus, via, signal } = options;
  const { url, model, server } = running;
  const ready = untilReady(url, server, options.readySecondsMax);
  ready.catch(() => undefined); // Told to whoever awaits it.
  // Stock's load begins when ours was ready.
  const given = isOurs(cell.arm) ? undefined : options.oursReadySeconds;
  const loadAt = given === undefined ? await ready : server.spawnedAtMs + given * 1000;
  const { rate, seconds } = family.parity ?? { rate: 0, seconds: 0 };
  const requests = await runParityLoad({
    ...{ url, model, rate, seconds, seed: cell.round + 1, signal, ready },
    startsAtMs: loadAt,
    originMs: server.spawnedAtMs,
  });
  const readySeconds = ((await ready) - server.spawnedAtMs) / 1000;
  const loadSeconds = (loadAt - server.spawnedAtMs) / 1000;
  const compilations = await timeline.compilations(server.spawnedAtMs, readySeconds);
  return {
    ...cell,
    ...{ shape: family.shape, gpus, via, rate, seconds },
    ...{ readySeconds, loadSeconds, requests },
    ...(compilations === undefined ? {} : { compilations }),
    ...(isOurs(cell.arm) ? { ours: capturesOf(await engineSnapshot(running.httpPort)) } : {}),
  };
}

function capturesOf(engine: EngineJson): CaptureCosts {
  const { graphs, longestStallMs } = engine;
  return {
    graphsPlanned: graphs.length,
    graphsAfterDecode: graphsCaptured(engine),
    longestCaptureMs: Math.max(0, ...engine.graphs.map(({ ms = 0 }) => ms)),
    ...(longestStallMs === undefined ? {} : { longestStallMs }),
  };
}

async function verifyCell(options: CellOptions, running: Running): Promise<VerifyResult> {
  const { family, cell, gpus, python } = options;
  await untilReady(running.url, running.server, options.readySecondsMax);
  const engine = await settledEngine(running.httpPort, "idle", SETTLED_SECONDS_MAX);
  const report = await execute(python, [join(here, "verify_report.py"), running.log]);
  return {
    ...cell,
    ...{ shape: family.shape, gpus },
    graphsPlanned: engine.graphs.length,
    graphsCaptured: graphsCaptured(engine),
    report: JSON.parse(report.stdout),
  };
}

async function tokensCell(options: CellOptions): Promise<TokensResult> {
  const { family, cell, gpus, model, python, folder } = options;
  const stock = `${cellName({ ...cell, arm: "stock" })}.tokens.json`;
  const file = `${cellName(cell)}.tokens.json`;
  const config = cell.arm === "stock" ? "stock" : "lazygraph";
  const env = {
    ...process.env,
    // Batch invariance turns breakable graphs on for some shapes, which have a family.
    VLLM_USE_BREAKABLE_CUDAGRAPH: "0",
    ...cacheEnvironment(family, options.caches),
    ...family.env,
    CUDA_VISIBLE_DEVICES: gpus.join(","),
  };
  const limits = { env, timeout: TOKENS_MS_MAX, maxBuffer: 1 << 28, signal: options.signal };
  const what = [join(here, "tokens.py"), model, join(folder, file), "--config", config];
  await execute(python, [...what, "--invariant", ...(family.tokens ?? [])], limits);
  const base = { ...cell, shape: family.shape, gpus, tokens: file };
  if (cell.arm === "stock") return base;
  const compared = await execute(python, [
    join(here, "compare_tokens.py"),
    ...["--exact", "--stock", join(folder, stock), "--ours", join(folder, file)],
  ]).catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? "" }));
  return { ...base, comparison: JSON.parse(compared.stdout) };
}

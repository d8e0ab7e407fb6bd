/** One cell of the main job: start a server, wait, measure, stop it. */

import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { freePort } from "../../src/bench/engine-command.ts";
import { completion, type DecodeResult, decodeLevel, LEVELS, streamed } from "./lib/decode.ts";
import {
  type EngineJson,
  engineSnapshot,
  graphBytes,
  graphsCaptured,
  settledEngine,
} from "./lib/engine-view.ts";
import { armArguments, armEnvironment, ourOptions } from "./lib/family-command.ts";
import { type Arm, isOurs, modeOf } from "./lib/family-plan.ts";
import { startServer, stopServer, untilReady } from "./lib/server.ts";
import { readStartTiming } from "./lib/start-timing.ts";

/** A mode of ours, or stock, as it is or with a setting of its own (family-plan.ts). */
export type Mode = Arm;

export interface Cell {
  readonly round: number;
  readonly mode: Mode;
  readonly gpu: number;
}

export interface CellResult extends Cell {
  readonly model: string;
  readonly serve: string;
  /**
   * Seconds in vLLM's capture_model, synchronised: capture and what vLLM does around it; from vLLM
   * 0.29 on with the throw-away capture before it.
   */
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
    ...armArguments(cell.mode),
  ];
  const cli = new URL("../../dist/cli/main.js", import.meta.url).pathname;
  const http = ["--http", `127.0.0.1:${httpPort}`];
  const command = isOurs(cell.mode)
    ? [
        process.execPath,
        cli,
        "run",
        ...ourOptions(cell.mode),
        "--quiet",
        ...http,
        "--",
        ...serveCommand,
      ]
    : serveCommand;
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    CUDA_VISIBLE_DEVICES: String(cell.gpu),
    LAZYGRAPH_TEST_TIMING: timing,
    ...armEnvironment(cell.mode),
  };
  const log = join(out, "cells", `${name}.log`);
  const server = startServer({ name, command, env, log });
  try {
    const url = new URL(`http://127.0.0.1:${port}`);
    const readyAt = await untilReady(url, server, READY_TIMEOUT_SECONDS);
    const first = await streamed(completion(url, model, 1, 0));
    const engine = isOurs(cell.mode)
      ? await settledEngine(httpPort, modeOf(cell.mode), SETTLE_TIMEOUT_SECONDS)
      : undefined;
    const deviceUsedMiB = await deviceUsed(cell.gpu);
    const decode: DecodeResult[] = [];
    for (const concurrent of LEVELS) {
      decode.push(await decodeLevel(url, model, concurrent, REPETITIONS));
    }
    const after = isOurs(cell.mode) ? await engineSnapshot(httpPort) : undefined;
    const timed = readStartTiming(timing);
    return {
      ...cell,
      model,
      serve: serveCommand.slice(0, serveCommand.indexOf("--port")).join(" "),
      captureBeforeReadySeconds: timed.allCaptureSeconds,
      capturesAloneSeconds: timed.captureSeconds,
      spawnToReadySeconds: (readyAt - server.spawnedAtMs) / 1000,
      spawnToFirstTokenSeconds: (first.firstAtMs - server.spawnedAtMs) / 1000,
      ...(engine === undefined ? {} : engineFigures(engine, after, cell.mode)),
      graphBytes: engine === undefined ? timed.freeLostBytes : graphBytes(after ?? engine),
      deviceUsedMiB,
      decode,
    };
  } finally {
    await stopServer(server);
  }
}

function engineFigures(
  engine: EngineJson,
  after: EngineJson | undefined,
  mode: Mode,
): Partial<CellResult> {
  const settledSeconds = engine.readyToSettledSeconds;
  return {
    ...(mode === "lazy" || settledSeconds === undefined
      ? {}
      : { readyToSettledSeconds: settledSeconds }),
    longestCaptureMs: Math.max(...(after ?? engine).graphs.map((graph) => graph.ms ?? 0)),
    graphsPlanned: engine.graphs.length,
    graphsCaptured: graphsCaptured(engine),
    graphsCapturedAfterDecode: graphsCaptured(after ?? engine),
    engine: after ?? engine,
  };
}

async function deviceUsed(gpu: number): Promise<number> {
  const query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", String(gpu)];
  const { stdout } = await run("nvidia-smi", query);
  return Number(stdout.trim());
}

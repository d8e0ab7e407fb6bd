/**
 * `lazygraph simulated-engine`: the simulated engine as a process of its own, behind the real
 * protocol.
 *
 * It takes the variables that `lazygraph run` sets for vLLM, and writes what happens as JSON lines
 * on stdout. It ends with its parent.
 */

import { realpathSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { codeOf, ERROR_CODES, type ErrorCode, OptionError } from "../base/errors.ts";
import { DEFAULT_PROFILE, loadProfile, withSizes } from "../profile/load.ts";
import type { Profile } from "../profile/profile.ts";
import type { EngineCurve } from "../sim/live/link.ts";
import { LiveEngine, type LiveEngineOptions } from "../sim/live/live.ts";
import { startSimulatedServer } from "../sim/live/server.ts";
import { SimulatedGpu } from "../sim/model/memory.ts";
import { monotonicSeconds, spanWriter } from "../startup/spans.ts";
import { readTrace, type TraceRequest } from "../trace/trace.ts";
import { endpointsOf, isLoopback } from "../wire/endpoint.ts";
import { EXIT, exitCodeOf, note, reportError, usageError } from "./errors.ts";
import { engineKeys } from "./key-folder.ts";
import { isDisabled } from "./no-engine.ts";
import { numberOption } from "./number-option.ts";
import {
  engineNameOption,
  hostPortOption,
  modeOption,
  type ParsedOptions,
  parseOptions,
  secondsOption,
} from "./options.ts";

const HELP = `Usage: lazygraph simulated-engine [options]

A simulated vLLM engine behind lazygraph's protocol. Its numbers come from a cost profile, not from
a GPU. One JSON object a line on stdout: started, loaded, ready, capture, drop, outOfMemory,
problem, request, drained.

Options:
  --endpoint ENDPOINT   of the controller (LAZYGRAPH_ENDPOINT), or up to eight in order with commas
                        between them, as the plugin takes; none: by the mode's own defaults
  --engine NAME         logical name (LAZYGRAPH_ENGINE; simulated)
  --mode MODE           eager, lazy or idle (LAZYGRAPH_MODE; idle)
  --profile NAME|FILE   cost profile (${DEFAULT_PROFILE})
  --speed X             simulated seconds per real second (1)
  --trace FILE          requests to serve, arriving from the start of the process on
  --trace-speed X       divides the trace's times (1)
  --trace-seconds N     cuts arrivals after N seconds
  --trace-requests N    at most N requests (100000)
  --handshake-ms N      how long to wait for the controller before the first capture (250)
  --free-bytes N        free on each of its GPUs before the first capture (the profile's)
  --gpu-uuid UUID       its GPUs are UUID-0, UUID-1, …, one a rank (default: made up)
  --jitter X            relative standard deviation of all times (0)
  --seed N              of the jitter (1)
  --sizes LIST          only these capture sizes, with commas between them; none: no graphs
  --http HOST:PORT      an OpenAI-compatible server as well; port 0: any free one
  --model NAME          what that server calls its model (the profile's)

It ends with the process that started it, a killed one as well: unlike vLLM, which goes on. With
LAZYGRAPH_DISABLE=1 it starts as stock does: all graphs before ready, no controller.

Examples:
  lazygraph simulated-engine --mode idle --speed 10 --trace azure-llm-2023-conversation
  LAZYGRAPH_ENDPOINT=tcp://127.0.0.1:5757,tcp://127.0.0.1:5758 lazygraph simulated-engine
  lazygraph startup -- lazygraph simulated-engine --http 127.0.0.1:{port}
  lazygraph calibrate --url http://127.0.0.1:8000 --model sim --output sim.json -- \\
    lazygraph simulated-engine --http 127.0.0.1:8000 --model sim
`;

const SPEC = {
  endpoint: "string",
  engine: "string",
  mode: "string",
  profile: "string",
  speed: "string",
  trace: "string",
  "trace-speed": "string",
  "trace-seconds": "string",
  "trace-requests": "string",
  "handshake-ms": "string",
  "free-bytes": "string",
  "gpu-uuid": "string",
  jitter: "string",
  seed: "string",
  sizes: "string",
  http: "string",
  model: "string",
} as const;

/** Options that `lazygraph run` sets for its child. */
const VARIABLES = [
  ["endpoint", "LAZYGRAPH_ENDPOINT"],
  ["engine", "LAZYGRAPH_ENGINE"],
  ["mode", "LAZYGRAPH_MODE"],
] as const;

/** As the plugin times a start, so that `lazygraph startup` can be tried without a GPU. */
const timed = startupSpans();

const REQUESTS_MAX = 100_000;
/** Of unread output: a parent that doesn't read is no reason to grow. */
const OUTPUT_BYTES_MAX = 4 << 20;
const CLOSE_MS_MAX = 2000;

async function main(argv: readonly string[]): Promise<void> {
  const options = withVariables(argv);
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return;
  }
  const settings = await settingsOf(options).catch((error: unknown) => {
    throw byVariable(argv, error);
  });
  const requests = await readRequests(options);
  const address = options.strings.get("http");
  if (address === undefined) {
    const engine = new LiveEngine({ ...settings, requests, onEvent: print });
    endWithParent(engine);
    engine.start();
    tellStarted(engine, settings.engine);
    return;
  }
  const { host, port } = hostPortOption("--http", address);
  const model = options.strings.get("model");
  const server = await startSimulatedServer({
    ...settings,
    ...(model === undefined ? {} : { model }),
    requests,
    host,
    port,
    onEvent: print,
  });
  endWithParent(server.engine, server.close);
  tellStarted(server.engine, settings.engine);
  print({ type: "listening", url: server.url, model: server.model });
}

function tellStarted({ session }: LiveEngine, engine: string): void {
  print({ type: "started", pid: process.pid, engine, session });
}

function withVariables(argv: readonly string[]): ParsedOptions {
  const given = parseOptions(argv, SPEC);
  const more = VARIABLES.flatMap(([name, variable]) => {
    const value = process.env[variable] ?? "";
    return value === "" || given.strings.has(name) ? [] : [`--${name}=${value}`];
  });
  return parseOptions([...argv, ...more], SPEC);
}

/** What came by a variable is called by it: nobody has typed the option. */
function byVariable(argv: readonly string[], error: unknown): unknown {
  if (!(error instanceof OptionError)) return error;
  const [name, variable] = VARIABLES.find(([option]) => `--${option}` === error.option) ?? [];
  const isTyped = argv.some((word) => word === `--${name}` || word.startsWith(`--${name}=`));
  if (name === undefined || variable === undefined || isTyped) return error;
  return new OptionError(variable, error.message.replaceAll(`--${name}`, variable));
}

async function settingsOf(
  options: ParsedOptions,
): Promise<LiveEngineOptions & { readonly engine: string }> {
  // As the plugin does: switched off, the engine is vLLM's own.
  const stock = isDisabled(process.env);
  const endpoint = stock ? undefined : options.strings.get("endpoint");
  const curve = await engineKeys(process.env);
  if (endpoint !== undefined) checkEndpoints(endpoint, curve);
  const profile = profileOf(options);
  return {
    engine: engineNameOption(options) ?? "simulated",
    mode: stock ? "eager" : modeOption(options, "idle"),
    warmUps: stock ? "all" : "first",
    profile,
    gpu: gpuOf(options, profile.memory.freeBytes),
    speed: numberOption(options, "speed", { min: 0.001, max: 1000, fallback: 1 }),
    handshakeMs: numberOption(options, "handshake-ms", { min: 0, max: 60_000, fallback: 250 }),
    jitter: numberOption(options, "jitter", { min: 0, max: 1, fallback: 0 }),
    seed: numberOption(options, "seed", { min: 0, max: 2 ** 32 - 1, fallback: 1, whole: true }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(curve === undefined ? {} : { curve }),
  };
}

/** The plugin's rules: whoever is at an address of the network could else give this engine orders. */
function checkEndpoints(text: string, curve: EngineCurve | undefined): void {
  const open = endpointsOf("--endpoint", text).find((endpoint) => !isLoopback(endpoint));
  if (open === undefined || curve !== undefined) return;
  throw new OptionError(
    "--endpoint",
    `Expected CURVE keys for --endpoint ${open}, behind which another machine may be, got none: ` +
      "set LAZYGRAPH_ENGINE_KEYS to a folder of `lazygraph keys new`.",
  );
}

function profileOf(options: ParsedOptions): Profile {
  const profile = loadProfile(options.strings.get("profile") ?? DEFAULT_PROFILE);
  const text = options.strings.get("sizes");
  if (text === undefined) return profile;
  const sizes = text === "none" ? [] : text.split(",").map(Number);
  if (sizes.some((size) => !Number.isInteger(size) || size < 1)) {
    throw usageError("--sizes", "whole numbers with commas between them, or none", text);
  }
  return withSizes(profile, sizes);
}

function gpuOf(options: ParsedOptions, fallback: number): SimulatedGpu {
  const max = Number.MAX_SAFE_INTEGER;
  const free = numberOption(options, "free-bytes", { min: 0, max, fallback, whole: true });
  return new SimulatedGpu(free, options.strings.get("gpu-uuid"));
}

async function readRequests(options: ParsedOptions): Promise<TraceRequest[]> {
  const file = options.strings.get("trace");
  const seconds = secondsOption(options, "trace-seconds");
  const speed = numberOption(options, "trace-speed", { min: 1e-6, max: 1e6, fallback: 1 });
  const count = numberOption(options, "trace-requests", {
    min: 1,
    max: REQUESTS_MAX,
    fallback: REQUESTS_MAX,
    whole: true,
  });
  if (file === undefined) return [];
  const requests: TraceRequest[] = [];
  const limits = { speed, requests: count, ...(seconds === undefined ? {} : { seconds }) };
  for await (const request of readTrace(file, limits)) requests.push(request);
  return requests;
}

function startupSpans(): (type: string) => void {
  const spans = spanWriter(process.env);
  const detail = { simulated: true };
  let begin = monotonicSeconds();
  spans.ended("imports", begin - performance.now() / 1000, detail);
  spans.begun("weights", begin);
  return (type) => {
    if (type !== "loaded" && type !== "ready") return;
    spans.ended(type === "loaded" ? "weights" : "captures", begin, detail);
    begin = monotonicSeconds();
    if (type === "loaded") spans.begun("captures", begin);
  };
}

function print<T extends { type: string; code?: string; message?: string }>(event: T): void {
  if (event.message) note(event.message, event.code as ErrorCode);
  timed(event.type);
  if (process.stdout.writableLength > OUTPUT_BYTES_MAX) return;
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** A parent may let a stranger come and go: `{ type: "stranger", bytes }`, answered in order. */
function obeyParent(engine: LiveEngine): void {
  process.on("message", (message: unknown) => {
    const { type, bytes } = message as { readonly type?: unknown; readonly bytes?: unknown };
    if (type !== "stranger" || typeof bytes !== "number" || !(bytes >= 0)) return;
    engine.setStrangerBytes(bytes);
    process.send?.({ type, freeBytes: engine.model.freeBytes });
  });
}

/** An engine without its parent is one that nobody asked for, and that nobody will end. */
function endWithParent(engine: LiveEngine, close?: () => Promise<void>): void {
  let ending = false;
  const end = (reason: string, exitCode: number): void => {
    if (ending) return;
    ending = true;
    setTimeout(() => process.exit(exitCode), CLOSE_MS_MAX).unref();
    // The server closes its engine too; told first, the engine can say why it goes.
    const ended = engine.close(reason).then(() => close?.());
    ended.then(
      () => process.exit(exitCode),
      (error: unknown) => process.exit(reportError(error)),
    );
  };
  void engine.closed.then(() => end("The engine ended by itself.", 1));
  process.once("SIGTERM", () => end("The engine was asked to end.", 0));
  process.once("SIGINT", () => end("The engine was interrupted.", 0));
  process.stdout.once("error", () => end("Nobody reads the engine's output.", 0));
  if (process.channel !== undefined) {
    process.once("disconnect", () => end("The engine's parent has gone.", 0));
    obeyParent(engine);
    return;
  }
  const parent = process.ppid;
  setInterval(() => {
    if (process.ppid !== parent) end("The engine's parent has gone.", 0);
  }, 1000);
}

/** A parent that asked for this engine gets the error itself; anyone else reads it on stderr. */
function tellFailure(error: unknown): void {
  const code = codeOf(error);
  if (process.channel === undefined || !ERROR_CODES.some((known) => known === code)) {
    process.exitCode = reportError(error);
    if (process.channel !== undefined) process.disconnect();
    return;
  }
  process.exitCode = exitCodeOf(error);
  const { message } = error as Error;
  process.send?.({ type: "failed", code, message }, () => process.disconnect());
}

/** Resolves once it runs; it ends by itself, with its parent, or when it is told to. */
export async function runSimulatedEngine(argv: readonly string[]): Promise<number> {
  try {
    await main(argv);
  } catch (error) {
    tellFailure(error);
  }
  return Number(process.exitCode ?? EXIT.ok);
}

// Also a program of its own: `startSimulatedEngine` forks this file.
const [, program = ""] = process.argv;
if (program !== "" && import.meta.url === pathToFileURL(realpathSync(program)).href) {
  await runSimulatedEngine(process.argv.slice(2));
}

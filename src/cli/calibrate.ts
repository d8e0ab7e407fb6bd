/** `lazygraph calibrate -- COMMAND`: a cost profile from a live engine. */

import { type Clock, systemClock, withinSeconds } from "../base/clock.ts";
import { LazygraphError, OptionError } from "../base/errors.ts";
import { calibrate } from "../calibrate/calibrate.ts";
import { CalibrationControl } from "../calibrate/control.ts";
import { type Controller, createController } from "../controller/controller.ts";
import { onEvent } from "../engine/events.ts";
import type { ServerAddress } from "../measure/server-address.ts";
import { TEXT_CHARS_MAX } from "../profile/check.ts";
import { isLoopback } from "../wire/endpoint.ts";
import { type Child, type ChildEnd, startChild, startExitCode } from "./child.ts";
import { closeWithin } from "./close-within.ts";
import { SECRET_VARIABLES } from "./curve-keys.ts";
import { note, quote, reportError, signalExit, usageError } from "./errors.ts";
import { isHangupIgnored } from "./hangup.ts";
import { numberOption } from "./number-option.ts";
import { endpointOption, type ParsedOptions, parseOptions } from "./options.ts";
import { refuseVariables } from "./own-variables.ts";
import { openReport, type Report } from "./report.ts";
import { requirePlugin } from "./require-plugin.ts";
import { ACCESS_OPTIONS, serverOption } from "./server-options.ts";
import { stopSignal } from "./stop-signal.ts";
import { withoutSecrets } from "./without-secrets.ts";

const OWN_VARIABLES = ["LAZYGRAPH_ENDPOINT", "LAZYGRAPH_MODE", "LAZYGRAPH_DISABLE"];

const HELP = `Usage: lazygraph calibrate --url URL --model MODEL --output FILE [options] -- COMMAND

A cost profile from a live engine: COMMAND is started under a controller of its own, which first
captures the largest graphs only. Waves of completions then run without graphs and padded to the
largest, every graph is captured, and the waves run again, each step in its own graph. What steps
and captures took goes into FILE, in the format of \`lazygraph simulate --profile FILE\`, with the
steps behind every figure. It takes some minutes; nothing else should use the engine meanwhile.

Options:
  --url URL             where COMMAND serves the OpenAI API, such as http://127.0.0.1:8000, with or
                        without /v1
  --api-key-file FILE   a file with the key of that address, which other users can't read (default:
                        the key in OPENAI_API_KEY); --api-key KEY: everybody on this host may read it
  --header NAME:VALUE   sent with every request; more than once for several; as open as --api-key
  --model MODEL         the model's name there
  --output FILE         the profile
  --sizes LIST          planned sizes to measure, with commas (default: some fifteen in octaves);
                        those between are interpolated, and marked so
  --name NAME           of the profile (default: FILE without .json)
  --endpoint ENDPOINT   where the engine connects (default tcp://127.0.0.1:0, any free port)
  --start-timeout S     seconds until the engine must serve (1800)
  --quiet               no progress on stderr
  --help, -h            this text

Exit code: 127 when there is no such command, 126 when it can't be executed, 2 for a usage error,
1 for a failure, 128 and its number for a signal.

Examples:
  lazygraph calibrate --url http://127.0.0.1:8000 --model meta-llama/Llama-3.1-8B \\
    --output my-8b.json -- vllm serve meta-llama/Llama-3.1-8B --max-model-len 20480
  lazygraph simulate --trace day.csv --profile my-8b.json --policy stock,idle-costed
`;

const START_TIMEOUT_SECONDS = 1800;
/** vLLM takes a few seconds to end; then it is killed. */
const STOP_SECONDS_MAX = 30;
const SIZES_MAX = 256;
/** An interruption is over within seconds. */
export const AWAY_SECONDS_MAX = 30;

interface CalibrateOptions {
  readonly server: ServerAddress;
  readonly model: string;
  readonly output: string;
  readonly sizes: readonly number[] | undefined;
  readonly name: string;
  readonly endpoint: string;
  readonly startTimeoutSeconds: number;
  readonly quiet: boolean;
  readonly command: readonly string[];
}

export async function runCalibrate(argv: readonly string[]): Promise<number> {
  const options = parseCalibrate(argv);
  if (options === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  const report = await openReport(options.output, "--output");
  await requirePlugin(options.command, process.env);
  const control = new CalibrationControl();
  const controller = createController({
    mode: "lazy",
    endpoint: options.endpoint,
    // A calibration is no start that says anything of traffic.
    plan: false,
    policy: () => control.policy,
  });
  await controller.start();
  try {
    return await calibrateUnder(controller, control, options, report);
  } finally {
    await closeWithin(controller);
  }
}

async function calibrateUnder(
  controller: Controller,
  control: CalibrationControl,
  options: CalibrateOptions,
  report: Report,
): Promise<number> {
  const startedAtMs = performance.now();
  let child: Child;
  try {
    child = await startEngine(options, controller.endpoint);
  } catch (error) {
    reportError(error);
    return startExitCode(error);
  }
  const ended = new AbortController();
  const watch = child.ended.then((end) => ended.abort(endedError(end, options)));
  const unwatch = watchEngines(systemClock, (why) => ended.abort(why));
  let stopped = 0;
  void stopSignal().then((name) => {
    stopped = signalExit(name);
    note(`${name}: the calibration ends; once more kills its command.`);
    ended.abort(fault(`the calibration to come to its end, got ${name}: there is no profile.`));
    void stopSignal().then(() => signalChild(child, "SIGKILL"));
  });
  const late = systemClock.after(options.startTimeoutSeconds, () =>
    ended.abort(lateError(options)),
  );
  void controller.waitForEngine({ phase: "serving", signal: ended.signal }).then(late, late);
  try {
    const document = await calibrate({
      controller,
      control,
      server: options.server,
      model: options.model,
      sizes: options.sizes,
      name: options.name,
      command: withoutSecrets(options.command),
      startedAtMs,
      signal: ended.signal,
      onProgress: (line) => {
        if (!options.quiet) note(line);
      },
    });
    await keepProfile(report, document);
    if (!options.quiet) note(`the profile is in ${options.output}.`);
    return 0;
  } catch (error) {
    if (stopped === 0) throw error;
    reportError(error);
    return stopped;
  } finally {
    late();
    unwatch();
    await stopEngine(child, watch, stopped > 0);
  }
}

/** On stdout where its file can't be written: it took minutes. */
export async function keepProfile(report: Report, document: object): Promise<void> {
  await report.write(document, 1).catch((error: unknown) => {
    process.stdout.write(`${JSON.stringify(document)}\n`);
    throw error;
  });
}

/** Undefined: the user asked for help. */
function parseCalibrate(argv: readonly string[]): CalibrateOptions | undefined {
  const terminator = argv.indexOf("--");
  const own = terminator === -1 ? argv : argv.slice(0, terminator);
  const command = terminator === -1 ? [] : argv.slice(terminator + 1);
  const options = parseOptions(own, {
    ...ACCESS_OPTIONS,
    url: "string",
    model: "string",
    output: "string",
    sizes: "string",
    name: "string",
    endpoint: "string",
    "start-timeout": "string",
    quiet: "boolean",
  });
  if (options.flags.has("help")) return undefined;
  const address = required(options, "url", "http://127.0.0.1:8000");
  const server = serverOption("--url", address, options, process.env);
  const model = required(options, "model", "the model's name at that address");
  const output = required(options, "output", "profile.json");
  if (command.length === 0 || command[0] === "") {
    throw new OptionError("--", "Expected a command after `--`, such as `vllm serve MODEL`.");
  }
  refuseVariables("calibrate", command, OWN_VARIABLES);
  const name = options.strings.get("name") ?? nameOf(output);
  if (name.length > TEXT_CHARS_MAX) {
    throw usageError("--name", `a text of at most ${TEXT_CHARS_MAX} characters`, name);
  }
  const endpoint = endpointOption(options) ?? "tcp://127.0.0.1:0";
  if (!isLoopback(endpoint)) {
    throw usageError("--endpoint", "an address of loopback, for want of keys", endpoint);
  }
  return {
    server,
    model,
    output,
    sizes: sizesOption(options),
    name,
    endpoint,
    startTimeoutSeconds: numberOption(options, "start-timeout", {
      min: 1,
      max: 86_400,
      fallback: START_TIMEOUT_SECONDS,
    }),
    quiet: options.flags.has("quiet"),
    command,
  };
}

function required(options: ParsedOptions, name: string, such: string): string {
  const value = options.strings.get(name);
  if (value !== undefined) return value;
  throw usageError(`--${name}`, `given, such as ${such}`, undefined);
}

function sizesOption(options: ParsedOptions): number[] | undefined {
  const text = options.strings.get("sizes");
  if (text === undefined) return undefined;
  const sizes = text.split(",").map(Number);
  const sound = sizes.every((size) => Number.isInteger(size) && size >= 1);
  if (sound && sizes.length <= SIZES_MAX && !/\s/.test(text)) return sizes;
  throw usageError("--sizes", "planned sizes with commas, such as 1,8,64,512", text);
}

function nameOf(output: string): string {
  const file = output.split("/").at(-1) ?? output;
  return file.replace(/\.json$/, "") || "profile";
}

async function startEngine(options: CalibrateOptions, endpoint: string): Promise<Child> {
  const environment: NodeJS.ProcessEnv = {
    ...process.env,
    LAZYGRAPH_ENDPOINT: endpoint,
    LAZYGRAPH_MODE: "lazy",
  };
  for (const name of SECRET_VARIABLES) delete environment[name];
  delete environment["LAZYGRAPH_DISABLE"];
  return startChild(options.command, { environment, ignoreHangup: isHangupIgnored() });
}

/** @param asked by the user already: a second signal keeps vLLM from its clean-up */
async function stopEngine(child: Child, ended: Promise<void>, asked: boolean): Promise<void> {
  let over = false;
  const end = ended.then(() => {
    over = true;
  });
  if (asked) await withinSeconds(systemClock, STOP_SECONDS_MAX, end);
  if (!over) signalChild(child, "SIGTERM");
  await withinSeconds(systemClock, STOP_SECONDS_MAX, end);
  if (!over) signalChild(child, "SIGKILL");
  await end;
}

function signalChild({ pid }: Child, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended by itself.
  }
}

/** Without its engine it would wait for ever; a second would be measured as the first. */
export function watchEngines(clock: Clock, abort: (why: LazygraphError) => void): () => void {
  let name: string | undefined;
  let cancel = (): void => {};
  const stops = [
    onEvent("lazygraph:engine:join", ({ engine }) => {
      name ??= engine;
      if (engine === name) cancel();
      else abort(fault(`one engine at --endpoint, without data parallelism, got ${engine}, too.`));
    }),
    onEvent("lazygraph:engine:lost", ({ engine, reason }) => {
      cancel();
      cancel = clock.after(AWAY_SECONDS_MAX, () =>
        abort(fault(`${engine} back within ${AWAY_SECONDS_MAX} s, but it is away: ${reason}`)),
      );
    }),
  ];
  return () => {
    cancel();
    for (const stop of stops) stop();
  };
}

function endedError(end: ChildEnd, { command }: CalibrateOptions): LazygraphError {
  const how = end.signal === undefined ? `with exit code ${end.exitCode}` : `by ${end.signal}`;
  return fault(
    `${quote(command.join(" "))} to serve until the end of the calibration, but it ` +
      `ended ${how}; what it printed above says why.`,
  );
}

function lateError({ startTimeoutSeconds }: CalibrateOptions): LazygraphError {
  return fault(
    `an engine to join and serve within ${startTimeoutSeconds} s, got none: is the plugin ` +
      "lazygraph-vllm in its Python, and can it reach --endpoint?",
  );
}

function fault(expectation: string): LazygraphError {
  return new LazygraphError("ERR_LAZYGRAPH_CALIBRATE", `Expected ${expectation}`);
}

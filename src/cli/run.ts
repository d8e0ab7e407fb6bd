/**
 * `lazygraph run -- COMMAND`: a controller, and the vLLM command under it.
 *
 * The command comes first: once it runs, nothing that happens to the controller may end it, and
 * its exit code is ours.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../base/clock.ts";
import { codeOf, type ErrorCode, messageOf, OptionError } from "../base/errors.ts";
import { hideSecretOptions } from "../base/secrets.ts";
import { type Controller, createController } from "../controller/controller.ts";
import { toldSnapshot } from "../controller/told-session.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { launcherCommand } from "../launcher/command.ts";
import { askLauncher } from "../launcher/status.ts";
import type { MemoryOptions } from "../memory/options.ts";
import { monotonicSeconds, spanWriter } from "../startup/spans.ts";
import { endpointsOf } from "../wire/endpoint.ts";
import type { Mode } from "../wire/protocol.ts";
import { type CacheUse, cacheUse, startCaches } from "./cache-use.ts";
import { type Child, type ChildEnd, startChild, startExitCode } from "./child.ts";
import { closeWithin } from "./close-within.ts";
import { CONFIG_HELP, CONFIG_OPTIONS, withConfig } from "./config-file.ts";
import { noteMissingController } from "./controller-there.ts";
import {
  curveKeys,
  KEY_HELP,
  KEY_OPTIONS,
  type KeyFolder,
  keyFolder,
  SECRET_VARIABLES,
} from "./curve-keys.ts";
import { EXIT, errorLine, note, quote, reportError } from "./errors.ts";
import { isHangupIgnored } from "./hangup.ts";
import { HTTP_HELP, HTTP_OPTIONS, type HttpSide, httpSide, openHttpServer } from "./http-side.ts";
import { listen } from "./listen.ts";
import { MEMORY_HELP, MEMORY_OPTIONS, memoryOptions } from "./memory-options.ts";
import { isDisabled, noEngineSentence } from "./no-engine.ts";
import {
  endpointOption,
  engineNameOption,
  enginesMaxOption,
  environmentMode,
  modeOption,
  type OptionSpec,
  type ParsedOptions,
  parseOptions,
  secondsOption,
} from "./options.ts";
import { refuseVariables, takeVariables } from "./own-variables.ts";
import { notePlanFolder } from "./plan-folder.ts";
import { PLAN_HELP, PLAN_OPTIONS, planOptions, withoutEffect } from "./plan-options.ts";
import { PRESET_HELP, PRESET_OPTIONS, withPreset } from "./presets.ts";
import { LOOPBACK, openPrivateEndpoint } from "./private-endpoint.ts";
import { followEngines } from "./progress.ts";
import { openReport, type Report } from "./report.ts";
import { requirePlugin } from "./require-plugin.ts";
import { planFolderOf, type StartWatch, watchStart } from "./start-watch.ts";
import { withoutSecrets } from "./without-secrets.ts";

const JOIN_WARNING_SECONDS = 120;
const LAST_LOOKS = 20;
const LAST_LOOK_MS = 10;

export const RUN_OPTIONS: OptionSpec = {
  ...PRESET_OPTIONS,
  mode: "string",
  endpoint: "string",
  controller: "string",
  engine: "string",
  launcher: "string",
  caches: "string",
  "caches-read-only": "boolean",
  "settle-within": "string",
  "engines-max": "string",
  ...KEY_OPTIONS,
  ...HTTP_OPTIONS,
  ...PLAN_OPTIONS,
  ...MEMORY_OPTIONS,
  ...CONFIG_OPTIONS,
  json: "string",
  quiet: "boolean",
};

const HELP = `Usage: lazygraph run [options] -- COMMAND [arguments]

Starts a controller, then COMMAND with its address in the environment. The command's output and
its exit code are passed through, and to it SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1 and SIGUSR2;
under \`nohup\` both ignore SIGHUP. SIGKILL can't be passed on: the command goes on by itself, so
kill the process group; a simulated engine alone ends with its parent. What \`env\` in front of
COMMAND sets counts here as well. TTFT is less predictable in lazy and idle mode than in eager mode:
a request may wait for one capture. With LAZYGRAPH_DISABLE=1 COMMAND is started as it is.

Options:
${PRESET_HELP}
  --mode MODE           eager: all graphs before ready; lazy: what traffic has earned;
                        idle: the rest too, while there is nothing to do
                        (default: LAZYGRAPH_MODE, else idle)
  --endpoint ENDPOINT   where the engine connects: tcp://HOST:PORT or ipc://PATH
                        (default: a socket file that is this user's alone; for a container on the
                        host's network tcp://127.0.0.1:0, any free port)
  --controller ENDPOINT where a controller listens already, such as a gateway's: the engine joins
                        that one, and none is started here. Several with commas, as for
                        LAZYGRAPH_ENDPOINT; the engine's keys are in LAZYGRAPH_ENGINE_KEYS. Beside it
                        go --mode (until that controller says otherwise), --engine, --launcher and
                        --caches
${KEY_HELP}
  --engine NAME         the engine's logical name (default HOST/MODEL)
  --launcher SOCKET     fork COMMAND from the launcher there, without imports; where that can't be,
                        it is spawned, and a line says why (see \`lazygraph launcher\`)
  --caches DIR          what COMMAND compiles is kept in DIR and taken from there; filled where it is
                        empty. Caches of another engine are not used, and a line says what differs
                        (see \`lazygraph caches\`)
  --caches-read-only    DIR isn't changed: a private copy is used
  --settle-within S     no captures later than S seconds after ready
  --engines-max N       engines at once, 1 to 4096; one more waits until there is room (default 64)
  --http HOST:PORT      answer \`lazygraph status\`, PUT …/mode and GET /metrics there, or at
                        unix:PATH, a socket file that only this user may open (default: no HTTP)
${HTTP_HELP}
${PLAN_HELP}
${MEMORY_HELP}
${CONFIG_HELP}
  --json FILE           write the engines' figures to FILE when settled and at the end
  --quiet               nothing on stderr but errors
  --help, -h            this text

Exit code: the command's; 128 + signal when a signal ended it; 127 when there is no such command,
126 when it can't be executed, or its launcher refuses it; 2 for a usage error; 1 when the controller
or the plugin isn't there.

Examples:
  lazygraph run --mode idle -- vllm serve meta-llama/Llama-3.1-8B
  lazygraph run --mode idle --policy costed --exclude PIECEWISE -- vllm serve MODEL
  lazygraph run --mode lazy --settle-within 600 --json figures.json -- vllm serve MODEL
`;

/** What is left to `run` where another controller decides. */
const BESIDE_CONTROLLER: ReadonlySet<string> = new Set([
  ...["controller", "mode", "engine", "launcher", "caches", "caches-read-only"],
  ...[...Object.keys(CONFIG_OPTIONS), "quiet"],
]);

interface RunOptions {
  /** What a preset set, as a sentence. */
  readonly preset: string | undefined;
  readonly mode: Mode;
  /** Whether `--mode` or a file says so. */
  readonly isModeGiven: boolean;
  /** Undefined: a private one. */
  readonly endpoint: string | undefined;
  /** Another one's endpoints: then there is none of our own. */
  readonly controller: string | undefined;
  readonly engine: string | undefined;
  readonly launcher: string | undefined;
  readonly caches: CacheUse | undefined;
  readonly settleWithinSeconds: number | undefined;
  readonly enginesMax: number | undefined;
  readonly keys: KeyFolder | undefined;
  readonly http: HttpSide | undefined;
  readonly planning: ReturnType<typeof planOptions>;
  /** An option that does nothing here, as a sentence. */
  readonly vainOption: string | undefined;
  readonly memory: MemoryOptions;
  readonly json: string | undefined;
  readonly quiet: boolean;
  readonly command: readonly string[];
  /** The command without what a preset added. */
  readonly typed: readonly string[];
}

export async function runRun(argv: readonly string[]): Promise<number> {
  const options = parseRun(argv);
  if (options === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  const report = options.json === undefined ? undefined : await openReport(options.json);
  if (isDisabled(process.env)) return runStock(options, report);
  if (options.controller !== undefined) return runElsewhere(options, options.controller);
  const { mode, settleWithinSeconds, enginesMax } = options;
  if (options.preset !== undefined && !options.quiet) note(options.preset);
  if (options.vainOption !== undefined && !options.quiet) note(options.vainOption);
  const own = options.endpoint ?? LOOPBACK;
  const curve = await curveKeys(options.keys, process.env, own, (sentence) =>
    note(sentence, "ERR_LAZYGRAPH_KEYS"),
  );
  await requirePlugin(options.command, process.env, await launcherPython(options));
  await using privately = options.endpoint === undefined ? await openPrivateEndpoint() : undefined;
  const endpoint = privately?.endpoint ?? own;
  const controller = createController({
    mode,
    endpoint,
    ...options.planning,
    memory: options.memory,
    ...(settleWithinSeconds === undefined ? {} : { settleWithinSeconds }),
    ...(enginesMax === undefined ? {} : { enginesMax }),
    ...(curve === undefined ? {} : { curve }),
  });
  // Before the endpoint is bound: a token or certificate that can't be used ends the start.
  await using watch = await watched(options);
  const server =
    options.http === undefined
      ? undefined
      : await openHttpServer(controller, options.http, process.env, watch && { start: watch });
  await controller.start();
  const planTold = await notePlanFolder(options.planning, process.env);
  try {
    if (server !== undefined && options.http !== undefined) {
      const url = await listen(server, options.http.address);
      if (!options.quiet) note(`HTTP at ${url}.`);
    }
    return await runCommand(options, controller, report, watch, planTold);
  } finally {
    server?.close();
    server?.closeAllConnections();
    await closeWithin(controller);
  }
}

/** A launcher tells whether its own Python has the plugin; that there is none is told later. */
async function launcherPython({ launcher }: RunOptions): Promise<string | undefined> {
  if (launcher === undefined) return undefined;
  return askLauncher(launcher).then(
    ({ python, plugin }) => (plugin === undefined ? undefined : python),
    () => undefined,
  );
}

/** Only where somebody can ask for it: without the HTTP side nothing is timed. */
async function watched(options: RunOptions): Promise<StartWatch | undefined> {
  if (options.http === undefined) return undefined;
  const { command, mode, launcher, caches, planning } = options;
  return watchStart({
    command,
    how: [mode, launcher === undefined ? "" : "launcher", caches === undefined ? "" : "caches"],
    environment: process.env,
    planFolder: planFolderOf(planning, process.env),
  });
}

/** Undefined: the user asked for help. */
function parseRun(argv: readonly string[]): RunOptions | undefined {
  const terminator = argv.indexOf("--");
  const own = terminator === -1 ? argv : argv.slice(0, terminator);
  const command = terminator === -1 ? [] : argv.slice(terminator + 1);
  const given = parseOptions(own, RUN_OPTIONS);
  if (given.flags.has("help")) return undefined;
  takeVariables(command, process.env);
  return withConfig(given, RUN_OPTIONS, process.env, (options) => runOptions(options, command));
}

function runOptions(given: ParsedOptions, words: readonly string[]): RunOptions {
  if (words.length === 0 || words[0] === "") {
    throw new OptionError("--", "Expected a command after `--`, such as `vllm serve MODEL`.");
  }
  const controller = controllerOption(given);
  const { options, command, sentence } = withPreset(given, words, process.env);
  const endpoint = endpointOption(options);
  // At an address of its own choice it may call this controller by another name.
  if (endpoint === undefined && !isDisabled(process.env)) {
    refuseVariables("run", command, ["LAZYGRAPH_ENDPOINT"]);
  }
  const mode = modeOption(options, environmentMode(process.env));
  return {
    preset: sentence,
    mode,
    isModeGiven: options.strings.has("mode"),
    endpoint,
    controller,
    engine: engineNameOption(options),
    launcher: options.strings.get("launcher"),
    caches: cacheUse(options),
    settleWithinSeconds: secondsOption(options, "settle-within"),
    enginesMax: enginesMaxOption(options),
    keys: keyFolder(options, process.env),
    http: httpSide(options, process.env),
    planning: planOptions(options),
    vainOption: withoutEffect(options, mode),
    memory: memoryOptions(options, process.env, command),
    json: options.strings.get("json"),
    quiet: options.flags.has("quiet"),
    command,
    typed: words,
  };
}

function controllerOption({ strings, lists, flags }: ParsedOptions): string | undefined {
  const text = strings.get("controller");
  if (text === undefined) return undefined;
  const endpoints = endpointsOf("--controller", text);
  const names = [...strings.keys(), ...lists.keys(), ...flags];
  const other = names.find((name) => !BESIDE_CONTROLLER.has(name));
  if (other === undefined) return endpoints.join(",");
  throw new OptionError(
    `--${other}`,
    `Expected no --${other} beside --controller: give it to the controller there.`,
  );
}

function ownController(given: string): string {
  return (
    `LAZYGRAPH_ENDPOINT=${given} is not used: \`run\` has a controller of its own. For an engine of ` +
    "that controller name it with --controller."
  );
}

async function runCommand(
  options: RunOptions,
  controller: Controller,
  report: Report | undefined,
  watch: StartWatch | undefined,
  planTold: boolean,
): Promise<number> {
  const environment = { ...engineEnvironment(options, controller.endpoint), ...watch?.variables };
  const given = process.env["LAZYGRAPH_ENDPOINT"];
  if (!options.quiet && given) note(ownController(given));
  const child = await start(options, environment);
  if (typeof child === "number") return child;
  watch?.begin();
  const release = survive();
  const write = (): Promise<void> => writeReport(report, options.command, controller.engines());
  const following = followEngines(controller, {
    quiet: options.quiet,
    ...(planTold ? { told: "ERR_LAZYGRAPH_PLAN" } : {}),
    onSettled: () => void write(),
  });
  const cancelWarning = systemClock.after(JOIN_WARNING_SECONDS, () => {
    if (following.joined()) return;
    const sentence = noEngineSentence(controller.endpoint, JOIN_WARNING_SECONDS);
    note(sentence, "ERR_LAZYGRAPH_NO_ENGINE");
  });
  const end = await child.ended;
  cancelWarning();
  if (end.signal === undefined) await lastWords(controller);
  following.stop();
  await write();
  release();
  explainEnd(end, following.joined(), options);
  return end.exitCode;
}

/** Of a command that ended by itself: what its engine said last may be read after its end. */
async function lastWords(controller: Controller): Promise<void> {
  const isThere = (): boolean => controller.engines().some(({ connected }) => connected);
  for (let look = 0; look < LAST_LOOKS && isThere(); look++) await sleep(LAST_LOOK_MS);
}

function engineEnvironment({ mode, engine }: RunOptions, endpoint: string): NodeJS.ProcessEnv {
  return {
    ...process.env,
    LAZYGRAPH_ENDPOINT: endpoint,
    LAZYGRAPH_MODE: mode,
    ...(engine === undefined ? {} : { LAZYGRAPH_ENGINE: engine }),
  };
}

/** An engine of another controller, which tells of it once it has joined. */
async function runElsewhere(options: RunOptions, endpoints: string): Promise<number> {
  await requirePlugin(options.command, process.env, await launcherPython(options));
  if (options.isModeGiven && !options.quiet) {
    note(
      `Mode ${options.mode} holds until the engine joins the controller at ${endpoints}, whose mode ` +
        "holds from then on: set it there.",
    );
  }
  const child = await start(options, engineEnvironment(options, endpoints));
  if (typeof child === "number") return child;
  const telling = noteMissingController(endpoints, process.env, child.ended);
  const end = await child.ended;
  await telling;
  explainSignal(end, options);
  return end.exitCode;
}

/** The switch for emergencies: nothing of ours stands between the user and the command. */
async function runStock(options: RunOptions, report: Report | undefined): Promise<number> {
  if (!options.quiet) {
    note("LAZYGRAPH_DISABLE is set: the command runs as stock, without a controller.");
  }
  const as = { ...options, caches: undefined, command: options.typed };
  const child = await start(as, { ...process.env });
  if (typeof child === "number") return child;
  const end = await child.ended;
  await writeReport(report, options.command, []);
  return end.exitCode;
}

/** The command, or the exit code when it could not be started. */
async function start(options: RunOptions, environment: NodeJS.ProcessEnv): Promise<Child | number> {
  for (const name of SECRET_VARIABLES) delete environment[name];
  const caches = await startCaches(options.caches, options.command, environment, options.quiet);
  Object.assign(environment, caches.variables);
  try {
    const command = await throughLauncher(options, environment);
    const child = await startChild(command, { environment, ignoreHangup: isHangupIgnored() });
    spanWriter(environment).ended("wrapper", monotonicSeconds() - performance.now() / 1000);
    return { ...child, ended: child.ended.finally(caches.release) };
  } catch (error) {
    await caches.release();
    reportError(error);
    return startExitCode(error);
  }
}

/** The command, or what has a launcher fork it. */
async function throughLauncher(
  { launcher, command }: RunOptions,
  environment: NodeJS.ProcessEnv,
): Promise<readonly string[]> {
  if (launcher === undefined) return command;
  try {
    return await launcherCommand(launcher, command, environment);
  } catch (error) {
    note(`Not forked but spawned: ${messageOf(error)}`, codeOf(error) as ErrorCode | undefined);
    return command;
  }
}

async function writeReport(
  report: Report | undefined,
  command: readonly string[],
  engines: readonly EngineSnapshot[],
): Promise<void> {
  try {
    await report?.write({
      command: hideSecretOptions(command),
      engines: engines.map(toldSnapshot),
    });
  } catch (error) {
    process.stderr.write(`${errorLine(error)}\n`);
  }
}

/** An engine that never joined: say so, and whether the command failed before. */
function explainEnd(end: ChildEnd, joined: boolean, options: RunOptions): void {
  if (joined) explainSignal(end, options);
  if (joined || end.asked) return;
  if (end.exitCode === 0) {
    if (!options.quiet) note("The command has ended, and no engine had joined.");
    return;
  }
  const how = end.signal === undefined ? `with exit code ${end.exitCode}` : `by ${end.signal}`;
  const command = commandOf(options);
  // A launcher's client, which stands for a Python's script, ends so if it could start nothing.
  const codes: Partial<Record<number, ErrorCode>> = {
    [EXIT.notFound]: "ERR_LAZYGRAPH_COMMAND_NOT_FOUND",
    [EXIT.notExecutable]: "ERR_LAZYGRAPH_COMMAND_NOT_EXECUTABLE",
  };
  const unstarted = options.launcher === undefined ? undefined : codes[end.exitCode];
  if (unstarted !== undefined) {
    note(`${command} was not started; what was printed above says why.`, unstarted);
    return;
  }
  note(
    `${command} ended ${how} before any engine joined; what was printed above says why.`,
    "ERR_LAZYGRAPH_COMMAND_DIED",
  );
}

/** A killed command has no last words: without this line nothing tells its end from one by itself. */
function explainSignal({ signal, asked }: ChildEnd, options: RunOptions): void {
  if (signal === undefined || asked) return;
  const advice =
    signal === "SIGKILL"
      ? "if nobody else sent it, memory ran out, of the host (`dmesg`) or of its container's limit"
      : "what was printed above may say why";
  note(
    `${commandOf(options)} was ended by ${signal}, which didn't come through \`run\`; ${advice}.`,
    "ERR_LAZYGRAPH_COMMAND_KILLED",
  );
}

function commandOf({ command }: RunOptions): string {
  return `The command ${quote(withoutSecrets(command))}`;
}

/** From here on a defect of ours costs the controller, not the engine. Returns the way back. */
function survive(): () => void {
  const handler = (error: unknown): void => {
    const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
    note("A defect in the controller; the command goes on. Please report it:");
    process.stderr.write(`${detail}\n`);
  };
  process.on("uncaughtException", handler);
  process.on("unhandledRejection", handler);
  return () => {
    process.off("uncaughtException", handler);
    process.off("unhandledRejection", handler);
  };
}

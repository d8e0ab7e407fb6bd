/** The options of `lazygraph run`, and what they say together. */

import { OptionError } from "../base/errors.ts";
import type { MemoryOptions } from "../memory/options.ts";
import { endpointsOf } from "../wire/endpoint.ts";
import type { Mode } from "../wire/protocol.ts";
import { type CacheUse, cacheUse } from "./cache-use.ts";
import { CONFIG_HELP, CONFIG_OPTIONS, withConfig } from "./config-file.ts";
import { KEY_HELP, KEY_OPTIONS, type KeyFolder, keyFolder } from "./curve-keys.ts";
import { HTTP_HELP, HTTP_OPTIONS, type HttpSide, httpSide } from "./http-side.ts";
import { MEMORY_HELP, MEMORY_OPTIONS, memoryOptions } from "./memory-options.ts";
import { isDisabled } from "./no-engine.ts";
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
import { PLAN_HELP, PLAN_OPTIONS, planOptions, withoutEffect } from "./plan-options.ts";
import { PRESET_HELP, PRESET_OPTIONS, withPreset } from "./presets.ts";

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

export const HELP: string = `Usage: lazygraph run [options] -- COMMAND [arguments]

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

export interface RunOptions {
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

/** Undefined: the user asked for help. */
export function parseRun(argv: readonly string[]): RunOptions | undefined {
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

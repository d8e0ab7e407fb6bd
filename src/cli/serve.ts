/** `lazygraph serve`: the controller alone, for engines that somebody else starts. */

import type { ErrorCode } from "../base/errors.ts";
import { createController } from "../controller/controller.ts";
import type { MemoryOptions } from "../memory/options.ts";
import type { Mode } from "../wire/protocol.ts";
import { closeWithin } from "./close-within.ts";
import {
  CONFIG_HELP,
  CONFIG_OPTIONS,
  hasConfig,
  requireRereadable,
  withConfig,
} from "./config-file.ts";
import { curveKeys, KEY_HELP, KEY_OPTIONS, type KeyFolder, keyFolder } from "./curve-keys.ts";
import { Denials } from "./denials.ts";
import { choice, note } from "./errors.ts";
import { growHeap } from "./heap-growth.ts";
import { HTTP_HELP, HTTP_OPTIONS, type HttpSide, httpSide, openHttpServer } from "./http-side.ts";
import { listen } from "./listen.ts";
import { createLog, LOG_FORMATS, type LogFormat } from "./log.ts";
import { MEMORY_HELP, MEMORY_OPTIONS, memoryOptions } from "./memory-options.ts";
import {
  endpointOption,
  enginesMaxOption,
  environmentMode,
  modeOption,
  type OptionSpec,
  type ParsedOptions,
  parseOptions,
  secondsOption,
} from "./options.ts";
import { notePlanFolder } from "./plan-folder.ts";
import { PLAN_HELP, PLAN_OPTIONS, planOptions, withoutEffect } from "./plan-options.ts";
import { PRESET_HELP, PRESET_OPTIONS, withControllerPreset } from "./presets.ts";
import { followEngines } from "./progress.ts";
import { createReloading } from "./reload.ts";
import { stopSignal } from "./stop-signal.ts";

const DEFAULT_ADDRESS = { host: "127.0.0.1", port: 7480 };

export const SERVE_OPTIONS: OptionSpec = {
  endpoint: "string",
  ...KEY_OPTIONS,
  ...HTTP_OPTIONS,
  ...PRESET_OPTIONS,
  mode: "string",
  "settle-within": "string",
  "engines-max": "string",
  ...PLAN_OPTIONS,
  ...MEMORY_OPTIONS,
  ...CONFIG_OPTIONS,
  json: "boolean",
  quiet: "boolean",
  "log-format": "string",
};

const HELP = `Usage: lazygraph serve [options]

The controller alone. Start engines elsewhere with LAZYGRAPH_ENDPOINT set to its endpoint.

Options:
  --endpoint ENDPOINT   where engines connect: tcp://HOST:PORT or ipc://PATH
                        (default tcp://127.0.0.1:5757; port 0: any free one)
  --http HOST:PORT      where people and probes connect (default 127.0.0.1:7480; port 0: any), or
                        unix:PATH for a socket file that only this user may open
${HTTP_HELP}
${KEY_HELP}
${PRESET_HELP}
                        (vLLM's options are for the engines' own commands)
  --mode MODE           eager, lazy or idle, of engines that join (default: LAZYGRAPH_MODE, else
                        idle)
  --settle-within S     no captures later than S seconds after an engine is ready
  --engines-max N       engines at once, 1 to 4096; one more waits until there is room (default 64)
${PLAN_HELP}
${MEMORY_HELP}
${CONFIG_HELP}
  --json                one line of JSON on stdout once it listens: {"endpoint": …, "http": …}
  --quiet               no progress on stderr, but errors and changes made over HTTP
  --log-format FORMAT   lines on stderr as text with time and level, or as json (default: text, and
                        on a terminal progress without times)
  --help, -h            this text

Engines on other hosts need CURVE keys: --keys, or in the environment (Z85)
  LAZYGRAPH_SERVER_KEY, LAZYGRAPH_SERVER_SECRET_KEY   the controller's own pair
  LAZYGRAPH_CLIENT_KEYS   public keys of the engines that may connect, with commas (default: all)

SIGHUP reads --config again: its mode goes to all engines; what else changed needs a restart.
Without a file it ends the controller, as SIGTERM does. Every change made over HTTP is logged.

HTTP (beyond loopback it needs a token: Authorization: Bearer TOKEN):
  GET  /livez, /readyz, /healthz    200 while the controller runs; for anybody
  GET  /metrics                     Prometheus metrics of all engines
  GET  /v1/engines                  all engines
  PUT  /v1/engines/{name}/mode      {"mode": "lazy"}
  POST /v1/engines/{name}/freeze    no captures from now on
  POST /v1/engines/{name}/announce  {"inSeconds": 2, "requests": 8}: none just before these arrive
  POST /v1/engines/{name}/sleep     {"level": 1 or 2, "dropGraphs": true}: by vLLM's sleep mode
  POST /v1/engines/{name}/wake      {"reloadWeights": true}: serves again

Examples:
  lazygraph serve
  LAZYGRAPH_ENDPOINT=tcp://127.0.0.1:5757 vllm serve MODEL
  curl -X PUT -d '{"mode":"lazy"}' http://127.0.0.1:7480/v1/engines/NAME/mode
`;

export async function runServe(argv: readonly string[]): Promise<number> {
  const given = parseOptions(argv, SERVE_OPTIONS);
  if (given.flags.has("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const read = (): ServeOptions => withConfig(given, SERVE_OPTIONS, process.env, serveOptions);
  const options = read();
  growHeap();
  const { mode, settleWithinSeconds, enginesMax, endpoint, planning, memory, quiet } = options;
  const log = createLog(options.logFormat ?? "text");
  const says = options.logFormat === undefined && process.stderr.isTTY ? undefined : log;
  const tell = (sentence: string, code?: ErrorCode): void => {
    if (says === undefined) note(sentence, code);
    else says.line(code === undefined ? "info" : "warn", sentence, {}, { code });
  };
  const curve = await curveKeys(options.keys, process.env, endpoint, (sentence) =>
    tell(sentence, "ERR_LAZYGRAPH_KEYS"),
  );
  const controller = createController({
    mode,
    endpoint,
    ...planning,
    memory,
    ...(settleWithinSeconds === undefined ? {} : { settleWithinSeconds }),
    ...(enginesMax === undefined ? {} : { enginesMax }),
    ...(curve === undefined ? {} : { curve }),
  });
  const denials = new Denials(log);
  // Before the endpoint is bound: a token or certificate that can't be used ends the start.
  const server = await openHttpServer(controller, options.http, process.env, {
    onChange: ({ action, engine, value, remote }) =>
      log.line("info", `${action} over HTTP`, { audit: action, engine, value, remote }),
    onDenied: (denied) => denials.tell(denied),
  });
  await controller.start();
  const planTold = await notePlanFolder(planning, process.env, tell);
  // Before anybody is told that we are there: who knows may already want us to stop.
  const reloading = createReloading(controller, log, options, () => {
    requireRereadable(given, process.env);
    return read();
  });
  const stopping = stopSignal(hasConfig(given, process.env) ? reloading.reload : undefined);
  for (const sentence of [options.preset, options.vainOption]) {
    if (sentence !== undefined && !quiet) tell(sentence);
  }
  try {
    const http = await listen(server, options.http.address, { tell });
    const following = followEngines(controller, { quiet, ...(says && { log: says }) });
    if (options.json) {
      process.stdout.write(`${JSON.stringify({ endpoint: controller.endpoint, http })}\n`);
    } else {
      tell(`controller at ${controller.endpoint} (mode ${mode}), HTTP at ${http}.`);
    }
    const signal = await stopping;
    following.stop();
    reloading.stop();
    if (!quiet) tell(`${signal}: stopping; engines go on by themselves.`);
  } finally {
    server.close();
    server.closeAllConnections();
    await closeWithin(controller, tell, planTold);
  }
  return 0;
}

interface ServeOptions {
  /** What a preset set, as a sentence. */
  readonly preset: string | undefined;
  readonly mode: Mode;
  readonly settleWithinSeconds: number | undefined;
  readonly enginesMax: number | undefined;
  readonly keys: KeyFolder | undefined;
  readonly http: HttpSide;
  readonly endpoint: string;
  readonly planning: ReturnType<typeof planOptions>;
  /** An option that does nothing so far, as a sentence. */
  readonly vainOption: string | undefined;
  readonly memory: MemoryOptions;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly logFormat: LogFormat | undefined;
  readonly given: Readonly<Record<string, unknown>>;
}

function serveOptions(given: ParsedOptions): ServeOptions {
  const { options, sentence } = withControllerPreset(given, process.env);
  const mode = modeOption(options, environmentMode(process.env));
  return {
    preset: sentence,
    mode,
    settleWithinSeconds: secondsOption(options, "settle-within"),
    enginesMax: enginesMaxOption(options),
    keys: keyFolder(options, process.env),
    http: httpSide(options, process.env, DEFAULT_ADDRESS),
    endpoint: endpointOption(options) ?? "tcp://127.0.0.1:5757",
    planning: planOptions(options),
    vainOption: withoutEffect(options, mode),
    memory: memoryOptions(options, process.env),
    json: options.flags.has("json"),
    quiet: options.flags.has("quiet"),
    logFormat: logFormatOption(options),
    given: {
      ...Object.fromEntries([...options.strings, ...options.lists]),
      ...Object.fromEntries([...options.flags].map((name) => [name, true])),
    },
  };
}

function logFormatOption(options: ParsedOptions): LogFormat | undefined {
  const value = options.strings.get("log-format");
  return value === undefined ? undefined : choice("--log-format", LOG_FORMATS, value);
}

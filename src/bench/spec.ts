/** What a benchmark runs: modes, loads, and which cells of the two, from a JSON file or options. */

import { OptionError } from "../base/errors.ts";
import { type ControllerOptions, resolveOptions } from "../controller/options.ts";
import { checkApiKey, checkHeaders } from "../measure/access-check.ts";
import { type ServerAddressOptions, serverUrl, shownUrl } from "../measure/server-address.ts";
import { MODES, type Mode } from "../wire/protocol.ts";
import { defined, Fields, fieldError, numberIn, textIn } from "./fields.ts";
import type { Load } from "./load.ts";
import { parseLoad, SECONDS_MAX, TOKENS } from "./load-spec.ts";
import type { Endpoint, RequestFields } from "./stream.ts";

export interface CellName {
  readonly mode: string;
  readonly load: string;
  /** From 1. */
  readonly run: number;
}

/** How an engine is had: by a command, as a simulated one, or one that runs already. */
export interface ModeSpec {
  /** Started for every run; `{port}` stands for a free port. */
  readonly command?: readonly string[];
  readonly simulated?: SimulatedSpec;
  /** A live endpoint, which is neither started nor stopped. */
  readonly url?: string;
  /** With our controller in this mode; absent: stock, with the plugin switched off. */
  readonly mode?: Mode;
  readonly env?: Readonly<Record<string, string>>;
  /**
   * More options of `createController`, such as `{"policy": "costed"}`. No learned plan is used or
   * kept unless this says `"plan": true`: a run must not depend on the runs before it.
   */
  readonly controller?: Readonly<Record<string, unknown>>;
}

export interface SimulatedSpec {
  /** Name or path of a cost profile. */
  readonly profile?: string;
  /** Capture sizes; an empty list is an engine without graphs. @default the profile's */
  readonly sizes?: readonly number[];
  /** Relative standard deviation of all times. @default 0 */
  readonly jitter?: number;
  /** A process behind HTTP, as real engines are, in real time. @default false: in virtual time */
  readonly realTime?: boolean;
}

/** Limits in milliseconds for a request to count as good, as `vllm bench serve --goodput`. */
export interface Goodput {
  readonly ttft?: number;
  readonly tpot?: number;
  readonly e2el?: number;
}

export interface BenchSpec extends RequestFields {
  readonly title: string;
  readonly endpoint: Endpoint;
  /** @default the first model that the server names */
  readonly model?: string;
  /** The mode that others are compared with. @default the first */
  readonly baseline: string;
  readonly runs: number;
  /** Requests before a schedule that starts at ready or settled; not counted. */
  readonly numWarmups: number;
  /** Key and headers of every request; never in what is written. */
  readonly access: ServerAddressOptions;
  /** Prompts are text also where token ids would do: the server's tokenizer is part of TTFT. */
  readonly textPrompts: boolean;
  readonly goodput: Goodput;
  /** Seconds an engine may take to get ready, and a request to its end. */
  readonly readySecondsMax: number;
  readonly requestSecondsMax: number;
  readonly modes: Readonly<Record<string, ModeSpec>>;
  readonly loads: Readonly<Record<string, Load>>;
  readonly cells: readonly CellName[];
}

/** Names become parts of file names. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$/;
const RUNS_MAX = 1000;

/**
 * Checks a specification; `${NAME}` in any text is replaced from the environment.
 *
 * @throws OptionError that names the field, what was expected and what came
 */
export function parseSpec(
  value: unknown,
  environment: Readonly<Record<string, string | undefined>> = {},
): BenchSpec {
  const fields = new Fields("spec", expand(value, environment));
  const modes = fields.record("modes", parseMode) ?? {};
  const loads = fields.record("loads", parseLoad) ?? {};
  for (const [what, names] of Object.entries({ modes, loads })) requireNames(what, names);
  const [first = ""] = Object.keys(modes);
  const baseline = fields.text("baseline") ?? first;
  if (!Object.hasOwn(modes, baseline)) {
    throw fieldError("spec.baseline", `one of ${Object.keys(modes).join(", ")}`, baseline);
  }
  const runs = fields.number("runs", { min: 1, max: RUNS_MAX, whole: true }) ?? 1;
  const pairs = fields.list("cells", (cell, path) => parseCell(cell, path, modes, loads));
  const model = fields.text("model");
  const spec: BenchSpec = {
    title: fields.text("title") ?? "TTFT around captures",
    endpoint: fields.oneOf("endpoint", ["completions", "chat"]) ?? "completions",
    ...(model === undefined ? {} : { model }),
    baseline,
    runs,
    numWarmups: fields.number("numWarmups", { min: 0, max: 10_000, whole: true }) ?? 0,
    ignoreEos: fields.flag("ignoreEos") ?? true,
    maxTokensSent: fields.flag("maxTokensSent") ?? true,
    streamOptions: fields.flag("streamOptions") ?? true,
    access: defined<ServerAddressOptions>({
      // An empty variable is an unset one.
      apiKey:
        checkApiKey("spec.apiKey", fields.text("apiKey")) ??
        checkApiKey("OPENAI_API_KEY", environment["OPENAI_API_KEY"]),
      headers: checkHeaders("spec.headers", fields.record("headers", headerText)),
    }),
    textPrompts: fields.flag("textPrompts") ?? false,
    goodput: parseGoodput(fields.raw("goodput") ?? {}),
    readySecondsMax: fields.number("readySecondsMax", { min: 1, max: SECONDS_MAX }) ?? 900,
    requestSecondsMax: fields.number("requestSecondsMax", { min: 1, max: SECONDS_MAX }) ?? 600,
    modes,
    loads,
    cells: cellsOf(pairs ?? allPairs(modes, loads), runs),
  };
  fields.done();
  return spec;
}

function requireNames(what: string, entries: object): void {
  const names = Object.keys(entries);
  if (names.length === 0) throw fieldError(`spec.${what}`, "an object with at least one entry", {});
  const bad = names.find((name) => !NAME.test(name));
  if (bad === undefined) return;
  const expected = "1 to 48 letters, digits, dots, dashes and underscores";
  throw new OptionError(
    `spec.${what}`,
    `Expected names in spec.${what} to be ${expected}, got ${JSON.stringify(bad.slice(0, 80))}.`,
  );
}

interface Pair {
  readonly mode: string;
  readonly load: string;
  readonly runs?: number;
}

function allPairs(modes: object, loads: object): Pair[] {
  return Object.keys(loads).flatMap((load) => Object.keys(modes).map((mode) => ({ mode, load })));
}

/**
 * Runs of all cells in turn, not one cell's runs after another: what a host does over the hours
 * then meets every mode alike. Each round starts where the last one didn't.
 */
function cellsOf(pairs: readonly Pair[], runs: number): CellName[] {
  const most = Math.max(0, ...pairs.map((pair) => pair.runs ?? runs));
  return Array.from({ length: most }, (_, round) => round).flatMap((round) => {
    const turn = pairs.map((_, index) => pairs[(index + round) % pairs.length] as Pair);
    return turn
      .filter((pair) => round < (pair.runs ?? runs))
      .map(({ mode, load }) => ({ mode, load, run: round + 1 }));
  });
}

function parseCell(value: unknown, path: string, modes: object, loads: object): Pair {
  const fields = new Fields(path, value);
  const mode = fields.oneOf("mode", Object.keys(modes));
  const load = fields.oneOf("load", Object.keys(loads));
  if (mode === undefined || load === undefined) {
    throw fieldError(path, "a mode and a load by name", value);
  }
  const runs = fields.number("runs", { min: 1, max: RUNS_MAX, whole: true });
  fields.done();
  return { mode, load, ...(runs === undefined ? {} : { runs }) };
}

function parseMode(value: unknown, path: string): ModeSpec {
  const fields = new Fields(path, value);
  const mode = defined<ModeSpec>({
    command: fields.list("command", (word, at) => textIn(at, word)),
    simulated: parseSimulated(fields.raw("simulated"), `${path}.simulated`),
    url: fields.text("url"),
    mode: fields.oneOf("mode", MODES),
    env: fields.record("env", (text, at) => textIn(at, text)),
    controller: fields.record("controller", (option) => option),
  });
  fields.done();
  const ways = [mode.command, mode.simulated, mode.url].filter((way) => way !== undefined);
  if (ways.length !== 1) {
    throw fieldError(path, "given with one of command, simulated and url", value);
  }
  if (mode.command !== undefined) requireCommand(mode.command, path);
  if (isVirtual(mode)) requireVirtual(mode, path);
  if (mode.controller !== undefined) {
    if (mode.mode === undefined) {
      throw fieldError(`${path}.controller`, "left out without `mode`: stock has none", value);
    }
    resolveOptions(controllerOptions(mode));
  }
  if (mode.url !== undefined) {
    checkUrl(`${path}.url`, mode.url);
    if (mode.mode !== undefined) {
      throw fieldError(path, "without `mode` where there is a url: no engine is started", value);
    }
  }
  return mode;
}

/** Simulated in virtual time: no process, no HTTP. */
export function isVirtual({ simulated }: ModeSpec): boolean {
  return simulated !== undefined && simulated.realTime !== true;
}

/** Options of a controller that a simulation in virtual time knows: what decides on captures. */
const VIRTUAL_OPTIONS: readonly string[] = [
  ...["policy", "initOnly", "fillShare", "pin", "exclude", "graphsMax"],
];

/** What would be without effect is refused: the report would be of something else. */
function requireVirtual({ env = {}, controller = {} }: ModeSpec, path: string): void {
  const unknown = Object.keys(controller).find((name) => {
    return !VIRTUAL_OPTIONS.includes(name) && !(name === "plan" && controller[name] === false);
  });
  const [variable] = Object.keys(env);
  if (unknown === undefined && variable === undefined) return;
  const where = unknown === undefined ? `env.${variable}` : `controller.${unknown}`;
  throw new OptionError(
    `${path}.${where}`,
    `Expected ${path}.${where} only of engines in real time: it has no effect in virtual time. ` +
      'Leave it out, or add "realTime": true to simulated.',
  );
}

/** @throws OptionError by `createController`, for an option it doesn't know or take */
export function controllerOptions({ mode, controller }: ModeSpec): ControllerOptions {
  return { plan: false, ...controller, ...(mode === undefined ? {} : { mode }) };
}

function requireCommand(command: readonly string[], path: string): void {
  if ((command[0] ?? "") === "") throw fieldError(`${path}.command`, "a command", command);
  if (command.some((word) => word.includes("{port}"))) return;
  throw fieldError(`${path}.command`, "a command with {port}, as in --port {port}", command);
}

/** @throws OptionError unless it is `http://` or `https://` */
export function checkUrl(path: string, text: string): URL {
  const url = serverUrl(text);
  if (url !== undefined) return url;
  throw fieldError(path, "an http:// or https:// URL", shownUrl(text));
}

function headerText(value: unknown, path: string): string {
  if (typeof value === "string") return value;
  // Without what came, which may be a secret.
  throw new OptionError(path, `Expected ${path} to be a text, got ${typeof value}.`);
}

function parseSimulated(value: unknown, path: string): SimulatedSpec | undefined {
  if (value === undefined) return undefined;
  const fields = new Fields(path, value);
  const simulated = defined<SimulatedSpec>({
    profile: fields.text("profile"),
    sizes: fields.list("sizes", (size, at) => numberIn(at, size, TOKENS)),
    jitter: fields.number("jitter", { min: 0, max: 1 }),
    realTime: fields.flag("realTime"),
  });
  fields.done();
  return simulated;
}

function parseGoodput(value: unknown): Goodput {
  const fields = new Fields("spec.goodput", value);
  const limits = { min: 0, max: 86_400_000 };
  const goodput = defined<Goodput>({
    ttft: fields.number("ttft", limits),
    tpot: fields.number("tpot", limits),
    e2el: fields.number("e2el", limits),
  });
  fields.done();
  return goodput;
}

/** Texts anywhere in the document, so that one file fits several hosts. */
function expand(
  value: unknown,
  environment: Readonly<Record<string, string | undefined>>,
): unknown {
  if (typeof value === "string") {
    return value.replaceAll(/\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g, (_, name: string) => {
      const found = environment[name];
      if (found !== undefined) return found;
      throw new OptionError(name, `Expected the variable ${name} to be set: the spec names it.`);
    });
  }
  if (Array.isArray(value)) return value.map((entry) => expand(entry, environment));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, entry]) => [key, expand(entry, environment)]),
  );
}

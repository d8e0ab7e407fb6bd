/** What a benchmark runs: modes, loads, and which cells of the two, from a JSON file or options. */

import * as v from "valibot";
import { OptionError } from "../base/errors.ts";
import { exactFields, flag, list, named, number, oneOf, whole } from "../base/schema.ts";
import { type ControllerOptions, resolveOptions } from "../controller/options.ts";
import { checkApiKey, checkHeaders } from "../measure/access-check.ts";
import { type ServerAddressOptions, serverUrl, shownUrl } from "../measure/server-address.ts";
import { MODES, type Mode } from "../wire/protocol.ts";
import { defined, fieldError, readField, words } from "./fields.ts";
import type { Load } from "./load.ts";
import { checkLoad, loadSchema, SECONDS_MAX, tokens } from "./load-spec.ts";
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
/** Modes, and loads. */
const NAMES_MAX = 1000;
/** Words of a command, variables, headers, options. */
const WORDS_MAX = 10_000;
const SIZES_MAX = 4096;
const CELLS_MAX = 100_000;

const anyText = v.string("a text");
const goodputMs = v.exactOptional(number(0, 86_400_000));

const simulated = exactFields({
  profile: v.exactOptional(words),
  sizes: v.exactOptional(list(tokens, SIZES_MAX)),
  jitter: v.exactOptional(number(0, 1)),
  realTime: v.exactOptional(flag),
});

const modeSchema = exactFields({
  command: v.exactOptional(list(anyText, WORDS_MAX)),
  simulated: v.exactOptional(simulated),
  url: v.exactOptional(words),
  mode: v.exactOptional(oneOf(MODES)),
  env: v.exactOptional(named(anyText, WORDS_MAX)),
  controller: v.exactOptional(named(v.unknown(), WORDS_MAX)),
});

const specSchema = exactFields({
  modes: v.optional(named(modeSchema, NAMES_MAX), {}),
  loads: v.optional(named(loadSchema, NAMES_MAX), {}),
  baseline: v.exactOptional(words),
  runs: v.optional(whole(1, RUNS_MAX), 1),
  cells: v.exactOptional(v.unknown()),
  model: v.exactOptional(words),
  title: v.optional(words, "TTFT around captures"),
  endpoint: v.optional(oneOf(["completions", "chat"]), "completions"),
  numWarmups: v.optional(whole(0, 10_000), 0),
  ignoreEos: v.optional(flag, true),
  maxTokensSent: v.optional(flag, true),
  streamOptions: v.optional(flag, true),
  apiKey: v.exactOptional(words),
  headers: v.exactOptional(named(v.unknown(), WORDS_MAX)),
  textPrompts: v.optional(flag, false),
  goodput: v.nullish(exactFields({ ttft: goodputMs, tpot: goodputMs, e2el: goodputMs }), {}),
  readySecondsMax: v.optional(number(1, SECONDS_MAX), 900),
  requestSecondsMax: v.optional(number(1, SECONDS_MAX), 600),
});

/**
 * Checks a specification; `${NAME}` in any text is replaced from the environment.
 *
 * @throws OptionError that names the field, what was expected and what came
 */
export function parseSpec(
  value: unknown,
  environment: Readonly<Record<string, string | undefined>> = {},
): BenchSpec {
  const read = readField(specSchema, expand(value, environment), "spec");
  const { apiKey, headers, cells, ...rest } = read;
  const { modes, loads, runs } = rest;
  for (const [name, mode] of Object.entries(modes)) checkMode(mode, `spec.modes.${name}`);
  for (const [name, load] of Object.entries(loads)) checkLoad(load, `spec.loads.${name}`);
  for (const [what, names] of Object.entries({ modes, loads })) requireNames(what, names);
  const [first = ""] = Object.keys(modes);
  const { baseline = first } = rest;
  if (!Object.hasOwn(modes, baseline)) {
    throw fieldError("spec.baseline", `one of ${Object.keys(modes).join(", ")}`, baseline);
  }
  const pair = exactFields({
    mode: oneOf(Object.keys(modes)),
    load: oneOf(Object.keys(loads)),
    runs: v.exactOptional(whole(1, RUNS_MAX)),
  });
  const pairs =
    cells === undefined
      ? allPairs(modes, loads)
      : readField(list(pair, CELLS_MAX), cells, "spec.cells");
  return {
    ...rest,
    baseline,
    access: defined<ServerAddressOptions>({
      // An empty variable is an unset one.
      apiKey:
        checkApiKey("spec.apiKey", apiKey) ??
        checkApiKey("OPENAI_API_KEY", environment["OPENAI_API_KEY"]),
      headers: checkHeaders("spec.headers", headerTexts(headers)),
    }),
    cells: cellsOf(pairs, runs),
  };
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

/** @throws OptionError for fields that need or exclude each other */
function checkMode(mode: ModeSpec, path: string): void {
  const ways = [mode.command, mode.simulated, mode.url].filter((way) => way !== undefined);
  if (ways.length !== 1) {
    throw fieldError(path, "given with one of command, simulated and url", mode);
  }
  if (mode.command !== undefined) requireCommand(mode.command, path);
  if (isVirtual(mode)) requireVirtual(mode, path);
  if (mode.controller !== undefined) {
    if (mode.mode === undefined) {
      throw fieldError(`${path}.controller`, "left out without `mode`: stock has none", mode);
    }
    resolveOptions(controllerOptions(mode));
  }
  if (mode.url !== undefined) {
    checkUrl(`${path}.url`, mode.url);
    if (mode.mode !== undefined) {
      throw fieldError(path, "without `mode` where there is a url: no engine is started", mode);
    }
  }
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

function headerTexts(
  headers: Readonly<Record<string, unknown>> | undefined,
): Readonly<Record<string, string>> | undefined {
  for (const [name, value] of Object.entries(headers ?? {})) {
    if (typeof value === "string") continue;
    // Without what came, which may be a secret.
    const at = `spec.headers.${name}`;
    throw new OptionError(at, `Expected ${at} to be a text, got ${typeof value}.`);
  }
  return headers as Readonly<Record<string, string>> | undefined;
}

/**
 * Texts anywhere in the document, so that one file fits several hosts. Fields that are undefined
 * count as not given.
 */
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
    Object.entries(value)
      .filter(([, entry]) => entry !== undefined)
      .map(([key, entry]) => [key, expand(entry, environment)]),
  );
}

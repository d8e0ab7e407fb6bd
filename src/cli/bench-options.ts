/** Options of `lazygraph bench` into a specification, so that both ways go through its checks. */

import { OptionError } from "../base/errors.ts";
import { jsonFault, parseJsonFile } from "../base/parse-json.ts";
import { readRegularFile, unreadable } from "../base/read-file.ts";
import { defined } from "../bench/fields.ts";
import type { CellName } from "../bench/spec.ts";
import { type BenchSpec, checkUrl, parseSpec } from "../bench/spec.ts";
import { MODES } from "../wire/protocol.ts";
import { quote, usageError } from "./errors.ts";
import { numberOption } from "./number-option.ts";
import { type OptionSpec, type ParsedOptions, parseOptions } from "./options.ts";
import { ACCESS_OPTIONS, accessOptions } from "./server-options.ts";

export interface BenchOptions {
  readonly spec: BenchSpec;
  readonly folder: string;
  readonly only: (cell: CellName) => boolean;
  readonly cellsMax: number;
  readonly report: boolean;
  readonly json: boolean;
  readonly quiet: boolean;
}

/** Long option to its field in a load, and how it reads. */
const LOAD_OPTIONS = {
  "request-rate": ["requestRate", Number],
  burstiness: ["burstiness", Number],
  "ramp-up-strategy": ["rampUpStrategy", String],
  "ramp-up-start-rps": ["rampUpStartRps", Number],
  "ramp-up-end-rps": ["rampUpEndRps", Number],
  trace: ["trace", String],
  speed: ["speed", Number],
  sharegpt: ["shareGpt", String],
  "input-len": ["inputLen", lengthOf],
  "output-len": ["outputLen", lengthOf],
  "input-len-max": ["inputLenMax", Number],
  "output-len-max": ["outputLenMax", Number],
  "num-prompts": ["numPrompts", Number],
  seconds: ["seconds", Number],
  start: ["start", String],
  seed: ["seed", Number],
} as const;

const ENGINE_OPTIONS = [
  "url",
  "mode",
  "name",
  "profile",
  "jitter",
  "simulated",
  "real-time",
] as const;

const SPEC: OptionSpec = {
  ...Object.fromEntries(Object.keys(LOAD_OPTIONS).map((name) => [name, "string" as const])),
  arrivals: "string",
  url: "string",
  simulated: "boolean",
  "real-time": "boolean",
  spec: "string",
  mode: "string",
  name: "string",
  runs: "string",
  profile: "string",
  jitter: "string",
  endpoint: "string",
  model: "string",
  "num-warmups": "string",
  "stop-at-eos": "boolean",
  "text-prompts": "boolean",
  "no-stream-options": "boolean",
  "no-max-tokens": "boolean",
  ...ACCESS_OPTIONS,
  goodput: "string",
  "request-seconds": "string",
  "ready-seconds": "string",
  only: "string",
  cells: "string",
  out: "string",
  title: "string",
  "no-report": "boolean",
  json: "boolean",
  quiet: "boolean",
};

/** Undefined: the user asked for help. */
export async function parseBench(argv: readonly string[]): Promise<BenchOptions | undefined> {
  const terminator = argv.indexOf("--");
  const own = terminator === -1 ? argv : argv.slice(0, terminator);
  const command = terminator === -1 ? undefined : argv.slice(terminator + 1);
  const options = parseOptions(own, SPEC);
  if (options.flags.has("help")) return undefined;
  const folder = options.strings.get("out");
  if (folder === undefined) {
    throw new OptionError("--out", "Expected --out with a folder for the samples, got none.");
  }
  const file = options.strings.get("spec");
  const spec =
    file === undefined
      ? specOf(options, command)
      : readSpec(file, forbidWithSpec(options, command));
  return {
    spec,
    folder,
    only: onlyOption(options.strings.get("only")),
    cellsMax: numberOption(options, "cells", {
      min: 1,
      max: 1e6,
      fallback: Number.POSITIVE_INFINITY,
      whole: true,
    }),
    report: !options.flags.has("no-report"),
    json: options.flags.has("json"),
    quiet: options.flags.has("quiet"),
  };
}

function specOf(options: ParsedOptions, command: readonly string[] | undefined): BenchSpec {
  const text = (name: string): string | undefined => options.strings.get(name);
  const number = (name: string): number | undefined => {
    const value = text(name);
    if (value === undefined) return undefined;
    const parsed = Number(value);
    if (Number.isNaN(parsed) || value.trim() !== value) {
      throw usageError(`--${name}`, "a number", value);
    }
    return parsed;
  };
  const [modes, baseline] = modesOf(options, command);
  const goodput = goodputOption(text("goodput"));
  requireEffect(options);
  requireEnd(options);
  const { apiKey, headers } = accessOptions(options, process.env);
  return asOptions(() =>
    parseSpec({
      apiKey,
      headers,
      streamOptions: !options.flags.has("no-stream-options"),
      maxTokensSent: !options.flags.has("no-max-tokens"),
      title: text("title"),
      endpoint: text("endpoint"),
      model: text("model"),
      baseline,
      runs: number("runs"),
      numWarmups: number("num-warmups"),
      ignoreEos: !options.flags.has("stop-at-eos"),
      textPrompts: options.flags.has("text-prompts"),
      goodput,
      requestSecondsMax: number("request-seconds"),
      readySecondsMax: number("ready-seconds"),
      modes,
      loads: { load: loadOf(options) },
    }),
  );
}

/** What a field of the specification is called on the command line. */
const OPTION_OF: Readonly<Record<string, string>> = {
  "spec.runs": "--runs",
  "spec.numWarmups": "--num-warmups",
  "spec.endpoint": "--endpoint",
  "spec.requestSecondsMax": "--request-seconds",
  "spec.readySecondsMax": "--ready-seconds",
  "spec.title": "--title",
  "spec.model": "--model",
  "spec.modes": "--name",
  "spec.loads.load.arrivals": "--arrivals",
  "spec.goodput.ttft": "--goodput",
  "spec.goodput.tpot": "--goodput",
  "spec.goodput.e2el": "--goodput",
  ...Object.fromEntries(
    Object.entries(LOAD_OPTIONS).map(([option, [field]]) => [
      `spec.loads.load.${field}`,
      `--${option}`,
    ]),
  ),
};

/** The same with the user's word for the field. */
function asOptions(parse: () => BenchSpec): BenchSpec {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    const option =
      OPTION_OF[error.option] ??
      (/^spec\.modes\.[^ ]+\.command/.test(error.option) ? "the command after `--`" : undefined);
    if (option === undefined) throw error;
    throw new OptionError(option, error.message.replace(error.option, option));
  }
}

function loadOf(options: ParsedOptions): object {
  const fields = Object.entries(LOAD_OPTIONS).flatMap(([option, [field, read]]) => {
    const value = options.strings.get(option);
    if (value === undefined) return [];
    const got = read(value);
    // NaN would turn into null on its way into a message.
    return [[field, Number.isNaN(got) ? value : got]];
  });
  return { arrivals: arrivalsOf(options), ...Object.fromEntries(fields) };
}

/** An option that changes nothing would let its user believe in another load than was sent. */
function requireEffect(options: ParsedOptions): void {
  const arrivals = arrivalsOf(options);
  const refuse = (name: string, fits: boolean, where: string): void => {
    if (fits || !(options.strings.has(name) || options.flags.has(name))) return;
    throw new OptionError(`--${name}`, `Expected --${name} only ${where}: it has no effect here.`);
  };
  refuse("burstiness", arrivals === "gamma", "with --arrivals gamma");
  refuse("speed", arrivals === "trace", "where the arrivals are a trace's");
  for (const name of ["ramp-up-strategy", "ramp-up-start-rps", "ramp-up-end-rps"]) {
    refuse(name, arrivals === "ramp", "with --arrivals ramp");
  }
  refuse("request-rate", arrivals !== "trace" && arrivals !== "ramp", "without trace or ramp");
  const spawned = options.strings.get("start") === "spawn";
  refuse("num-warmups", !spawned, "without --start spawn");
  const simulated = options.flags.has("simulated");
  refuse("profile", simulated, "with --simulated");
  refuse("jitter", simulated, "with --simulated");
  refuse("real-time", simulated, "with --simulated");
}

/** In the user's words: the specification's checks name its fields. */
function requireEnd(options: ParsedOptions): void {
  const { strings } = options;
  const arrivals = arrivalsOf(options);
  if (arrivals === "ramp") {
    for (const name of ["ramp-up-start-rps", "ramp-up-end-rps"]) {
      if (strings.has(name)) continue;
      throw usageError(`--${name}`, "given with --arrivals ramp", undefined);
    }
  } else if (arrivals !== "trace" && !strings.has("request-rate")) {
    throw usageError("--request-rate", "given: arrivals a second", undefined);
  }
  if (arrivals === "trace" || strings.has("num-prompts") || strings.has("seconds")) return;
  throw new OptionError(
    "--seconds",
    "Expected --num-prompts or --seconds, got neither: the load would never end.",
  );
}

function arrivalsOf({ strings }: ParsedOptions): string {
  const traced = strings.has("trace") && !strings.has("request-rate");
  return strings.get("arrivals") ?? (traced ? "trace" : "poisson");
}

/** `256`, or `100-400`. */
function lengthOf(text: string): number | readonly number[] | string {
  const ends = text.split("-").map(Number);
  if (ends.some((end) => Number.isNaN(end))) return text;
  return ends.length === 1 ? (ends[0] as number) : ends;
}

function modesOf(
  options: ParsedOptions,
  command: readonly string[] | undefined,
): [modes: object, baseline: string] {
  const url = options.strings.get("url");
  const ways = [url, command, options.flags.has("simulated") ? true : undefined];
  if (ways.filter((way) => way !== undefined).length !== 1) {
    throw new OptionError(
      "--url",
      "Expected one of --url URL, --simulated, --spec FILE and a command after `--`.",
    );
  }
  const name = options.strings.get("name");
  if (url !== undefined) {
    checkUrl("--url", url);
    if (options.strings.has("mode")) {
      throw usageError("--mode", "left out with --url: no engine is started", "--mode");
    }
    return [{ [name ?? "live"]: { url } }, name ?? "live"];
  }
  const names = (options.strings.get("mode") ?? "stock").split(",");
  const engine = command === undefined ? { simulated: simulatedOf(options) } : { command };
  const modes = names.map((mode) => {
    if (mode !== "stock" && !MODES.some((known) => known === mode)) {
      throw usageError("--mode", "stock, eager, lazy or idle with commas between them", mode);
    }
    const given = names.length === 1 ? (name ?? mode) : mode;
    return [given, { ...engine, ...(mode === "stock" ? {} : { mode }) }] as const;
  });
  if (name !== undefined && names.length > 1) {
    throw usageError("--name", "left out where --mode names several", name);
  }
  const [first = ["stock"]] = modes;
  const stock = modes.find(([given]) => given === "stock");
  return [Object.fromEntries(modes), (stock ?? first)[0] as string];
}

function simulatedOf(options: ParsedOptions): object {
  const profile = options.strings.get("profile");
  const jitter = numberOption(options, "jitter", { min: 0, max: 1, fallback: 0 });
  const realTime = options.flags.has("real-time") ? { realTime: true } : {};
  return { ...(profile === undefined ? {} : { profile }), jitter, ...realTime };
}

function goodputOption(text: string | undefined): object | undefined {
  if (text === undefined) return undefined;
  const entries = text.split(",").map((entry) => {
    const match = /^(ttft|tpot|e2el):(\d+(?:\.\d+)?)$/.exec(entry);
    if (match === null)
      throw usageError("--goodput", "limits in ms such as ttft:200,tpot:50", text);
    return [match[1], Number(match[2])] as const;
  });
  const limits = Object.fromEntries(entries);
  if (Object.keys(limits).length < entries.length) {
    throw usageError("--goodput", "limits in ms, each of them once", text);
  }
  return limits;
}

function onlyOption(text: string | undefined): (cell: CellName) => boolean {
  if (text === undefined) return () => true;
  const [mode = "*", load = "*", run = "*", ...more] = text.split("/");
  if (more.length > 0 || mode === "" || load === "" || run === "") {
    throw usageError("--only", "MODE/LOAD or MODE/LOAD/RUN, with * for any", text);
  }
  const fits = (wanted: string, got: string): boolean => wanted === "*" || wanted === got;
  return (cell) => fits(mode, cell.mode) && fits(load, cell.load) && fits(run, String(cell.run));
}

/** A specification says these itself; given twice, one would be ignored. */
function forbidWithSpec(
  options: ParsedOptions,
  command: readonly string[] | undefined,
): ParsedOptions {
  const names = [...ENGINE_OPTIONS, ...Object.keys(LOAD_OPTIONS), "arrivals", "goodput", "runs"];
  const given = names.find((name) => options.strings.has(name) || options.flags.has(name));
  if (command !== undefined || given !== undefined) {
    const what = given === undefined ? "a command" : `--${given}`;
    throw new OptionError("--spec", `Expected --spec without ${what}: the file says it.`);
  }
  return options;
}

const SPEC_BYTES_MAX = 1 << 20;

function readSpec(file: string, options: ParsedOptions): BenchSpec {
  let text: string;
  try {
    text = readRegularFile(file, SPEC_BYTES_MAX).toString();
  } catch (error) {
    throw usageError("--spec", `a readable file (${unreadable(error)})`, file);
  }
  let value: unknown;
  try {
    value = parseJsonFile(text);
  } catch (error) {
    throw new OptionError("--spec", `Expected ${quote(file)} to be JSON, but ${jsonFault(error)}.`);
  }
  const parsed = parseSpec(value, process.env);
  // A file is shared, a key is not: it may be given beside the file.
  const { apiKey, headers } = accessOptions(options, {});
  const spec = { ...parsed, access: { ...parsed.access, ...defined({ apiKey }) } };
  if (headers !== undefined && Object.keys(headers).length > 0) {
    spec.access = { ...spec.access, headers: { ...spec.access.headers, ...headers } };
  }
  const title = options.strings.get("title");
  return title === undefined ? spec : { ...spec, title };
}

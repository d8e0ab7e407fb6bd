/**
 * `--config FILE`: the options of a command from a JSON file, under their own names without the
 * dashes. One set of rules holds for all: the command line wins over the environment, that over the
 * file, and the file over the defaults.
 */

import { statSync } from "node:fs";
import { OptionError } from "../base/errors.ts";
import { isObject } from "../base/is-object.ts";
import { nearMiss } from "../base/near-miss.ts";
import { jsonFault, parseJsonFile } from "../base/parse-json.ts";
import { readRegularFile, unreadable } from "../base/read-file.ts";
import { quote } from "./errors.ts";
import type { OptionSpec, ParsedOptions } from "./options.ts";

export const CONFIG_OPTIONS: OptionSpec = { config: "string" };

export const CONFIG_HELP = `  --config FILE         options from a JSON file (default: LAZYGRAPH_CONFIG), such as
                        {"mode": "lazy", "settle-within": 600, "pin": ["FULL:24"]}; the command line
                        and the environment win`;

/**
 * Options that variables of the environment set as well, and which these win over the file. Of keys
 * without a folder the secret one decides: the public one may be there for an engine.
 */
const VARIABLES: Readonly<Record<string, readonly string[]>> = {
  engine: ["LAZYGRAPH_ENGINE"],
  "http-token-file": ["LAZYGRAPH_HTTP_TOKEN"],
  keys: ["LAZYGRAPH_CONTROLLER_KEYS", "LAZYGRAPH_SERVER_SECRET_KEY"],
  mode: ["LAZYGRAPH_MODE"],
  "plan-dir": ["LAZYGRAPH_PLAN_DIR"],
  reserve: ["LAZYGRAPH_RESERVE"],
};

/** Options that are numbers; the rest are texts. */
const NUMBERS: ReadonlySet<string> = new Set([
  "settle-within",
  "graphs-max",
  "fill-share",
  "engines-max",
]);
/** Options that name graphs, of which some are numbers: one, or a list of them. */
const LISTS: ReadonlySet<string> = new Set(["pin", "exclude"]);

/** Options that can't stand beside each other: who typed one doesn't want the file's other one. */
const INSTEAD: Readonly<Record<string, readonly string[]>> = {
  "no-plan": ["plan-dir", "plan-read-only"],
  "plan-dir": ["no-plan"],
  "plan-read-only": ["no-plan"],
};

const BYTES_MAX = 65_536;

/** A file, and how sentences name it: whoever didn't type its name is told where it came from. */
interface Source {
  readonly path: string;
  readonly name: string;
  readonly option: string;
}

/**
 * What `read` makes of the given options, and of those of the file that neither they nor the
 * environment have.
 *
 * @throws OptionError for a file that can't be read, isn't JSON or has an unknown or wrong entry;
 *   what `read` throws, with the file's name where the option is the file's
 */
export function withConfig<T>(
  given: ParsedOptions,
  spec: OptionSpec,
  environment: NodeJS.ProcessEnv,
  read: (options: ParsedOptions) => T,
): T {
  const file = sourceOf(given, environment);
  if (file === undefined) return read(given);
  const options = merged(file, given, spec, environment);
  try {
    return read(options);
  } catch (error) {
    throw error instanceof OptionError ? located(error, file, given, options) : error;
  }
}

/** Whether a file was named, on the command line or by the environment. */
export function hasConfig(given: ParsedOptions, environment: NodeJS.ProcessEnv): boolean {
  return sourceOf(given, environment) !== undefined;
}

/**
 * Before a file is read again while others depend on this process: a pipe without a writer would
 * keep it waiting.
 *
 * @throws OptionError unless it is a file, or is none that can be looked at
 */
export function requireRereadable(given: ParsedOptions, environment: NodeJS.ProcessEnv): void {
  const file = sourceOf(given, environment);
  const about = file && statSync(file.path, { throwIfNoEntry: false });
  if (file === undefined || about === undefined || about.isFile()) return;
  throw mistake(
    file,
    `Expected ${file.name} to be a file that can be read again, got a pipe, a folder or a device.`,
  );
}

function sourceOf(given: ParsedOptions, environment: NodeJS.ProcessEnv): Source | undefined {
  const typed = given.strings.get("config");
  if (typed !== undefined) return { path: typed, name: typed, option: "--config" };
  const path = environment["LAZYGRAPH_CONFIG"];
  if (path === undefined || path === "") return undefined;
  return { path, name: `${path} (LAZYGRAPH_CONFIG)`, option: "LAZYGRAPH_CONFIG" };
}

/** Nobody typed the option that the sentence names: it is an entry of the file. */
function located(
  error: OptionError,
  file: Source,
  given: ParsedOptions,
  { strings, flags }: ParsedOptions,
): OptionError {
  const name = error.option.replace(/^--/, "");
  const typed = given.strings.has(name) || given.flags.has(name);
  if (typed || error.option === name || !(strings.has(name) || flags.has(name))) return error;
  const entry = `${JSON.stringify(name)} in ${file.name}`;
  return new OptionError(
    error.option,
    error.message.replace(error.option, () => entry),
  );
}

function merged(
  file: Source,
  given: ParsedOptions,
  spec: OptionSpec,
  environment: NodeJS.ProcessEnv,
): ParsedOptions {
  const strings = new Map(given.strings);
  const flags = new Set(given.flags);
  const typed = [...given.strings.keys(), ...given.flags];
  const overruled = new Set(typed.flatMap((name) => INSTEAD[name] ?? []));
  for (const [name, value] of Object.entries(readObject(file))) {
    const kind = name !== "config" && Object.hasOwn(spec, name) ? spec[name] : undefined;
    if (kind === undefined) throw unknown(file, name, spec);
    const text = kind === "boolean" ? flagOf(file, name, value) : textOf(file, name, value);
    const isExported = VARIABLES[name]?.some((variable) => (environment[variable] ?? "") !== "");
    if (isExported || strings.has(name) || overruled.has(name)) continue;
    if (kind === "string") strings.set(name, text);
    else if (text === "true") flags.add(name);
  }
  return { ...given, strings, flags };
}

function readObject(file: Source): object {
  let text: string;
  try {
    text = readRegularFile(file.path, BYTES_MAX).toString();
  } catch (error) {
    const got = unreadable(error);
    throw mistake(file, `Expected ${file.name} to be a readable JSON file, got ${got}.`);
  }
  let value: unknown;
  try {
    value = parseJsonFile(text);
  } catch (error) {
    throw mistake(file, `Expected ${file.name} to be JSON, but ${jsonFault(error)}.`);
  }
  if (isObject(value)) return value;
  throw mistake(file, `Expected ${file.name} to hold a JSON object, got ${quote(text.trim())}.`);
}

function flagOf(file: Source, name: string, value: unknown): string {
  if (typeof value === "boolean") return String(value);
  throw wrong(file, name, "true or false", value);
}

/** As it would stand on the command line. */
function textOf(file: Source, name: string, value: unknown): string {
  if (NUMBERS.has(name)) {
    if (Number.isFinite(value)) return String(value);
    throw wrong(file, name, "a number", value);
  }
  const isText = (entry: unknown): boolean => typeof entry === "string" && entry !== "";
  if (!LISTS.has(name)) {
    if (isText(value)) return String(value);
    throw wrong(file, name, "a text", value);
  }
  const entries = Array.isArray(value) ? value : [value];
  const sound = entries.every((entry) => isText(entry) || Number.isFinite(entry));
  if (sound && entries.length > 0) return entries.join(",");
  throw wrong(file, name, "a text, a number or a list of them", value);
}

function wrong(file: Source, name: string, expected: string, value: unknown): OptionError {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const isShortValue = text !== value && text.length <= 80;
  const got = isShortValue ? text : quote(text);
  return mistake(file, `Expected ${quote(name)} in ${file.name} to be ${expected}, got ${got}.`);
}

function unknown(file: Source, name: string, spec: OptionSpec): OptionError {
  const names = Object.keys(spec).filter((known) => known !== "config");
  const near = nearMiss(name, names);
  const hint = near === undefined ? `known are ${names.join(", ")}` : `did you mean ${near}`;
  const mark = near === undefined ? "." : "?";
  return mistake(
    file,
    `Expected known options in ${file.name}, got ${quote(name)}: ${hint}${mark}`,
  );
}

function mistake(file: Source, sentence: string): OptionError {
  return new OptionError(file.option, sentence);
}

/**
 * `--config FILE`: the options of a command from a JSON file, under their own names without the
 * dashes. One set of rules holds for all: the command line wins over the environment, that over the
 * file, and the file over the defaults.
 */

import { readFileSync } from "node:fs";
import { codeOf, OptionError } from "../errors.ts";
import { nearMiss } from "../near-miss.ts";
import { quote } from "./errors.ts";
import type { OptionSpec, ParsedOptions } from "./options.ts";

export const CONFIG_OPTIONS: OptionSpec = { config: "string" };

export const CONFIG_HELP = `  --config FILE         options from a JSON file (default: LAZYGRAPH_CONFIG), such as
                        {"mode": "lazy", "settle-within": 600, "pin": ["FULL:24"]}; the command line
                        and the environment win`;

/** Options that a variable of the environment sets as well, and which it wins over the file. */
const VARIABLES: Readonly<Record<string, string>> = {
  engine: "LAZYGRAPH_ENGINE",
  mode: "LAZYGRAPH_MODE",
  "plan-dir": "LAZYGRAPH_PLAN_DIR",
  reserve: "LAZYGRAPH_RESERVE",
};

const BYTES_MAX = 65_536;

/**
 * The given options, and those of the file that neither they nor the environment have.
 *
 * @throws OptionError for a file that can't be read, isn't JSON or has an unknown or wrong entry
 */
export function withConfig(
  given: ParsedOptions,
  spec: OptionSpec,
  environment: NodeJS.ProcessEnv,
): ParsedOptions {
  const file = given.strings.get("config") ?? (environment["LAZYGRAPH_CONFIG"] || undefined);
  if (file === undefined) return given;
  const strings = new Map(given.strings);
  const flags = new Set(given.flags);
  for (const [name, value] of Object.entries(readObject(file))) {
    const kind = name !== "config" && Object.hasOwn(spec, name) ? spec[name] : undefined;
    if (kind === undefined) throw unknown(file, name, spec);
    const text = kind === "boolean" ? flagOf(file, name, value) : textOf(file, name, value);
    const variable = environment[VARIABLES[name] ?? ""] ?? "";
    if (variable !== "" || strings.has(name)) continue;
    if (kind === "string") strings.set(name, text);
    else if (text === "true") flags.add(name);
  }
  return { ...given, strings, flags };
}

function readObject(file: string): object {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw mistake(`Expected ${file} to be a readable JSON file, got ${codeOf(error)}.`);
  }
  if (text.length > BYTES_MAX) {
    throw mistake(`Expected ${file} to have at most ${BYTES_MAX} characters, got ${text.length}.`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw mistake(`Expected ${file} to be JSON, got ${(error as Error).message}.`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw mistake(`Expected ${file} to hold a JSON object, got ${quote(text.trim())}.`);
}

function flagOf(file: string, name: string, value: unknown): string {
  if (typeof value === "boolean") return String(value);
  throw wrong(file, name, "true or false", value);
}

/** As it would stand on the command line; what it says is checked as if it did. */
function textOf(file: string, name: string, value: unknown): string {
  const entries = Array.isArray(value) ? value : [value];
  const sound = entries.every(
    (entry) => (typeof entry === "string" && entry !== "") || Number.isFinite(entry),
  );
  if (sound && entries.length > 0) return entries.join(",");
  throw wrong(file, name, "a text, a number or a list of them", value);
}

function wrong(file: string, name: string, expected: string, value: unknown): OptionError {
  const got = quote(JSON.stringify(value) ?? "nothing");
  return mistake(`Expected ${quote(name)} in ${file} to be ${expected}, got ${got}.`);
}

function unknown(file: string, name: string, spec: OptionSpec): OptionError {
  const names = Object.keys(spec).filter((known) => known !== "config");
  const near = nearMiss(name, names);
  const hint = near === undefined ? `known are ${names.join(", ")}` : `did you mean ${near}`;
  const mark = near === undefined ? "." : "?";
  return mistake(`Expected known options in ${file}, got ${quote(name)}: ${hint}${mark}`);
}

function mistake(sentence: string): OptionError {
  return new OptionError("--config", sentence);
}

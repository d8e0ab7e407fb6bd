/**
 * Command-line options: `parseArgs` finds the tokens, this file turns each slip into one sentence
 * that names the option, what was expected and what came.
 */

import { parseArgs } from "node:util";
import { counted } from "../base/counted.ts";
import { OptionError } from "../base/errors.ts";
import { nearMiss } from "../base/near-miss.ts";
import { ENGINES_MAX } from "../controller/options.ts";
import { isId } from "../wire/check.ts";
import { checkEndpoint } from "../wire/endpoint.ts";
import { MODES, type Mode } from "../wire/protocol.ts";
import { choice, orList, quote, usageError } from "./errors.ts";

/** Long option name to its kind; a `string` option takes one value, a `list` one each time. */
export type OptionSpec = Readonly<Record<string, "string" | "boolean" | "list">>;

export interface ParsedOptions {
  readonly strings: ReadonlyMap<string, string>;
  readonly lists: ReadonlyMap<string, readonly string[]>;
  readonly flags: ReadonlySet<string>;
  /** Arguments that are no options, in order. */
  readonly positionals: readonly string[];
}

/** A command's arguments that are no options. */
export interface PositionalSpec {
  /** As the help shows them. */
  readonly name: string;
  readonly min: number;
  readonly max: number;
  /** What the first may be. @default anything */
  readonly first?: readonly string[];
}

/** Without `--`, these words show that a command should follow. */
const COMMAND_LIKE = /^(.*\/)?(vllm|python[\d.]*)$/;

/** Every command knows `--help`. Positional arguments are refused where a command takes none. */
export function parseOptions(
  argv: readonly string[],
  spec: OptionSpec,
  positional?: PositionalSpec,
): ParsedOptions {
  const known: OptionSpec = { ...spec, help: "boolean" };
  const { tokens } = parseArgs({
    args: [...argv],
    options: Object.fromEntries(
      Object.entries(known).map(([name, type]) => [
        name,
        name === "help" ? { type: "boolean", short: "h" } : { type: kindOf(type) },
      ]),
    ),
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const strings = new Map<string, string>();
  const lists = new Map<string, string[]>();
  const flags = new Set<string>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "option-terminator") {
      throw new OptionError("--", "Expected no `--` here: this command starts no other command.");
    }
    if (token.kind === "positional" && positional !== undefined) {
      positionals.push(token.value);
      continue;
    }
    if (token.kind === "positional") {
      const got = quote(token.value);
      if (COMMAND_LIKE.test(token.value)) {
        throw new OptionError("--", `Expected \`--\` before the command, got ${got} without.`);
      }
      throw new OptionError(
        token.value,
        `Expected only options, got the argument ${got}; see --help.`,
      );
    }
    const type = Object.hasOwn(known, token.name) ? known[token.name] : undefined;
    if (type === undefined) throw unknownOption(token.rawName, Object.keys(known));
    const option = `--${token.name}`;
    if (strings.has(token.name)) {
      throw new OptionError(option, `Expected ${option} at most once, got it twice.`);
    }
    if (type === "boolean") {
      if (token.value !== undefined) throw usageError(option, "given without a value", token.value);
      flags.add(token.name);
      continue;
    }
    const value = requiredValue(option, token.value, token.inlineValue);
    if (type === "string") strings.set(token.name, value);
    else lists.set(token.name, [...(lists.get(token.name) ?? []), value]);
  }
  if (positional !== undefined && !flags.has("help")) {
    const { name, min, max, first } = positional;
    const [what = name] = name.split(" ");
    // An unknown action is the mistake, however many words follow.
    if (first !== undefined && positionals[0] !== undefined) {
      choice(what, first, positionals[0]);
    }
    const count = positionals.length;
    if (count < min || count > max) {
      const range = min === max ? `${min}` : `${min} to ${max}`;
      const sentence =
        first === undefined
          ? `Expected ${range} ${name}, got ${count}`
          : `Expected ${name}, where ${what} is ${orList(first)}, got ${counted(count, "argument")}`;
      throw new OptionError(name, `${sentence}; see --help.`);
    }
  }
  return { strings, lists, flags, positionals };
}

function kindOf(type: OptionSpec[string]): "string" | "boolean" {
  return type === "boolean" ? "boolean" : "string";
}

function requiredValue(option: string, value: string | undefined, inline?: boolean): string {
  if (value === undefined || value === "") {
    throw new OptionError(option, `Expected ${option} to have a value, got none.`);
  }
  // `--mode --quiet` is a forgotten value, not a mode of that name; `--mode=--quiet` says so.
  if (value.startsWith("--") && inline !== true) {
    throw new OptionError(
      option,
      `Expected ${option} to have a value, got the next option ${quote(value)}: ` +
        "write it before that one.",
    );
  }
  return value;
}

function unknownOption(rawName: string, names: readonly string[]): OptionError {
  const options = names.map((name) => `--${name}`);
  const meant = nearMiss(rawName, options);
  const got = `got the unknown option ${quote(rawName)}`;
  return new OptionError(
    rawName,
    meant === undefined
      ? `Expected one of ${options.join(", ")}, ${got}.`
      : `Expected an option of this command, ${got}: did you mean ${meant}?`,
  );
}

export function modeOption(options: ParsedOptions, fallback: Mode): Mode {
  const value = options.strings.get("mode");
  if (value === undefined) return fallback;
  return choice("--mode", MODES, value);
}

/** A mode that the user exported is not overruled by our default. */
export function environmentMode(environment: NodeJS.ProcessEnv): Mode {
  const value = environment["LAZYGRAPH_MODE"]?.trim().toLowerCase();
  if (value === undefined || value === "") return "idle";
  return choice("LAZYGRAPH_MODE", MODES, value);
}

/** Seconds, above 0 and up to a day: more is a slip of unit. */
export function secondsOption(options: ParsedOptions, name: string): number | undefined {
  const value = options.strings.get(name);
  if (value === undefined) return undefined;
  const seconds = Number(value);
  if (!(seconds > 0 && seconds <= 86_400) || value.trim() !== value) {
    throw usageError(`--${name}`, "a number of seconds above 0 and up to 86400", value);
  }
  return seconds;
}

/** Engines at once; undefined: as many as a controller takes by itself. */
export function enginesMaxOption(options: ParsedOptions): number | undefined {
  const value = options.strings.get("engines-max");
  if (value === undefined) return undefined;
  const engines = /^\d{1,6}$/.test(value) ? Number(value) : 0;
  if (engines >= 1 && engines <= ENGINES_MAX) return engines;
  throw usageError("--engines-max", `a whole number from 1 to ${ENGINES_MAX}`, value);
}

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** `HOST:PORT`, `[IPV6]:PORT`; port 0 asks the system for a free one. */
export function hostPortOption(option: string, value: string): HostPort {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:\s/]+)):(\d{1,5})$/.exec(value);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port <= 65_535)) {
    throw usageError(option, "HOST:PORT such as 127.0.0.1:7480", value);
  }
  return { host, port };
}

/** The shape of an endpoint; whether it binds is the controller's to say. */
export function endpointOption(options: ParsedOptions): string | undefined {
  const value = options.strings.get("endpoint");
  if (value !== undefined) checkEndpoint("--endpoint", value);
  return value;
}

/** An engine's logical name, by the protocol's rule. */
export function engineNameOption(options: ParsedOptions): string | undefined {
  const value = options.strings.get("engine");
  if (value === undefined || isId(value)) return value;
  throw usageError("--engine", "1 to 128 characters without control characters", value);
}

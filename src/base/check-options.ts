/** The options of a function by rules of their own: unknown ones are mistakes too. */

import { OptionError } from "./errors.ts";
import { nearMiss } from "./near-miss.ts";
import { shown } from "./shown.ts";

const SECRET = /token|secret|apiKey/i;

/** What was expected of a value that breaks the rule; undefined: it is sound. */
export type OptionRule = (value: unknown) => string | undefined;

/**
 * Options that are undefined count as not given.
 *
 * @throws OptionError that names the first option that is unknown or breaks its rule.
 */
export function checkOptions(
  options: unknown,
  rules: Readonly<Record<string, OptionRule>>,
  whole = "options",
): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    const got = shown(options);
    throw new OptionError(whole, `Expected ${whole} to be an object, got ${got}.`);
  }
  const prefix = whole === "options" ? "" : `${whole}.`;
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const full = `${prefix}${name}`;
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (rule === undefined) throw unknownOption(name, Object.keys(rules), whole);
    const expected = rule(value);
    if (expected === undefined) continue;
    // What can't be a token may still be most of one, such as a file's with its line end.
    const got = SECRET.test(name) && typeof value === "string" ? "another text" : shown(value);
    throw new OptionError(full, `Expected ${full} to be ${expected}, got ${got}.`);
  }
}

/** An argument beside the options. @throws OptionError where it breaks its rule */
export function checkArgument(name: string, value: unknown, rule: OptionRule): void {
  const expected = rule(value);
  if (expected === undefined) return;
  throw new OptionError(name, `Expected ${name} to be ${expected}, got ${shown(value)}.`);
}

/** An object with these methods, such as a controller. Expected is how the sentence calls it. */
export function methodsRule(expected: string, methods: readonly string[]): OptionRule {
  return (value) => {
    const its = Object(value) as Readonly<Record<string, unknown>>;
    return methods.every((name) => typeof its[name] === "function") ? undefined : expected;
  };
}

export function numberRule(min: number, max: number, kind: "any" | "whole" = "any"): OptionRule {
  const expected = `${kind === "whole" ? "a whole number" : "a number"} from ${min} to ${max}`;
  return (value) => {
    const right = kind === "whole" ? Number.isInteger(value) : Number.isFinite(value);
    return right && (value as number) >= min && (value as number) <= max ? undefined : expected;
  };
}

/** What is expected where `value` is none of `values`. */
export function oneOf(values: readonly string[], value: unknown): string | undefined {
  return values.some((known) => known === value) ? undefined : `one of ${values.join(", ")}`;
}

/** Such as a path. Expected is how the sentence calls it. */
export function textRule(expected: string): OptionRule {
  return (value) =>
    typeof value === "string" && value !== "" && !value.includes("\0") ? undefined : expected;
}

export function flagRule(value: unknown): string | undefined {
  return typeof value === "boolean" ? undefined : "true or false";
}

export function objectRule(value: unknown): string | undefined {
  const sound = typeof value === "object" && value !== null && !Array.isArray(value);
  return sound ? undefined : "an object";
}

export function functionRule(value: unknown): string | undefined {
  return typeof value === "function" ? undefined : "a function";
}

export function unknownOption(name: string, known: readonly string[], whole: string): OptionError {
  const near = nearMiss(name, known);
  const hint = near === undefined ? `known are ${known.join(", ")}.` : `did you mean ${near}?`;
  const where = whole === "options" ? "" : ` of ${whole}`;
  return new OptionError(
    name,
    `Expected a known option${where}, got ${JSON.stringify(name.slice(0, 100))}: ${hint}`,
  );
}

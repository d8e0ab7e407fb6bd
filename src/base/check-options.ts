/** The options of a function, each by a schema as files are: unknown ones are mistakes too. */

import * as v from "valibot";
import { OptionError } from "./errors.ts";
import { nearMiss } from "./near-miss.ts";
import type { Schema } from "./schema.ts";
import { shown } from "./shown.ts";

/** A rule for each option of `T`. */
export type OptionRules<T> = { readonly [K in keyof T]-?: Schema<unknown> };

const SECRET = /token|secret|apiKey/i;

/**
 * Options that are undefined count as not given.
 *
 * @throws OptionError that names the first option that is unknown or breaks its rule.
 */
export function checkOptions(
  options: unknown,
  rules: Readonly<Record<string, Schema<unknown>>>,
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
    const schema = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (schema === undefined) throw unknownOption(name, Object.keys(rules), whole);
    checkOption(full, value, schema);
  }
}

/** An option, or an argument beside them. @throws OptionError where it breaks its rule */
export function checkOption(name: string, value: unknown, schema: Schema<unknown>): void {
  const { issues } = v.safeParse(schema, value, { abortEarly: true });
  if (issues === undefined) return;
  // What can't be a token may still be most of one, such as a file's with its line end.
  const got = SECRET.test(name) && typeof value === "string" ? "another text" : shown(value);
  throw new OptionError(name, `Expected ${name} to be ${issues[0].message}, got ${got}.`);
}

export const callback: Schema<unknown> = v.function("a function");
export const signal: Schema<AbortSignal> = v.instance(AbortSignal, "an AbortSignal");

/** Such as a path. Expected is how the sentence calls it. */
export function textRule(expected: string): Schema<string> {
  return v.pipe(
    v.string(expected),
    v.nonEmpty(expected),
    v.check((text) => !text.includes("\0"), expected),
  );
}

/** An object with these methods, such as a controller. Expected is how the sentence calls it. */
export function withMethods(expected: string, methods: readonly string[]): Schema<unknown> {
  return rule(expected, (value) => {
    const its = Object(value) as Readonly<Record<string, unknown>>;
    return methods.every((name) => typeof its[name] === "function");
  });
}

/** What a schema of its own can't say. */
export function rule(expected: string, isSound: (value: unknown) => boolean): Schema<unknown> {
  return v.custom<unknown>(isSound, expected);
}

function unknownOption(name: string, known: readonly string[], whole: string): OptionError {
  const near = nearMiss(name, known);
  const hint = near === undefined ? `known are ${known.join(", ")}.` : `did you mean ${near}?`;
  const where = whole === "options" ? "" : ` of ${whole}`;
  return new OptionError(
    name,
    `Expected a known option${where}, got ${JSON.stringify(name.slice(0, 100))}: ${hint}`,
  );
}

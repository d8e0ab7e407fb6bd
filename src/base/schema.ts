/**
 * What files must look like, as schemas of Valibot. The message of each rule is what a sentence
 * expects, such as "a whole number from 1 to 8": so every fault has a place, what was expected there
 * and what came.
 */

import * as v from "valibot";
import { isObject } from "./is-object.ts";
import { nearMiss } from "./near-miss.ts";
import { shownWhole } from "./shown.ts";

/**
 * Makes the error of a fault. The place is empty for the whole document; of a field that isn't known
 * it is the object's, and expected are the fields that are.
 */
export type FaultError = (
  place: string,
  expected: string,
  got: string,
  isUnknownField?: boolean,
) => Error;

/** A schema of a document from outside. */
export type Schema<T> = v.GenericSchema<unknown, T>;

/** @throws what `fail` makes of the first fault */
export function readBy<T>(schema: Schema<T>, value: unknown, fail: FaultError): T {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const [{ message, input, path, expected }] = result.issues;
  const isUnknown = expected === "never";
  const keys = path?.map(({ key }) => key) ?? [];
  const place = placeOf(isUnknown ? keys.slice(0, -1) : keys);
  throw fail(place, message, shownWhole(input), isUnknown);
}

/** As in JavaScript: `rows[3].kind`, and `sizes["FULL/1"]` where a name is no word. */
export function placeOf(keys: readonly unknown[]): string {
  const steps = keys.map((key) => {
    if (typeof key === "number") return `[${key}]`;
    const name = String(key);
    return /^[A-Za-z_]\w*$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`;
  });
  return steps.join("").replace(/^\./, "");
}

/** An object with these fields; others are left out. One that is missing is named with its rule. */
export function fields<T extends v.ObjectEntries>(
  entries: T,
): Schema<v.InferOutput<v.ObjectSchema<T, undefined>>> {
  return v.pipe(
    object,
    v.object(entries, ({ path }) => missing(entries, path)),
  );
}

/** The same, where a field with another name is a slip. */
export function exactFields<T extends v.ObjectEntries>(
  entries: T,
): Schema<v.InferOutput<v.ObjectSchema<T, undefined>>> {
  const names = Object.keys(entries);
  return v.pipe(
    object,
    v.strictObject(entries, ({ expected, input, path }) =>
      expected === "never"
        ? (nearMiss(String(input), names) ?? `one of ${names.join(", ")}`)
        : missing(entries, path),
    ),
  );
}

/** What was expected of the field that isn't there. */
function missing(entries: v.ObjectEntries, path: v.ObjectIssue["path"]): string {
  const entry = entries[String(path?.[0].key)];
  return (entry && v.safeParse(entry, undefined).issues?.[0].message) ?? "an object";
}

/** Entries of one kind by names of their own, at most `max`. */
export function named<T>(entry: Schema<T>, max: number): Schema<Record<string, T>> {
  const expected = `an object of at most ${max} entries`;
  return v.pipe(object, v.record(v.string(), entry), v.maxEntries(max, expected));
}

export function list<T>(entry: Schema<T>, max: number, min = 0): Schema<T[]> {
  const expected = `a list of ${min === 0 ? "at most" : `${min} to`} ${max} entries`;
  return v.pipe(v.array(entry, expected), v.minLength(min, expected), v.maxLength(max, expected));
}

export function text(charsMax: number): Schema<string> {
  const expected = textOf(charsMax);
  return v.pipe(v.string(expected), v.minLength(1, expected), v.maxLength(charsMax, expected));
}

/** Without control characters. */
export function line(charsMax: number): Schema<string> {
  return v.pipe(text(charsMax), v.regex(/^\P{Cc}*$/u, textOf(charsMax)));
}

function textOf(charsMax: number): string {
  return `a text of 1 to ${charsMax} characters`;
}

export function whole(min: number, max: number = Number.POSITIVE_INFINITY): Schema<number> {
  const range = max === Number.POSITIVE_INFINITY ? `${min} up` : `${min} to ${max}`;
  return inRange(min, max, `a whole number from ${range}`, true);
}

export function number(min: number, max: number): Schema<number> {
  return inRange(min, max, `a number from ${min} to ${max}`, false);
}

function inRange(min: number, max: number, expected: string, isWhole: boolean): Schema<number> {
  const range = v.pipe(v.number(expected), v.minValue(min, expected), v.maxValue(max, expected));
  return isWhole ? v.pipe(range, v.integer(expected)) : range;
}

/** From 0 up: the end is named only to whom it met. */
export function amount(max: number): Schema<number> {
  const expected = "a number from 0 up";
  return v.pipe(
    v.number(expected),
    v.minValue(0, expected),
    v.maxValue(max, `a number from 0 to ${max}`),
  );
}

export function oneOf<const T extends string>(values: readonly T[]): Schema<T> {
  return v.picklist(values, `one of ${values.join(", ")}`);
}

export const object: Schema<object> = v.custom<object>(isObject, "an object");
export const flag: Schema<boolean> = v.boolean("true or false");

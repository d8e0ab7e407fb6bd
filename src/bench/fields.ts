/** Sentences about the fields of a specification, each with its path. */

import * as v from "valibot";
import { OptionError } from "../base/errors.ts";
import { readBy, type Schema } from "../base/schema.ts";

/** Not empty. */
export const words: Schema<string> = v.pipe(v.string("a text"), v.nonEmpty("a text"));

/** @throws OptionError for the first field that is unknown or breaks its rule */
export function readField<T>(schema: Schema<T>, value: unknown, path: string): T {
  return readBy(schema, value, (place, expected, got, isUnknownField) => {
    const full = place === "" || place.startsWith("[") ? `${path}${place}` : `${path}.${place}`;
    const verb = isUnknownField ? "have the field" : "be";
    return new OptionError(full, `Expected ${full} to ${verb} ${expected}, got ${got}.`);
  });
}

export function fieldError(path: string, expected: string, got: unknown): OptionError {
  const shown = (JSON.stringify(got) ?? "nothing").slice(0, 100);
  return new OptionError(path, `Expected ${path} to be ${expected}, got ${shown}.`);
}

/** Fields whose value is undefined are left out, as exactOptionalPropertyTypes wants them. */
export function defined<T extends object>(
  fields: {
    readonly [K in keyof T]: T[K] | undefined;
  },
): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}

/**
 * Checks for values that came off the wire: each takes an unknown value and its place in the
 * message, and returns a clean value or throws a `Mismatch` that names both.
 *
 * A record check keeps the declared fields in their declared order and drops every other one. That
 * one table therefore validates what arrives, ignores fields of a newer peer, and fixes the order
 * in which fields are written.
 */

import { type Nouns, shown } from "../base/shown.ts";
import { LIMITS } from "./protocol.ts";

/** A value that is not what its place in the message asks for. */
export class Mismatch extends Error {
  override readonly name: string = "Mismatch";
  readonly #path: string;
  readonly #fault: string;

  /**
   * @param path its place in what was checked; empty: that itself
   * @param fault the sentence from there on
   */
  constructor(path: string, fault: string) {
    super(`Expected ${path} ${fault}`);
    this.#path = path;
    this.#fault = fault;
  }

  /** The same one level further out. Paths are put together only when something is wrong. */
  within(path: string): Mismatch {
    const inner = this.#path;
    const joint = path === "" || inner === "" || inner.startsWith("[") ? "" : ".";
    return new Mismatch(`${path}${joint}${inner}`, this.#fault);
  }
}

/** @param path of the value, in what it is a part of; empty where it is not named */
export type Check<T> = (value: unknown, path: string) => T;

/** As messages call them. */
const NOUNS: Nouns = { list: "an array", object: "a map", null: "nil" };

/** A value as it appears in an error sentence. */
export function show(value: unknown): string {
  return shown(value, NOUNS);
}

function mismatch(path: string, expected: string, value: unknown): Mismatch {
  return new Mismatch(path, `to be ${expected}, got ${show(value)}`);
}

/** An integer in a range, as a number; nothing on the wire may exceed 2⁵³ − 1. */
export function integer(min: number, max: number): Check<number> {
  const expected = `an integer from ${min} to ${max}`;
  return (value, path) => {
    if (Number.isSafeInteger(value)) {
      const number = value as number;
      // `-0` would be written as 0; say so here, so that a message equals its round trip.
      if (number >= min && number <= max) return number === 0 ? 0 : number;
    }
    throw mismatch(path, expected, value);
  };
}

export const count: Check<number> = integer(0, Number.MAX_SAFE_INTEGER);
export const signed: Check<number> = integer(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);

/** A finite number ≥ 0: seconds, milliseconds, means. */
export const amount: Check<number> = (value, path) => {
  if (typeof value === "number" && Number.isFinite(value) && value >= 0) return value + 0;
  throw mismatch(path, "a finite number ≥ 0", value);
};

export const flag: Check<boolean> = (value, path) => {
  if (typeof value === "boolean") return value;
  throw mismatch(path, "true or false", value);
};

/** Text of at most `charsMax` UTF-16 units, and well-formed: a lone surrogate is not UTF-8. */
export function text(charsMax: number): Check<string> {
  const expected = `text of at most ${charsMax} characters`;
  return (value, path) => {
    if (typeof value !== "string") throw mismatch(path, expected, value);
    if (value.length > charsMax) {
      throw new Mismatch(path, `to be ${expected}, got ${value.length} characters`);
    }
    if (/\p{Surrogate}/u.test(value)) throw mismatch(path, "well-formed Unicode text", value);
    return value;
  };
}

const shortText = text(LIMITS.idChars);

/** A name as logs and tables show it: not empty, without control characters. */
export const id: Check<string> = (value, path) => {
  if (typeof value === "string" && isPlainName(value)) return value;
  const checked = shortText(value, path);
  if (checked !== "" && !/\p{Cc}/u.test(checked)) return checked;
  throw mismatch(path, "a name, not empty and without control characters", value);
};

/** The rule of a name, such as an engine's, for whoever has a sentence of its own. */
export function isId(value: unknown): value is string {
  try {
    return id(value, "") === value;
  } catch {
    return false;
  }
}

/** Visible ASCII, as nearly all names are: known without asking for each kind of fault. */
function isPlainName(text: string): boolean {
  const { length } = text;
  if (length === 0 || length > LIMITS.idChars) return false;
  for (let at = 0; at < length; at++) {
    const unit = text.charCodeAt(at);
    if (unit < 0x20 || unit > 0x7e) return false;
  }
  return true;
}

export function oneOf<const T extends string>(values: readonly T[]): Check<T> {
  const known: ReadonlySet<unknown> = new Set(values);
  const expected = `one of ${values.join(", ")}`;
  return (value, path) => {
    if (known.has(value)) return value as T;
    throw mismatch(path, expected, value);
  };
}

export function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, path) => (value === undefined || value === null ? undefined : check(value, path));
}

/**
 * A list of at most `lengthMax` and at least `lengthMin` entries; `key` names what must not repeat
 * among them.
 */
export function list<T>(
  check: Check<T>,
  lengthMax: number,
  key?: (entry: T) => string | number,
  lengthMin = 0,
): Check<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw mismatch(path, "an array", value);
    const { length } = value;
    if (length > lengthMax) {
      throw new Mismatch(path, `to have at most ${lengthMax} entries, got ${length}`);
    }
    if (length < lengthMin) {
      throw new Mismatch(path, `to have at least ${lengthMin} entries, got ${length}`);
    }
    const entries: T[] = new Array(length);
    let index = 0;
    try {
      for (; index < length; index++) entries[index] = check(value[index], "");
    } catch (error) {
      throw error instanceof Mismatch ? error.within(`${path}[${index}]`) : error;
    }
    if (key !== undefined) requireApart(entries, key, path);
    return entries;
  };
}

function requireApart<T>(
  entries: readonly T[],
  key: (entry: T) => string | number,
  path: string,
): void {
  const seen = new Set<string | number>();
  for (const [index, entry] of entries.entries()) {
    const name = key(entry);
    if (seen.has(name)) {
      throw new Mismatch(
        `${path}[${index}]`,
        `to differ from those before it, got ${show(name)} again`,
      );
    }
    seen.add(name);
  }
}

/** Lists that share no entry. */
export function listsApart(
  check: Check<readonly (readonly string[])[]>,
): Check<readonly (readonly string[])[]> {
  return (value, path) => {
    const lists = check(value, path);
    const home = new Map<string, number>();
    for (const [index, entries] of lists.entries()) {
      for (const entry of entries) {
        const other = home.get(entry);
        if (other !== undefined) {
          throw new Mismatch(
            path,
            `to share no entry, got ${show(entry)} in [${other}] and [${index}]`,
          );
        }
        home.set(entry, index);
      }
    }
    return lists;
  };
}

/** One check per field; optional fields of `T` must have a check that allows their absence. */
export type Fields<T> = {
  readonly [K in keyof T]-?: T extends Record<K, T[K]> ? Check<T[K]> : Check<T[K] | undefined>;
};

export function record<T extends object>(fields: Fields<T>): Check<T> {
  const checks = Object.entries(fields) as [string, Check<unknown>][];
  return (value, path) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw mismatch(path, "a map", value);
    }
    const source = value as Record<string, unknown>;
    const clean: Record<string, unknown> = {};
    try {
      for (const [name, check] of checks) {
        const given = Object.hasOwn(source, name) ? source[name] : undefined;
        const checked = check(given, name);
        if (checked !== undefined) clean[name] = checked;
      }
    } catch (error) {
      throw error instanceof Mismatch ? error.within(path) : error;
    }
    return clean as T;
  };
}

/** Reads the fields of a JSON object, each with its rule; a slip is one sentence with its path. */

import { OptionError } from "../base/errors.ts";
import { nearMiss } from "../base/near-miss.ts";

export interface NumberLimits {
  readonly min: number;
  readonly max: number;
  readonly whole?: boolean;
}

export class Fields {
  readonly #path: string;
  readonly #value: Readonly<Record<string, unknown>>;
  readonly #known = new Set<string>();

  /** @throws OptionError unless `value` is a JSON object */
  constructor(path: string, value: unknown) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw fieldError(path, "an object", value);
    }
    this.#path = path;
    this.#value = value as Readonly<Record<string, unknown>>;
  }

  /** Call at the end. @throws OptionError for the first field that nobody asked for */
  done(): void {
    for (const name of Object.keys(this.#value)) {
      if (this.#known.has(name)) continue;
      const names = [...this.#known];
      const meant = nearMiss(name, names) ?? `one of ${names.join(", ")}`;
      throw new OptionError(
        this.path(name),
        `Expected ${this.#path} to have the field ${meant}, got ${JSON.stringify(name)}.`,
      );
    }
  }

  path(name: string): string {
    return `${this.#path}.${name}`;
  }

  raw(name: string): unknown {
    this.#known.add(name);
    return this.#value[name];
  }

  text(name: string): string | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    if (typeof value === "string" && value !== "") return value;
    throw fieldError(this.path(name), "a text", value);
  }

  flag(name: string): boolean | undefined {
    const value = this.raw(name);
    if (value === undefined || typeof value === "boolean") return value;
    throw fieldError(this.path(name), "true or false", value);
  }

  number(name: string, limits: NumberLimits): number | undefined {
    const value = this.raw(name);
    return value === undefined ? undefined : numberIn(this.path(name), value, limits);
  }

  oneOf<T extends string>(name: string, values: readonly T[]): T | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    const found = values.find((candidate) => candidate === value);
    if (found !== undefined) return found;
    throw fieldError(this.path(name), `one of ${values.join(", ")}`, value);
  }

  list<T>(name: string, read: (value: unknown, path: string) => T): T[] | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    if (!Array.isArray(value)) throw fieldError(this.path(name), "a list", value);
    return value.map((entry, index) => read(entry, `${this.path(name)}[${index}]`));
  }

  /** An object of named entries. */
  record<T>(
    name: string,
    read: (value: unknown, path: string) => T,
  ): Readonly<Record<string, T>> | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw fieldError(this.path(name), "an object", value);
    }
    const path = this.path(name);
    return Object.fromEntries(
      Object.entries(value).map(([key, entry]) => [key, read(entry, `${path}.${key}`)]),
    );
  }
}

export function numberIn(path: string, value: unknown, limits: NumberLimits): number {
  const { min, max, whole } = limits;
  const sound = typeof value === "number" && value >= min && value <= max;
  if (sound && (whole !== true || Number.isInteger(value))) return value;
  throw fieldError(path, `${whole ? "a whole number" : "a number"} from ${min} to ${max}`, value);
}

export function textIn(path: string, value: unknown): string {
  if (typeof value === "string") return value;
  throw fieldError(path, "a text", value);
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

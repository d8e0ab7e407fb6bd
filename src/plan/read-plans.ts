/**
 * The plans of a folder that have been read, by fingerprint, and which version of each file that
 * was. Where they hold too much memory the one used the longest ago is forgotten: with its version,
 * so that it is read again before anything is written over it.
 */

import type { Plan } from "./plan.ts";

export interface ReadPlan {
  readonly plan: Plan;
  readonly name: string;
  /** Of its file. */
  readonly bytes: number;
}

export class ReadPlans {
  readonly #bytesMax: number;
  /** By key, in order of last use. */
  readonly #plans = new Map<string, ReadPlan>();
  /** By name. */
  readonly #versions = new Map<string, string>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get(key: string): ReadPlan | undefined {
    const read = this.#plans.get(key);
    if (read === undefined) return undefined;
    this.#plans.delete(key);
    this.#plans.set(key, read);
    return read;
  }

  put(key: string, read: ReadPlan, version: string): void {
    this.#remove(key);
    this.#plans.set(key, read);
    this.#bytes += read.bytes;
    this.#versions.set(read.name, version);
    for (const [oldest, { name }] of this.#plans) {
      if (this.#bytes <= this.#bytesMax || oldest === key) return;
      this.#remove(oldest);
      this.#versions.delete(name);
    }
  }

  /** The version of a file that was looked at; undefined: none was, or it is forgotten. */
  version(name: string): string | undefined {
    return this.#versions.get(name);
  }

  seen(name: string, version: string): void {
    this.#versions.set(name, version);
  }

  /** The file's plan counts no more. */
  drop(name: string): void {
    for (const [key, read] of this.#plans) if (read.name === name) this.#remove(key);
  }

  /** Nor has the file been looked at. */
  forget(name: string): void {
    this.drop(name);
    this.#versions.delete(name);
  }

  #remove(key: string): void {
    this.#bytes -= this.#plans.get(key)?.bytes ?? 0;
    this.#plans.delete(key);
  }
}

/**
 * Calls many functions once a period each, every one at its own moment, whatever the process does
 * in between. Node goes through intervals of one period at once: those late together begin anew
 * together, until all come at one moment, which engines on hosts of their own never do.
 */

import { monotonicMs } from "./fleet-probe.ts";

interface Entry {
  atMs: number;
  readonly call: () => void;
}

const TICK_MS = 1;

export class Pacer {
  readonly #periodMs: number;
  /** The next one first; one period for all keeps the order. */
  readonly #entries: Entry[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(periodMs: number) {
    this.#periodMs = periodMs;
  }

  /** From a random moment of the next period on. */
  add(call: () => void): void {
    const entry = { atMs: monotonicMs() + Math.random() * this.#periodMs, call };
    const at = this.#entries.findIndex(({ atMs }) => atMs > entry.atMs);
    this.#entries.splice(at === -1 ? this.#entries.length : at, 0, entry);
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS);
  }

  #tick(): void {
    const now = monotonicMs();
    for (let next = this.#entries[0]; next !== undefined && next.atMs <= now; ) {
      this.#entries.shift();
      next.call();
      next.atMs += this.#periodMs;
      // A process that stood still for a period goes on from here, and makes up for nothing.
      if (next.atMs <= now) next.atMs = now + this.#periodMs;
      this.#entries.push(next);
      next = this.#entries[0];
    }
  }
}

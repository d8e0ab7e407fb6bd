import type { Clock } from "../../src/base/clock.ts";

/** Time that moves only when told to, and then fires what is due, in order. */
export class FakeClock implements Clock {
  #nowSeconds = 0;
  #timers: { dueSeconds: number; callback: () => void }[] = [];

  now(): number {
    return this.#nowSeconds;
  }

  after(seconds: number, callback: () => void): () => void {
    const timer = { dueSeconds: this.#nowSeconds + seconds, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  get pending(): number {
    return this.#timers.length;
  }

  advance(seconds: number): void {
    const until = this.#nowSeconds + seconds;
    for (let due = this.#next(until); due !== undefined; due = this.#next(until)) {
      this.#nowSeconds = Math.max(this.#nowSeconds, due.dueSeconds);
      due.callback();
    }
    this.#nowSeconds = until;
  }

  /** The process stands still: time passes, and no timer gets its turn until the end. */
  stall(seconds: number): void {
    this.#nowSeconds += seconds;
    this.advance(0);
  }

  #next(until: number): { dueSeconds: number; callback: () => void } | undefined {
    const [next] = this.#timers
      .filter((timer) => timer.dueSeconds <= until)
      .sort((a, b) => a.dueSeconds - b.dueSeconds);
    if (next !== undefined) this.#timers = this.#timers.filter((timer) => timer !== next);
    return next;
  }
}

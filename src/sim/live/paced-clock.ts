/** Simulated seconds that follow a real clock at a rate that may change: 10 is ten times faster. */

import type { Clock } from "../../base/clock.ts";

export class PacedClock {
  readonly #clock: Clock;
  #rate: number;
  #realSeconds: number;
  #seconds = 0;

  constructor(clock: Clock, rate: number) {
    this.#clock = clock;
    this.#rate = rate;
    this.#realSeconds = clock.now();
  }

  /** Simulated seconds since this clock was made. */
  now(): number {
    return this.#seconds + (this.#clock.now() - this.#realSeconds) * this.#rate;
  }

  setRate(rate: number): void {
    this.#seconds = this.now();
    this.#realSeconds = this.#clock.now();
    this.#rate = rate;
  }

  /** Calls back when the simulated time has come; the returned function cancels it. */
  at(seconds: number, callback: () => void): () => void {
    const realSeconds = (seconds - this.now()) / this.#rate;
    // Timers hold 32 bits of milliseconds; who waits longer is called early and asks again.
    return this.#clock.after(Math.min(Math.max(0, realSeconds), 86_400), callback);
  }
}

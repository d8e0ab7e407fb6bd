/** Simulated seconds that follow a real clock at a variable rate: 10 is ten times faster. */

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

  /** Since this clock was made. */
  now(): number {
    return this.#seconds + (this.#clock.now() - this.#realSeconds) * this.#rate;
  }

  setRate(rate: number): void {
    this.#seconds = this.now();
    this.#realSeconds = this.#clock.now();
    this.#rate = rate;
  }

  /** Calls back at that time; the result cancels it. */
  at(seconds: number, callback: () => void): () => void {
    const realSeconds = (seconds - this.now()) / this.#rate;
    // Timers hold 32 bits of milliseconds: longer waits are called early and ask again.
    return this.#clock.after(Math.min(Math.max(0, realSeconds), 86_400), callback);
  }
}

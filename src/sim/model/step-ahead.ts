/**
 * An engine that schedules asynchronously has composed a step as soon as it had launched the one
 * before it: who came since then waits one step longer. Pure.
 */

import type { Batcher } from "./batcher.ts";

export class StepAhead {
  readonly #enabled: boolean;
  /** When the step after the one under way is composed, if it is composed ahead. */
  #composedSeconds = 0;
  /** Who came after that is not in the step composed ahead. */
  #knownSeconds = Number.POSITIVE_INFINITY;

  /** @param stepsAhead the profile's; 0: every step is composed when the one before has ended */
  constructor(stepsAhead: number) {
    this.#enabled = stepsAhead > 0;
  }

  /** Puts the next step together; false when there is nothing to run. */
  compose(batcher: Batcher): boolean {
    const knownSeconds = this.#knownSeconds;
    this.#knownSeconds = Number.POSITIVE_INFINITY;
    if (batcher.compose(knownSeconds)) return true;
    // Only where nobody else is left to run is the queue empty, and the next step composed anew.
    return knownSeconds !== Number.POSITIVE_INFINITY && batcher.compose();
  }

  /** A step is launched, and with it the next one composed. */
  launched(atSeconds: number): void {
    this.#composedSeconds = atSeconds;
  }

  stepped(): void {
    if (this.#enabled) this.#knownSeconds = this.#composedSeconds;
  }

  /** A capture waits until nothing is in flight: the next step is composed after it. */
  captured(): void {
    this.#knownSeconds = Number.POSITIVE_INFINITY;
  }
}

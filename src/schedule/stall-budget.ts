/**
 * How long captures may hold up the engine: one at most so long, and all together at most a share
 * of the time, with a burst for the time after ready, when captures pay most.
 */

/** What takes longer met something else than a capture: a process that was stopped, say. */
export const STALL_SECONDS_MAX = 5;

export interface StallBudget {
  /** No capture that is expected to stall longer. @default 5 */
  readonly stallSecondsMax?: number;
  /** Seconds of stall in reserve; a full reserve allows any one capture. @default 2 */
  readonly burstSeconds?: number;
  /** Share of the time by which the reserve fills up again. @default 0.05 */
  readonly share?: number;
}

export class StallAccount {
  readonly #max: number;
  readonly #burst: number;
  readonly #share: number;
  #left: number;
  #atSeconds: number | undefined;

  constructor({
    stallSecondsMax = STALL_SECONDS_MAX,
    burstSeconds = 2,
    share = 0.05,
  }: StallBudget = {}) {
    this.#max = stallSecondsMax;
    this.#burst = burstSeconds;
    this.#share = share;
    this.#left = burstSeconds;
  }

  /**
   * Why a stall of this length must wait; undefined when it may start.
   *
   * @param expectedSeconds what of it is likely to hold anybody up
   */
  objection(
    atSeconds: number,
    stallSeconds: number,
    expectedSeconds: number = stallSeconds,
  ): string | undefined {
    this.#refill(atSeconds);
    if (stallSeconds > this.#max) {
      return `its stall of ${milliseconds(stallSeconds)} is over the ${milliseconds(this.#max)} allowed`;
    }
    if (Math.min(expectedSeconds, this.#burst) <= this.#left) return undefined;
    return `the stall budget has ${milliseconds(this.#left)} left of ${milliseconds(expectedSeconds)}`;
  }

  /** Seconds until a stall of this length fits; Infinity when it never will. */
  waitSeconds(
    atSeconds: number,
    stallSeconds: number,
    expectedSeconds: number = stallSeconds,
  ): number {
    this.#refill(atSeconds);
    const missing = Math.min(expectedSeconds, this.#burst) - this.#left;
    if (stallSeconds > this.#max) return Number.POSITIVE_INFINITY;
    return missing > 0 ? missing / this.#share : 0;
  }

  spend(atSeconds: number, stallSeconds: number): void {
    this.#refill(atSeconds);
    // A capture that took longer than forecast leaves a debt: the next one waits for it, not for days.
    this.#left -= Math.min(stallSeconds, this.#max);
  }

  #refill(atSeconds: number): void {
    const elapsed = Math.max(0, atSeconds - (this.#atSeconds ?? atSeconds));
    this.#atSeconds = Math.max(atSeconds, this.#atSeconds ?? atSeconds);
    this.#left = Math.min(this.#burst, this.#left + elapsed * this.#share);
  }
}

function milliseconds(seconds: number): string {
  const ms = Math.max(0, seconds) * 1000;
  return `${ms.toFixed(ms > 0 && ms < 1 ? 2 : 0)} ms`;
}

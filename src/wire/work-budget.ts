/**
 * How much work somebody may cause: a share of the time, saved up to a burst. Pure.
 *
 * What a frame costs is known once it was handled: a budget may be overdrawn by one.
 */
export class WorkBudget {
  readonly #share: number;
  readonly #burstSeconds: number;
  #leftSeconds: number;
  #atSeconds: number;

  /** @param share seconds of work in a second */
  constructor(share: number, burstSeconds: number, atSeconds: number) {
    this.#share = share;
    this.#burstSeconds = burstSeconds;
    this.#leftSeconds = burstSeconds;
    this.#atSeconds = atSeconds;
  }

  isSpent(atSeconds: number): boolean {
    this.#earn(atSeconds);
    return this.#leftSeconds <= 0;
  }

  spend(atSeconds: number, seconds: number): void {
    this.#earn(atSeconds);
    this.#leftSeconds -= seconds;
  }

  #earn(atSeconds: number): void {
    const earned = Math.max(0, atSeconds - this.#atSeconds) * this.#share;
    this.#leftSeconds = Math.min(this.#burstSeconds, this.#leftSeconds + earned);
    this.#atSeconds = atSeconds;
  }
}

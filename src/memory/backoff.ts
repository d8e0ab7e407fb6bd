/** When to ask again for what lacked memory. */

const RETRY_SECONDS_MIN = 2;
const RETRY_SECONDS_MAX = 300;
/** After so long without one, a refusal is a new matter. */
const CALM_SECONDS = 120;

/** Waits grow while retries are refused. */
export class Backoff {
  readonly #now: () => number;
  #atSeconds = Number.NEGATIVE_INFINITY;
  #seconds = RETRY_SECONDS_MIN;
  #askedAgain = false;

  /** @param now monotonic seconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** From then on it may be asked. */
  get atSeconds(): number {
    return this.#atSeconds;
  }

  get isOver(): boolean {
    return this.#now() >= this.#atSeconds;
  }

  asked(): void {
    this.#askedAgain = true;
  }

  refused(): void {
    const now = this.#now();
    if (now - this.#atSeconds > CALM_SECONDS) this.#seconds = RETRY_SECONDS_MIN;
    else if (this.#askedAgain) this.#seconds = Math.min(RETRY_SECONDS_MAX, 2 * this.#seconds);
    this.#askedAgain = false;
    this.#atSeconds = now + this.#seconds;
  }
}

/**
 * Announcements for an engine that has told no plan yet, so that there is no policy to hear them, or
 * that sleeps: kept until then. Who was to come meanwhile waits for the start, or its end. Pure.
 */

export interface EarlyArrival {
  readonly inSeconds: number;
  readonly requests: number;
}

/** Announced times that are remembered; of more the furthest ones are forgotten. */
const TIMES_MAX = 16;
const REQUESTS_MAX = 1_000_000;

export class EarlyArrivals {
  /** Requests that should be there, at the last look. */
  #waiting = 0;
  #later: { readonly atSeconds: number; readonly requests: number }[] = [];

  add(nowSeconds: number, { inSeconds, requests }: EarlyArrival): void {
    this.#later.push({ atSeconds: nowSeconds + inSeconds, requests });
    this.#look(nowSeconds);
    this.#later = this.#later.sort((a, b) => a.atSeconds - b.atSeconds).slice(0, TIMES_MAX);
  }

  /** All of them as from now, those who wait as one; nothing is remembered after it. */
  take(nowSeconds: number): EarlyArrival[] {
    this.#look(nowSeconds);
    const later = this.#later.map(({ atSeconds, requests }) => {
      return { inSeconds: atSeconds - nowSeconds, requests };
    });
    const waiting = { inSeconds: 0, requests: this.#waiting };
    this.#waiting = 0;
    this.#later = [];
    return waiting.requests > 0 ? [waiting, ...later] : later;
  }

  #look(nowSeconds: number): void {
    for (const { atSeconds, requests } of this.#later) {
      if (atSeconds <= nowSeconds) this.#waiting += requests;
    }
    this.#waiting = Math.min(REQUESTS_MAX, this.#waiting);
    this.#later = this.#later.filter(({ atSeconds }) => atSeconds > nowSeconds);
  }
}

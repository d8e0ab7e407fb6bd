/**
 * Requests of a live engine: those of its trace, and those submitted from outside, each with a tag,
 * which are none of the trace's.
 */

import type { RequestSample } from "../model/batcher.ts";

type OnToken = (tokensLeft: number) => void;

/** The trace is over and every request of it has ended. */
export interface Drained {
  /** Simulated, of the last one. */
  readonly atSeconds: number;
  readonly requests: number;
  readonly requestsRefused: number;
}

/** Tags come around again after this many. */
const TAG_MAX = 2 ** 31 - 1;

export class LiveRequests {
  readonly #trace: readonly unknown[];
  /** Who hears of the tokens of a submitted request that is under way. */
  readonly #listeners = new Map<number, OnToken>();
  #tag = 0;
  #done = 0;
  #lastCompletionSeconds = 0;
  #submittedDone = 0;
  #submittedRefused = 0;
  #drained = false;

  /** @param trace its requests; empty: there is none */
  constructor(trace: readonly unknown[]) {
    this.#trace = trace;
  }

  nextTag(): number {
    this.#tag = (this.#tag % TAG_MAX) + 1;
    return this.#tag;
  }

  submitted(tag: number, accepted: boolean, onToken: OnToken): void {
    if (accepted) this.#listeners.set(tag, onToken);
    else this.#submittedRefused++;
  }

  /** @returns whether it was under way */
  abandon(tag: number): boolean {
    return this.#listeners.delete(tag);
  }

  token(tag: number, left: number): void {
    const listener = this.#listeners.get(tag);
    if (left === 0) {
      this.#submittedDone++;
      this.#listeners.delete(tag);
    }
    listener?.(left);
  }

  completed(sample: RequestSample): void {
    this.#done++;
    this.#lastCompletionSeconds = sample.completionSeconds;
  }

  /**
   * @param refused requests that the engine refused, submitted ones included
   * @returns undefined while the trace is not over, without one, and after the first time
   */
  drained(refused: number): Drained | undefined {
    const requests = this.#done - this.#submittedDone;
    const requestsRefused = refused - this.#submittedRefused;
    if (this.#drained || this.#trace.length === 0) return undefined;
    if (requests + requestsRefused !== this.#trace.length) return undefined;
    this.#drained = true;
    return { atSeconds: this.#lastCompletionSeconds, requests, requestsRefused };
  }
}

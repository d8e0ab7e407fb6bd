/**
 * The event loop around one engine model: arrivals and ends of activities, in order of time.
 *
 * A request gets to the engine the profile's `frontEndSeconds` after its client sent it. A part of
 * these belongs to the way back of its tokens; all of it comes first here, which leaves its times as
 * its client sees them the same.
 */

import type { TraceRequest } from "../../trace/trace.ts";
import type { EngineModel } from "./engine.ts";

export interface Arrival extends TraceRequest {
  /** Above 0: the engine tells of each of its tokens by this number. @default 0 */
  readonly tag?: number;
}

/** Requests in order of arrival, with a look at the next one. */
export interface Arrivals {
  /** The next request, or undefined when there is none (yet). */
  next: Arrival | undefined;
  /** @param taken whether the engine took it */
  shift(taken: boolean): void;
}

/** Arrivals from a list that is there already. */
export function listArrivals(requests: readonly TraceRequest[]): Arrivals {
  let index = 0;
  return {
    get next() {
      return requests[index];
    },
    shift() {
      index++;
    },
  };
}

export class Drive {
  readonly #model: EngineModel;
  readonly #arrivals: Arrivals;
  #endSeconds = Number.POSITIVE_INFINITY;
  #started = false;

  constructor(model: EngineModel, arrivals: Arrivals) {
    this.#model = model;
    this.#arrivals = arrivals;
  }

  /** Seconds at which something happens next by itself; Infinity: only from outside. */
  get nextSeconds(): number {
    if (!this.#started) return 0;
    return Math.min(this.#arrivalSeconds, this.#endSeconds);
  }

  /** When the next request gets to the engine. */
  get #arrivalSeconds(): number {
    const sentSeconds = this.#arrivals.next?.atSeconds ?? Number.POSITIVE_INFINITY;
    return sentSeconds + this.#model.profile.frontEndSeconds;
  }

  /** Lets everything happen that is due at `now` or earlier. */
  advance(now: number): void {
    if (!this.#started) {
      this.#started = true;
      this.#begin(0);
    }
    for (;;) {
      const arrival = this.#arrivals.next;
      const at = this.#arrivalSeconds;
      if (arrival !== undefined && at <= this.#endSeconds) {
        if (at > now) return;
        const { atSeconds, promptTokens, outputTokens, tag = 0 } = arrival;
        this.#arrivals.shift(this.#model.arrive(at, promptTokens, outputTokens, tag, atSeconds));
        this.poke(at);
      } else {
        if (this.#endSeconds > now) return;
        const end = this.#endSeconds;
        this.#endSeconds = Number.POSITIVE_INFINITY;
        this.#model.finish(end);
        this.#begin(end);
      }
    }
  }

  /** Something came from outside: an engine that does nothing looks at it now. */
  poke(now: number): void {
    if (this.#started && this.#endSeconds === Number.POSITIVE_INFINITY) this.#begin(now);
  }

  #begin(now: number): void {
    const activity = this.#model.begin(now);
    this.#endSeconds = "seconds" in activity ? now + activity.seconds : Number.POSITIVE_INFINITY;
  }
}

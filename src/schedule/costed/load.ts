/**
 * How loaded the engine is: the requests it has, and how close it is to saturation.
 *
 * Utilisation is the share of the time that goes into work proportional to requests: what a step
 * took beyond the cost of its size in a graph. A busy engine spends all of its time in steps, but
 * what it spends on these costs it can still win back with larger batches. As the share nears 1 it
 * can't, the queue grows without end, and every second lost delays whoever comes.
 */

import type { StepsSeen } from "../policy.ts";
import type { Costs } from "./cost.ts";
import type { Bucket } from "./shapes.ts";

/** Long enough for bursts to even out, short enough to follow a rising load. */
const HALF_LIFE_SECONDS = 30;
/** What was at hand a moment ago: several steps of a busy engine, and a part of a burst. */
const MOMENT_HALF_LIFE_SECONDS = 5;
/** So much less than a moment ago is no chance: the requests at hand go. */
const FALLING_SHARE = 0.85;
/** A seeming idleness at first: the requests that wait at ready are no measure of the load. */
const PRIOR_SECONDS = 10;
/** Bins of the requests at hand, four to an octave. */
const BINS_PER_OCTAVE = 4;
const BINS = 64;
/** Half an hour's fading; an engine that was silent for days has one of infinity, and forgets all. */
const SCALE_MAX = 2 ** 60;

export class EngineLoad {
  /** Seconds in each bin, times the scale: new ones are put down larger, where old ones fade. */
  readonly #moments = new Float64Array(BINS);
  #scale = 1;
  #work = 0;
  #requestSeconds = 0;
  /** Requests at hand a moment ago, on average. */
  #momentAgo = 0;
  #seconds = PRIOR_SECONDS;
  /** Not a number: nothing has passed. */
  #atSeconds = Number.NaN;

  /** Share of the time, from 0 to 1, that can't be won back by larger batches. */
  get utilisation(): number {
    return Math.min(1, this.#work / this.#seconds);
  }

  /** Requests running and waiting, on average. */
  get requests(): number {
    return this.#requestSeconds / this.#seconds;
  }

  /** Whether a backlog or a burst goes: before long fewer are at hand, and a stall is cheaper. */
  isFalling(requests: number): boolean {
    return requests < FALLING_SHARE * this.#momentAgo;
  }

  /** So much time is taken to have passed with so many requests, as in earlier starts. */
  expect(seconds: number, requests: number): void {
    this.#add(requests, seconds);
  }

  /** The time since the last call passed with so many requests, and so much work. */
  pass(atSeconds: number, requests: number, workSeconds: number): void {
    const since = Number.isNaN(this.#atSeconds) ? atSeconds : this.#atSeconds;
    const elapsed = Math.max(0, atSeconds - since);
    this.#atSeconds = atSeconds;
    const old = 2 ** (-elapsed / MOMENT_HALF_LIFE_SECONDS);
    this.#momentAgo = this.#momentAgo * old + requests * (1 - old);
    const fade = 2 ** (-elapsed / HALF_LIFE_SECONDS);
    this.#seconds = this.#seconds * fade + elapsed;
    this.#requestSeconds = this.#requestSeconds * fade + elapsed * requests;
    this.#work = this.#work * fade + workSeconds;
    this.#scale /= fade;
    if (this.#scale > SCALE_MAX) this.#rescale();
    this.#add(requests, elapsed);
  }

  #add(requests: number, seconds: number): void {
    const bin = binOf(requests);
    this.#moments[bin] = (this.#moments[bin] ?? 0) + seconds * this.#scale;
  }

  #rescale(): void {
    for (let bin = 0; bin < BINS; bin++) {
      this.#moments[bin] = (this.#moments[bin] ?? 0) / this.#scale;
    }
    this.#scale = 1;
  }

  /** The share of the recent time with fewer requests at hand than this. */
  belowShare(requests: number): number {
    const own = binOf(requests);
    let below = 0;
    let all = 0;
    for (let bin = 0; bin < BINS; bin++) {
      const seconds = this.#moments[bin] ?? 0;
      all += seconds;
      if (bin < own) below += seconds;
    }
    return all === 0 ? 0 : below / all;
  }
}

/**
 * Seconds of these steps that are proportional to their requests, and no batch wins back.
 *
 * @param bucket theirs; undefined where they are in none
 * @param place of the graph that served them in the plan; -1: none
 */
export function workSeconds(
  costs: Costs,
  seen: StepsSeen,
  bucket: Bucket | undefined,
  place: number,
): number {
  if (!(seen.timed > 0)) return 0;
  const { shapes, graphSecondsByPlace } = costs;
  const lane = bucket?.lane ?? shapes.laneOf(seen);
  const size = bucket?.size ?? -1;
  const ungraphed = costs.ungraphedBySize(lane.uniform > 0);
  // What a padded or ungraphed step costs more than it must isn't work either.
  const fixed =
    size < 0 ? ungraphed[0] : (graphSecondsByPlace[place] ?? ungraphed[size] ?? ungraphed[0]);
  return seen.count * Math.max(0, seen.seconds / seen.timed - (fixed ?? 0));
}

function binOf(requests: number): number {
  return Math.min(BINS - 1, Math.floor(BINS_PER_OCTAVE * Math.log2(Math.max(1, requests))));
}

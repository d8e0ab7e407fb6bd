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
/**
 * Where its numbers are: side by side, since of many engines none's are in the processor's cache. A
 * moment ago: requests at hand then, on average.
 */
const AT = {
  seconds: 0,
  requestSeconds: 1,
  work: 2,
  scale: 3,
  now: 4,
  momentAgo: 5,
  bins: 8,
} as const;

export class EngineLoad {
  /** From `bins` on seconds in each bin, times the scale: new ones are put down larger, where old
   * ones fade. */
  readonly #numbers = new Float64Array(AT.bins + BINS);

  constructor() {
    this.#numbers[AT.seconds] = PRIOR_SECONDS;
    this.#numbers[AT.scale] = 1;
    // Nothing has passed.
    this.#numbers[AT.now] = Number.NaN;
  }

  /** Share of the time, from 0 to 1, that can't be won back by larger batches. */
  get utilisation(): number {
    return Math.min(1, this.#at(AT.work) / this.#at(AT.seconds));
  }

  /** Requests running and waiting, on average. */
  get requests(): number {
    return this.#at(AT.requestSeconds) / this.#at(AT.seconds);
  }

  /** Whether a backlog or a burst goes: before long fewer are at hand, and a stall is cheaper. */
  isFalling(requests: number): boolean {
    return requests < FALLING_SHARE * this.#at(AT.momentAgo);
  }

  /** So much time is taken to have passed with so many requests, as in earlier starts. */
  expect(seconds: number, requests: number): void {
    this.#add(requests, seconds);
  }

  /** The time since the last call passed with so many requests, and so much work. */
  pass(atSeconds: number, requests: number, workSeconds: number): void {
    const numbers = this.#numbers;
    const before = this.#at(AT.now);
    const elapsed = Math.max(0, atSeconds - (Number.isNaN(before) ? atSeconds : before));
    const old = 2 ** (-elapsed / MOMENT_HALF_LIFE_SECONDS);
    numbers[AT.momentAgo] = this.#at(AT.momentAgo) * old + requests * (1 - old);
    const fade = 2 ** (-elapsed / HALF_LIFE_SECONDS);
    numbers[AT.now] = atSeconds;
    numbers[AT.seconds] = this.#at(AT.seconds) * fade + elapsed;
    numbers[AT.requestSeconds] = this.#at(AT.requestSeconds) * fade + elapsed * requests;
    numbers[AT.work] = this.#at(AT.work) * fade + workSeconds;
    numbers[AT.scale] = this.#at(AT.scale) / fade;
    if (this.#at(AT.scale) > SCALE_MAX) this.#rescale();
    this.#add(requests, elapsed);
  }

  #add(requests: number, seconds: number): void {
    const bin = AT.bins + binOf(requests);
    this.#numbers[bin] = this.#at(bin) + seconds * this.#at(AT.scale);
  }

  #rescale(): void {
    const scale = this.#at(AT.scale);
    for (let bin = AT.bins; bin < AT.bins + BINS; bin++) this.#numbers[bin] = this.#at(bin) / scale;
    this.#numbers[AT.scale] = 1;
  }

  #at(place: number): number {
    return this.#numbers[place] ?? 0;
  }

  /** The share of the recent time with fewer requests at hand than this. */
  belowShare(requests: number): number {
    const own = binOf(requests);
    let below = 0;
    let all = 0;
    for (let bin = 0; bin < BINS; bin++) {
      const seconds = this.#at(AT.bins + bin);
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
  // What a padded or ungraphed step costs more than it must isn't work either.
  const graph = size < 0 ? undefined : graphSecondsByPlace[place];
  const fixed = graph ?? ungraphedSeconds(costs.ungraphedBySize(lane.uniform > 0), size);
  return seen.count * Math.max(0, seen.seconds / seen.timed - fixed);
}

function ungraphedSeconds(bySize: Float64Array, size: number): number {
  return bySize[size] ?? bySize[0] ?? 0;
}

function binOf(requests: number): number {
  return Math.min(BINS - 1, Math.floor(BINS_PER_OCTAVE * Math.log2(Math.max(1, requests))));
}

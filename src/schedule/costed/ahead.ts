/**
 * Captures ahead of a rising load: graphs for batches larger than the engine has now.
 *
 * A saturated engine is the worst place to capture in: a lost second delays every request until the
 * queue is gone. So what a rise of the load would need is captured before, at a cheap moment.
 *
 * With `m` requests at hand a decode step takes `T(m)`, the time of its graph, and besides there is
 * work in proportion to requests, `w` seconds for each in the time of a step: prompts and attention.
 * So `m` requests are served at a rate of `m / (T(m) + w·m)` steps a second, and a load that is
 * higher than today's by the ratio of this to the rate now makes the batch so large. `w` follows
 * from the utilisation `u`, the share of the time that is such work: `w·n = T(n)·u / (1 − u)`. Loads
 * higher by a factor `y` come with a chance of `y^(−1/RISE)`.
 *
 * Before the first step nothing is known but who waits. A load is then as likely in any octave: a
 * batch `y` times as large comes with a chance of `1/y`.
 */

import type { Graph } from "../../base/graph.ts";
import type { Knowledge } from "./knowledge.ts";
import type { EngineLoad } from "./load.ts";
import type { Savings } from "./savings.ts";
import { HELD, type Held, type Lane } from "./shapes.ts";

export interface AheadLoad {
  /** Requests at hand, on average. */
  readonly requests: number;
  /** The share of the time that is work, from 0 to 1; undefined: no step has been seen yet. */
  readonly utilisation: number | undefined;
}

export interface AheadInput {
  readonly savings: Savings;
  readonly held: Held;
  readonly engine: AheadLoad;
  /** Tokens of each request in a decode step: prompts are no larger under load. */
  readonly decode: number;
  /** Request-seconds that a capture of so many seconds costs now. */
  readonly priceOf: (stallSeconds: number) => number;
}

export interface AheadChoice {
  readonly graph: Graph;
  /** Request-seconds that it is expected to spare. */
  readonly value: number;
  readonly price: number;
  /** How much higher the load would have to be. */
  readonly rise: number;
}

/** A load higher by this share comes with a chance of 1 in e. */
const RISE = 1 / 6;
/** Above, a rate has no end, and any batch is in reach. */
const UTILISATION_MAX = 0.99;
/** A rising load stays that long in each octave of batch sizes. */
const SECONDS_PER_OCTAVE = 30;
/** One that nothing is known of yet, as long as it takes to know it. */
const UNKNOWN_SECONDS_PER_OCTAVE = 5;
/** Who captures only when it is needed pays its price, and as much again in regret before that. */
const LATE_FACTOR = 2;
/** A rise may not come: what goes into it is bounded apart, at two to five captures in a row. */
export const AHEAD_BUDGET = { burstSeconds: 0.1, share: 0.002 };
/**
 * With more of them prompts go on for long, and their steps are mixed ones. Meanwhile many more come:
 * then graphs for larger batches are captured ahead, before the first step.
 */
export const WAITING_AHEAD_MAX = 48;
/** More than this share of the largest batch is a backlog of a long start: it goes, and won't grow. */
const BACKLOG_SHARE = 0.25;
/** A moment is cheap when at most this share of the recent time had fewer requests at hand. */
export const CHEAP_SHARE = 0.1;

/** Whether next to never so few requests were at hand of late. */
export function isCheapMoment(engine: EngineLoad, requests: number): boolean {
  return engine.belowShare(requests) <= CHEAP_SHARE;
}

/** What is known of the load; where many wait and no step was seen, they are all that is. */
export function loadAhead(
  requests: number,
  { load, traffic, costs, decode }: Pick<Knowledge, "load" | "traffic" | "costs" | "decode">,
): AheadLoad {
  const most = (BACKLOG_SHARE * costs.shapes.tokensMax) / decode;
  const many = requests > WAITING_AHEAD_MAX && requests <= most && traffic.steps === 0;
  return many ? { requests, utilisation: undefined } : load;
}

/** The graph worth most for its price, if any is worth it. */
export function aheadChoice(input: AheadInput): AheadChoice | undefined {
  const { savings, held, engine, decode } = input;
  if (held.missing === 0) return undefined;
  const { costs } = savings;
  const { sizes, octaves } = costs.shapes;
  const lane = costs.shapes.laneOf({ tokens: decode, requests: 1, uniform: decode });
  const { available } = savings.lane(lane, held);
  const rises = risesTo(input, lane, available);
  const chances = new Float64Array(sizes.length);
  const weights = new Float64Array(sizes.length);
  const secondsPerOctave =
    engine.utilisation === undefined ? UNKNOWN_SECONDS_PER_OCTAVE : SECONDS_PER_OCTAVE;
  for (let size = 0; size < sizes.length; size++) {
    const rise = rises[size] ?? 0;
    const chance = chanceOf(rise, engine);
    chances[size] = chance;
    if (rise <= 1) continue;
    const steps = (secondsPerOctave * (octaves[size] ?? 0)) / (available[size] ?? 1);
    weights[size] = chance * ((sizes[size] ?? 0) / decode) * steps;
  }
  const values = savings.of(held, [{ lane, weights }]);
  const { planned } = costs.shapes;
  // Attention is outside a PIECEWISE graph: a FULL one takes no longer, whatever little is known.
  const full = lane.places.some((place) => planned[place]?.kind === "FULL");
  let best: AheadChoice | undefined;
  let bestRate = 0;
  for (let index = 0; index < lane.places.length; index++) {
    const place = lane.places[index] ?? 0;
    const value = values[place] ?? 0;
    if (value === 0 || held.at[place] !== HELD.missing) continue;
    if (full && planned[place]?.kind !== "FULL") continue;
    const stallSeconds = costs.captureSecondsByPlace[place] ?? 0;
    const reach = lane.reach[index] ?? 0;
    const requests = (sizes[reach] ?? 0) / decode;
    const late = LATE_FACTOR * (chances[reach] ?? 0) * stallSeconds * requests;
    const price = input.priceOf(stallSeconds);
    const graph = planned[place];
    if (graph === undefined || Math.min(value, late) < price || value / price <= bestRate) continue;
    best = { graph, value: Math.min(value, late), price, rise: rises[reach] ?? 0 };
    bestRate = value / price;
  }
  return best;
}

/** How much higher the load must be for a batch of each size. */
function risesTo(
  { savings, engine, decode }: AheadInput,
  lane: Lane,
  available: Float64Array,
): Float64Array {
  const { sizes, sizeOf } = savings.costs.shapes;
  const now = Math.max(1, engine.requests);
  const rises = new Float64Array(sizes.length);
  if (engine.utilisation === undefined) {
    for (let size = 0; size < rises.length; size++) rises[size] = (sizes[size] ?? 0) / decode / now;
    return rises;
  }
  const seconds = idealSeconds(savings, lane, available);
  const secondsNow = seconds[Math.min(sizeOf(now * decode), sizes.length - 1)] ?? 0;
  const utilisation = Math.min(UTILISATION_MAX, engine.utilisation);
  const work = (secondsNow * utilisation) / (1 - utilisation) / now;
  const rateNow = now / (secondsNow + work * now);
  for (let size = 0; size < rises.length; size++) {
    const requests = (sizes[size] ?? 0) / decode;
    rises[size] = requests / ((seconds[size] ?? 0) + work * requests) / rateNow;
  }
  return rises;
}

/** Seconds of a step of each size with its own graph, captured or not. */
function idealSeconds({ costs }: Savings, lane: Lane, available: Float64Array): Float64Array {
  const ideal = new Float64Array(available);
  let cheapest = Number.POSITIVE_INFINITY;
  let index = lane.places.length - 1;
  for (let size = ideal.length - 1; size >= 0; size--) {
    for (; index >= 0 && (lane.reach[index] ?? 0) >= size; index--) {
      cheapest = Math.min(
        cheapest,
        costs.graphSecondsByPlace[lane.places[index] ?? -1] ?? cheapest,
      );
    }
    ideal[size] = Math.min(ideal[size] ?? cheapest, cheapest);
  }
  return ideal;
}

function chanceOf(rise: number, { utilisation }: AheadLoad): number {
  if (rise <= 1) return 1;
  return utilisation === undefined ? 1 / rise : rise ** (-1 / RISE);
}

/** What a start expects: the steps of earlier ones, and those of the requests that wait for it. */

import { caseOf, type StepShape } from "../../base/graph.ts";
import type { Costs } from "./cost.ts";
import { IDLE_REQUESTS } from "./earned.ts";
import type { Prior, PriorTraffic } from "./prior.ts";
import type { LaneWeights } from "./savings.ts";
import type { Lane, Shapes } from "./shapes.ts";

/** While the prompts of those who waited are computed, half as many arrive. */
const ARRIVING_FACTOR = 1.5;
/**
 * An engine that runs a single request in a larger share of its steps has none now and then. With
 * arrivals at random that is one with at most eight requests on average.
 */
const RESTS_SHARE = 0.0025;

/** The traffic of earlier starts. */
export interface Expected {
  /** Request-steps. */
  readonly requestSteps: readonly LaneWeights[];
  /** Steps, in the same lanes. */
  readonly steps: readonly LaneWeights[];
  /** Rising numbers of requests at hand, from idle on, and the share of time with at most so many. */
  readonly requests: readonly { readonly requests: number; readonly share: number }[];
  /** Seconds that its steps took. */
  readonly seconds: number;
  /** Requests at hand, on average, and the share of the time that was work; undefined: not known. */
  readonly load: { readonly requests: number; readonly utilisation: number } | undefined;
  /** An idle engine captures the rest without holding up anybody. */
  readonly rests: boolean;
}

/** The steps of earlier starts, as they were. */
export function expectedOf({ traffic, load }: Prior, costs: Costs, idleMode: boolean): Expected {
  const { shapes } = costs;
  const requestSteps = new Lanes(shapes);
  const steps = new Lanes(shapes);
  const rows = traffic.filter((row) => row.steps > 0);
  const all = rows.reduce((sum, row) => sum + row.steps, 0);
  let alone = 0;
  let two = 0;
  let seconds = 0;
  for (const row of rows) {
    const step = stepOf(row);
    requestSteps.add(step, row.requestSteps);
    steps.add(step, row.steps);
    const size = shapes.sizeOf(row.tokens);
    seconds += row.steps * (costs.ungraphedBySize(row.uniform > 0)[size] ?? 0);
    if (row.uniform > 0 && row.tokens <= row.uniform) alone += row.steps;
    else if (row.uniform > 0 && row.tokens <= 2 * row.uniform) two += row.steps;
  }
  const idle = idleSteps(alone, two);
  const moments = all + idle;
  let below = idle;
  const busy = rows
    .map((row) => ({ requests: row.requestSteps / row.steps, steps: row.steps }))
    .sort((a, b) => a.requests - b.requests)
    .map((row) => {
      below += row.steps;
      return { requests: row.requests, share: below / moments };
    });
  const requests = idle > 0 ? [{ requests: IDLE_REQUESTS, share: idle / moments }, ...busy] : busy;
  const mean = rows.reduce((sum, row) => sum + row.requestSteps, 0) / all;
  const timed = load !== undefined && load.seconds > 0 && all > 0;
  return {
    requestSteps: requestSteps.weights(),
    steps: steps.weights(),
    requests,
    seconds,
    load: timed
      ? { requests: mean, utilisation: Math.min(1, load.workSeconds / load.seconds) }
      : undefined,
    rests: idleMode && alone > RESTS_SHARE * all,
  };
}

/**
 * The time that an engine had no request at hand, in steps: as with arrivals at random, where the
 * number at hand is distributed after Poisson.
 */
function idleSteps(alone: number, two: number): number {
  return alone === 0 ? 0 : alone ** 2 / (2 * Math.max(two, 1));
}

/** Requests that will decode together, of so many that wait for the start. */
export function expectedRunning(waiting: number): number {
  return Math.ceil(ARRIVING_FACTOR * waiting);
}

/** The first `count` decode steps of so many requests that wait for the start. */
export function firstSteps(
  requests: number,
  decode: number,
  count: number,
  shapes: Shapes,
): LaneWeights[] {
  if (requests === 0) return [];
  const lanes = new Lanes(shapes);
  const running = expectedRunning(requests);
  lanes.add({ tokens: running * decode, requests: running, uniform: decode }, count * running);
  return lanes.weights();
}

/** A row of the prior as a step: the one that its others are padded to. */
export function stepOf(row: PriorTraffic): StepShape {
  const { tokens, uniform } = row;
  const requests = uniform > 0 ? Math.ceil(tokens / uniform) : 1;
  return { tokens, requests, uniform, ...caseOf(row) };
}

/** Weights by lane, of steps as they come. */
class Lanes {
  readonly #shapes: Shapes;
  readonly #lanes = new Map<Lane, Float64Array>();

  constructor(shapes: Shapes) {
    this.#shapes = shapes;
  }

  add(step: StepShape, weight: number): void {
    const bucket = this.#shapes.bucketOf(step);
    if (bucket === undefined) return;
    let weights = this.#lanes.get(bucket.lane);
    if (weights === undefined) {
      weights = new Float64Array(this.#shapes.sizes.length);
      this.#lanes.set(bucket.lane, weights);
    }
    weights[bucket.size] = (weights[bucket.size] ?? 0) + weight;
  }

  weights(): LaneWeights[] {
    return [...this.#lanes].map(([lane, weights]) => ({ lane, weights }));
  }
}

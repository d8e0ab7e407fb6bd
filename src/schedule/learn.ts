/** What a start learns for the next one, and how it goes together with what was known before. */

import type { StepShape } from "../graph.ts";
import type { Prior, PriorTraffic } from "./prior.ts";
import type { LaneWeights, Savings } from "./savings.ts";
import { HELD, Held, type Shapes } from "./shapes.ts";

/** Graphs named at most: more would delay a start without end. */
const FIRST_MAX = 64;

/** All steps of one start by size, none forgotten. */
export class Tally {
  readonly #shapes: Shapes;
  readonly #rows = new Map<string, { -readonly [K in keyof PriorTraffic]: PriorTraffic[K] }>();

  constructor(shapes: Shapes) {
    this.#shapes = shapes;
  }

  add(step: StepShape, count: number, requests: number): void {
    const tokens = this.#shapes.sizes[this.#shapes.sizeOf(step.tokens)];
    if (tokens === undefined) return;
    const uniform = this.#shapes.isUniform(step) ? step.uniform : 0;
    const key = `${tokens}/${uniform}`;
    const row = this.#rows.get(key);
    if (row === undefined) {
      this.#rows.set(key, { tokens, uniform, requestSteps: count * requests, steps: count });
    } else {
      row.requestSteps += count * requests;
      row.steps += count;
    }
  }

  traffic(): PriorTraffic[] {
    return [...this.#rows.values()].map((row) => ({ ...row }));
  }
}

/**
 * Both together. A start that saw as many steps as are known from before halves these; one that saw
 * next to nothing leaves them as they are.
 */
export function mergeTraffic(
  before: readonly PriorTraffic[],
  own: readonly PriorTraffic[],
): PriorTraffic[] {
  const share = stepsOf(own) / Math.max(1, stepsOf(before));
  const kept = 2 ** -Math.min(1, share);
  const merged = new Map<string, PriorTraffic>();
  const add = (row: PriorTraffic, factor: number): void => {
    const key = `${row.tokens}/${row.uniform}`;
    const known = merged.get(key);
    merged.set(key, {
      tokens: row.tokens,
      uniform: row.uniform,
      requestSteps: (known?.requestSteps ?? 0) + factor * row.requestSteps,
      steps: (known?.steps ?? 0) + factor * row.steps,
    });
  };
  for (const row of before) add(row, kept);
  for (const row of own) add(row, 1);
  return [...merged.values()].sort((a, b) => a.uniform - b.uniform || a.tokens - b.tokens);
}

export function stepsOf(traffic: readonly PriorTraffic[]): number {
  return traffic.reduce((sum, { steps }) => sum + steps, 0);
}

/** A step that stands for a row of the prior; its requests are what the row's steps had each. */
export function stepOf({ tokens, uniform }: PriorTraffic): StepShape {
  return { tokens, requests: uniform > 0 ? Math.ceil(tokens / uniform) : 1, uniform };
}

/**
 * The graphs that this traffic needs besides the captured ones, by value per second of stall, each
 * given those before it; as long as a graph spares more than its own stall.
 */
export function neededGraphs(
  savings: Savings,
  captured: Iterable<number>,
  traffic: Prior["traffic"],
): string[] {
  const { captureSecondsByPlace, shapes } = savings.costs;
  const held = new Held(shapes.planned.length);
  for (const place of captured) held.set(place, HELD.captured);
  const lanes = lanesOf(shapes, traffic);
  const first: string[] = [];
  while (first.length < FIRST_MAX) {
    const values = savings.of(held, lanes);
    let best = -1;
    let bestRate = 1;
    for (let place = 0; place < values.length; place++) {
      const rate = (values[place] ?? 0) / (captureSecondsByPlace[place] ?? 1);
      if (rate <= bestRate) continue;
      best = place;
      bestRate = rate;
    }
    const graph = shapes.planned[best];
    if (graph === undefined) return first;
    first.push(graph.id);
    held.set(best, HELD.captured);
  }
  return first;
}

function lanesOf(shapes: Shapes, traffic: Prior["traffic"]): LaneWeights[] {
  const lanes = new Map<LaneWeights["lane"], LaneWeights>();
  for (const row of traffic) {
    const bucket = shapes.bucketOf(stepOf(row));
    if (bucket === undefined) continue;
    let entry = lanes.get(bucket.lane);
    if (entry === undefined) {
      entry = { lane: bucket.lane, weights: new Float64Array(shapes.sizes.length) };
      lanes.set(bucket.lane, entry);
    }
    entry.weights[bucket.size] = (entry.weights[bucket.size] ?? 0) + row.requestSteps;
  }
  return [...lanes.values()];
}

import type { Graph, StepShape } from "../../src/base/graph.ts";
import type { CostSeed } from "../../src/schedule/costed/cost.ts";
import { HELD, Held } from "../../src/schedule/costed/shapes.ts";
import type { StepsSeen } from "../../src/schedule/policy.ts";

/** An engine in whole milliseconds: graphs take 5 ms and 1 more from 100 tokens on, no graph 10. */
export const SEED: CostSeed = {
  full: [
    [1, 0.005],
    [64, 0.005],
    [128, 0.006],
    [512, 0.014],
  ],
  piecewise: [
    [1, 0.006],
    [64, 0.006],
    [128, 0.007],
    [512, 0.015],
  ],
  ungraphed: [
    [1, 0.01],
    [256, 0.01],
    [512, 0.014],
  ],
  secondsPerRequest: 0,
  secondsPerContextToken: 0,
  captures: new Map(),
};

export const decode = (tokens: number): StepShape => ({ tokens, requests: tokens, uniform: 1 });
export const mixed = (tokens: number): StepShape => ({ tokens, requests: 2, uniform: 0 });

/** A report of `count` steps that took `secondsEach`. */
export function seen(
  step: StepShape,
  served: string,
  count: number,
  secondsEach: number,
  contextTokens = 0,
): StepsSeen {
  return { ...step, served, count, timed: count, seconds: count * secondsEach, contextTokens };
}

/** Everything missing but the named graphs. */
export function heldOf(planned: readonly Graph[], ...captured: readonly string[]): Held {
  const held = new Held(planned.length);
  for (const [place, { id }] of planned.entries()) {
    if (captured.includes(id)) held.set(place, HELD.captured);
  }
  return held;
}

export function graphOf(planned: readonly Graph[], id: string): Graph {
  const graph = planned.find((candidate) => candidate.id === id);
  if (graph === undefined) throw new Error(`no graph ${id}`);
  return graph;
}

/** Steps of one shape counted together, as telemetry reports them. */

import { caseKey, type StepCase } from "../../base/graph.ts";
import { LIMITS, type StepCount } from "../../wire/protocol.ts";

/** One step, as the engine saw it. */
export type StepSeen = Omit<StepCount, "count" | "timed">;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class StepCounts {
  /** Steps that found no place in their batch, since the start. */
  dropped = 0;
  /** In the order in which their first steps came. */
  #counts: Mutable<StepCount>[] = [];
  /** By what served the step, then by its shape. */
  #places = new Map<string, Map<number | string, Mutable<StepCount>>>();

  get empty(): boolean {
    return this.#counts.length === 0;
  }

  add(step: StepSeen): void {
    let shapes = this.#places.get(step.served);
    if (shapes === undefined) {
      shapes = new Map();
      this.#places.set(step.served, shapes);
    }
    const key = shapeKey(step);
    const count = shapes.get(key);
    if (count !== undefined) {
      count.count++;
      count.timed++;
      count.seconds += step.seconds;
      count.contextTokens += (step.contextTokens - count.contextTokens) / count.count;
    } else if (this.#counts.length < LIMITS.stepsPerBatch) {
      const first = { ...step, count: 1, timed: 1 };
      shapes.set(key, first);
      this.#counts.push(first);
    } else {
      this.dropped++;
    }
  }

  /** What was counted since the last call. */
  take(): StepCount[] {
    const counts = this.#counts;
    this.#counts = [];
    this.#places.clear();
    return counts;
  }
}

/** A number for the shapes that nearly all steps have: making text of it costs more than counting. */
function shapeKey(step: StepSeen): number | string {
  const { tokens, requests, uniform } = step;
  if (isPlain(step) && tokens < 2 ** 24 && requests < 2 ** 14 && uniform < 2 ** 14) {
    return (tokens * 2 ** 14 + requests) * 2 ** 14 + uniform;
  }
  return `${tokens}/${requests}/${uniform}/${caseKey(step)}`;
}

function isPlain({ loras = 0, queryLength, microbatches = 1 }: StepCase): boolean {
  return loras === 0 && queryLength === undefined && microbatches === 1;
}

/** Steps of one shape counted together, as telemetry reports them. */

import { caseKey, caseOf } from "../../base/graph.ts";
import { LIMITS, type StepCount } from "../../wire/protocol.ts";

/** One step, as the engine saw it. */
export type StepSeen = Omit<StepCount, "count" | "timed">;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A batch has a few shapes most often: up to so many are looked through one by one. */
const SCANNED_MAX = 16;

export class StepCounts {
  /** Steps that found no place in their batch, since the start. */
  dropped = 0;
  #counts: Mutable<StepCount>[] = [];
  readonly #timedMax: number;
  /** By shape, of a batch with more of them. */
  #index: Map<string, Mutable<StepCount>> | undefined;

  /** @param timedMax steps of one shape in a batch whose seconds are told */
  constructor(timedMax: number = Number.POSITIVE_INFINITY) {
    this.#timedMax = timedMax;
  }

  get empty(): boolean {
    return this.#counts.length === 0;
  }

  add(step: StepSeen): void {
    const count = this.#find(step);
    if (count !== undefined) {
      count.count++;
      if (count.timed >= this.#timedMax) return;
      count.timed++;
      count.seconds += step.seconds;
      count.contextTokens += (step.contextTokens - count.contextTokens) / count.timed;
    } else if (this.#counts.length < LIMITS.stepsPerBatch) this.#open(step);
    else this.dropped++;
  }

  #find(step: StepSeen): Mutable<StepCount> | undefined {
    if (this.#index !== undefined) return this.#index.get(shapeKey(step));
    // The next step is most often like one of the last ones.
    for (let index = this.#counts.length - 1; index >= 0; index--) {
      const count = this.#counts[index];
      if (count !== undefined && isAlike(count, step)) return count;
    }
    return undefined;
  }

  #open(step: StepSeen): void {
    // Field by field: a spread takes ten times as long, a hundred times a second.
    const { tokens, requests, uniform, served, seconds, contextTokens } = step;
    const count: Mutable<StepCount> = {
      tokens,
      requests,
      uniform,
      served,
      seconds,
      contextTokens,
      count: 1,
      timed: 1,
    };
    if (hasCase(step)) Object.assign(count, caseOf(step));
    this.#counts.push(count);
    if (this.#counts.length > SCANNED_MAX) {
      this.#index ??= new Map(this.#counts.map((other) => [shapeKey(other), other]));
      this.#index.set(shapeKey(count), count);
    }
  }

  /** What was counted since the last call. */
  take(): StepCount[] {
    const counts = this.#counts;
    this.#counts = [];
    this.#index = undefined;
    return counts;
  }
}

function shapeKey(step: StepSeen): string {
  const { tokens, requests, uniform, served } = step;
  return `${tokens}/${requests}/${uniform}/${caseKey(step)}/${served}`;
}

function hasCase({ loras, queryLength, microbatches }: StepSeen): boolean {
  return loras !== undefined || queryLength !== undefined || microbatches !== undefined;
}

function isAlike(a: StepSeen, b: StepSeen): boolean {
  return (
    a.tokens === b.tokens &&
    a.requests === b.requests &&
    a.uniform === b.uniform &&
    a.served === b.served &&
    (a.loras ?? 0) === (b.loras ?? 0) &&
    (a.queryLength ?? 0) === (b.queryLength ?? 0) &&
    (a.microbatches ?? 1) === (b.microbatches ?? 1)
  );
}

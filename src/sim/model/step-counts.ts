/** Steps of one shape counted together, as telemetry reports them. */

import { caseKey } from "../../base/graph.ts";
import { LIMITS, type StepCount } from "../../wire/protocol.ts";

/** One step, as the engine saw it. */
export type StepSeen = Omit<StepCount, "count" | "timed">;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class StepCounts {
  /** Steps that found no place in their batch, since the start. */
  dropped = 0;
  #counts = new Map<string, Mutable<StepCount>>();

  get empty(): boolean {
    return this.#counts.size === 0;
  }

  add(step: StepSeen): void {
    const shape = `${step.tokens}/${step.requests}/${step.uniform}/${caseKey(step)}`;
    const key = `${shape}/${step.served}`;
    const count = this.#counts.get(key);
    if (count !== undefined) {
      count.count++;
      count.timed++;
      count.seconds += step.seconds;
      count.contextTokens += (step.contextTokens - count.contextTokens) / count.count;
    } else if (this.#counts.size < LIMITS.stepsPerBatch) {
      this.#counts.set(key, { ...step, count: 1, timed: 1 });
    } else {
      this.dropped++;
    }
  }

  /** What was counted since the last call. */
  take(): StepCount[] {
    const counts = [...this.#counts.values()];
    this.#counts = new Map();
    return counts;
  }
}

/**
 * Timed steps by what served them, as a calibration collects them. Pure.
 *
 * A report of the engine's holds the sum over the steps of one shape since the last one; its mean
 * counts as one observation with the number of its steps as its weight.
 */

import type { StepsSeen } from "../schedule/policy.ts";

export interface Observation {
  /** Graph that served; empty: none. */
  readonly served: string;
  readonly tokens: number;
  readonly requests: number;
  readonly uniform: number;
  /** Mean context of its requests, in tokens. */
  readonly contextTokens: number;
  /** Mean of a step. */
  readonly seconds: number;
  /** Steps behind it. */
  readonly weight: number;
}

/** Observations of one shape: more of them tell nothing new. */
const SHAPE_MAX = 512;
const SHAPES_MAX = 32_768;

export class Cells {
  readonly #shapes = new Map<string, Observation[]>();
  readonly #timed = new Map<string, number>();

  add(steps: readonly StepsSeen[]): void {
    for (const seen of steps) {
      const { served, tokens, requests, uniform, contextTokens, seconds, timed } = seen;
      if (!(timed > 0) || !(seconds > 0)) continue;
      // A step attends to its own tokens at least: seconds without context are of a plugin that
      // counts a step in one report and times it in another, and belong to no context we know.
      if (!(contextTokens > 0)) continue;
      const key = `${served} ${tokens} ${requests} ${uniform}`;
      const list = this.#shapes.get(key) ?? [];
      if (list.length >= SHAPE_MAX) continue;
      if (list.length === 0 && this.#shapes.size >= SHAPES_MAX) continue;
      this.#shapes.set(key, list);
      const mean = seconds / timed;
      list.push({ served, tokens, requests, uniform, contextTokens, seconds: mean, weight: timed });
      this.#timed.set(key, (this.#timed.get(key) ?? 0) + timed);
    }
  }

  /** Timed steps of a shape so far. */
  timed(shape: Pick<Observation, "served" | "tokens" | "requests" | "uniform">): number {
    const { served, tokens, requests, uniform } = shape;
    return this.#timed.get(`${served} ${tokens} ${requests} ${uniform}`) ?? 0;
  }

  all(): Observation[] {
    return [...this.#shapes.values()].flat();
  }
}

/** What a simulated engine captures before ready: the graphs it was told, then more while they fit. */

import type { Graph, GraphKind } from "../../base/graph.ts";
import { fitsBudget, type TimedCapture } from "../../schedule/first-budget.ts";

export interface MoreGraphs {
  /** Ids, the most useful first. */
  readonly graphs: readonly string[];
  /** Of all captures before ready. @default a share of what stock would spend, by the captures so far */
  readonly budgetSeconds?: number;
}

export class FirstCaptures {
  readonly #planned: readonly Graph[];
  readonly #order: Graph[];
  readonly #more: Graph[];
  readonly #budgetSeconds: number | undefined;
  readonly #captured: TimedCapture[] = [];

  constructor(
    planned: readonly Graph[],
    order: readonly Graph[],
    more: readonly Graph[],
    budgetSeconds: number | undefined,
  ) {
    this.#planned = planned;
    this.#order = [...order];
    this.#more = more.filter((graph) => !order.includes(graph));
    this.#budgetSeconds = budgetSeconds;
  }

  /** Ids that the budget had no room for, once the engine is ready. */
  get skipped(): readonly string[] {
    return this.#order.length > 0 ? [] : this.#more.map(({ id }) => id);
  }

  /** The next one; undefined: the engine is ready. */
  next(): Graph | undefined {
    const graph = this.#order.shift();
    if (graph !== undefined) return graph;
    const [more] = this.#more;
    // The profile's engine is one that captures once: what a second time takes is in its figures.
    const budget = this.#budgetSeconds === undefined ? {} : { budgetSeconds: this.#budgetSeconds };
    const rule = { twice: false, ...budget };
    if (more === undefined || !fitsBudget(more.kind, this.#planned, this.#captured, rule)) {
      return undefined;
    }
    return this.#more.shift();
  }

  timed(kind: GraphKind, seconds: number, warmUp: boolean): void {
    this.#captured.push({ kind, seconds, warmUp });
  }
}

/** What a simulated engine captures before ready, in which order, and what its budget leaves out. */

import { type Graph, topGraphs } from "../graph.ts";

export class FirstSet {
  /** Ids of graphs left out because the budget was used. */
  readonly skipped: string[] = [];
  readonly #order: Graph[];
  readonly #tops: ReadonlySet<Graph>;
  readonly #budgetSeconds: number;

  /**
   * @param graphs to be captured, in this order
   * @param budgetMs milliseconds of capture from which on only the tops of `graphs` are begun;
   *   infinity: no limit
   */
  constructor(graphs: readonly Graph[], budgetMs: number) {
    this.#order = [...new Set(graphs)];
    this.#tops = new Set(topGraphs(graphs));
    this.#budgetSeconds = budgetMs / 1000;
  }

  /** @param usedSeconds of capture so far */
  next(usedSeconds: number): Graph | undefined {
    for (let graph = this.#order.shift(); graph !== undefined; graph = this.#order.shift()) {
      if (usedSeconds < this.#budgetSeconds || this.#tops.has(graph)) return graph;
      this.skipped.push(graph.id);
    }
    return undefined;
  }
}

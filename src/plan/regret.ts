/**
 * Seconds that steps took longer than with their ideal graph, by cost estimates that start from a
 * profile and are corrected by the engine's own step times. What policy decides doesn't matter.
 */

import { caseOf, type Graph, idealGraph } from "../base/graph.ts";
import { type CostSeed, type Costs, createCosts } from "../schedule/costed/cost.ts";
import type { StepsSeen } from "../schedule/policy.ts";

export class RegretMeter {
  readonly #planned: readonly Graph[];
  readonly #byId: ReadonlyMap<string, Graph>;
  readonly #costs: Costs;
  /** Uniform lengths that some graph asks for: every other step is a mixed one. */
  readonly #uniforms: ReadonlySet<number>;

  constructor(planned: readonly Graph[], seed: CostSeed) {
    this.#planned = planned;
    this.#byId = new Map(planned.map((graph) => [graph.id, graph]));
    this.#costs = createCosts(planned, seed);
    this.#uniforms = new Set(planned.flatMap(({ uniform }) => uniform ?? []));
  }

  /** Learns from reported steps, and says by how many seconds all of them were late. */
  observe(steps: readonly StepsSeen[]): number {
    let seconds = 0;
    for (const seen of steps) {
      if (!(seen.count > 0)) continue;
      const uniform = this.#uniforms.has(seen.uniform) ? seen.uniform : 0;
      const { tokens, requests } = seen;
      const step = { tokens, requests, uniform, ...caseOf(seen) };
      const ideal = idealGraph(this.#planned, step);
      // Stock would run it without a graph, too.
      if (ideal === undefined) continue;
      this.#costs.observeSteps(uniform === seen.uniform ? seen : { ...seen, uniform });
      if (seen.served === ideal.id) continue;
      const server = this.#byId.get(seen.served);
      const took =
        server === undefined
          ? this.#costs.ungraphedSeconds(step).value
          : this.#costs.graphSeconds(server).value;
      // A larger graph may be estimated as the faster one by noise: that is no gain to book.
      seconds += seen.count * Math.max(0, took - this.#costs.graphSeconds(ideal).value);
    }
    return seconds;
  }
}

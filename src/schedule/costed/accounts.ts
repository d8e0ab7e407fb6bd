/**
 * Accounts of graphs that are not captured: the regret they would have spared so far.
 *
 * This is ski rental (Karlin, Manasse, Rudolph, Sleator, "Competitive snoopy caching", 1988): rent
 * is the regret of each step, buying is the stall of the capture, and who buys when the rent paid
 * reaches the price pays at most twice what somebody pays who knows the future, plus one step.
 *
 * The ledger holds steps, not money: for each bucket how many requests waited on how many of its
 * steps. What a graph would have saved is worked out against what is captured *now*. So a regret
 * that a neighbour has meanwhile removed leaves every account at once: it is shared, not counted
 * twice. New steps are added to the balances as they come; only a change of the captured set or of
 * the costs makes all of them anew.
 */

import type { StepShape } from "../../base/graph.ts";
import type { LaneWeights, Savings } from "./savings.ts";
import type { Held, Lane } from "./shapes.ts";

export class Accounts {
  readonly #savings: Savings;
  readonly #ledger = new Map<Lane, LaneWeights>();
  #balances: Float64Array;
  #held: Held | undefined;
  #version = -1;
  #revision = -1;

  constructor(savings: Savings) {
    this.#savings = savings;
    this.#balances = new Float64Array(savings.costs.shapes.planned.length);
  }

  /** Books `count` steps, each of which `requests` requests waited on. */
  book(step: StepShape, count: number, requests: number): void {
    const { shapes } = this.#savings.costs;
    const bucket = shapes.bucketOf(step);
    if (bucket === undefined) return;
    const { lane, size } = bucket;
    let entry = this.#ledger.get(lane);
    if (entry === undefined) {
      entry = { lane, weights: new Float64Array(shapes.sizes.length) };
      this.#ledger.set(lane, entry);
    }
    const weight = count * requests;
    entry.weights[size] = (entry.weights[size] ?? 0) + weight;
    if (this.#held !== undefined && this.#upToDate(this.#held)) {
      this.#savings.lane(lane, this.#held).addOne(size, weight, this.#held, this.#balances);
    }
  }

  /**
   * Request-seconds that each missing graph would have spared, by its place in the plan: to be read
   * before the next call.
   */
  balances(held: Held): Float64Array {
    if (!this.#upToDate(held)) {
      this.#balances = this.#savings.of(held, this.#ledger.values());
      this.#held = held;
      this.#version = held.version;
      this.#revision = this.#savings.costs.revision;
    }
    return this.#balances;
  }

  /** The part of `of`'s account that capturing `instead` would remove as well. */
  shared(of: number, instead: number, held: Held): number {
    let shared = 0;
    for (const { lane, weights } of this.#ledger.values()) {
      shared += this.#savings.lane(lane, held).shared(of, instead, weights);
    }
    return shared;
  }

  #upToDate(held: Held): boolean {
    return (
      this.#held === held &&
      this.#version === held.version &&
      this.#revision === this.#savings.costs.revision
    );
  }
}

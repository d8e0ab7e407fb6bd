/**
 * Accounts of graphs that are not captured: the regret they would have spared so far.
 *
 * This is ski rental (Karlin, Manasse, Rudolph, Sleator, "Competitive snoopy caching", 1988): rent
 * is the regret of each step, buying is the stall of the capture, and who buys when the rent paid
 * reaches the price pays at most twice what somebody pays who knows the future, plus one step.
 *
 * What is kept is steps, not money: for each bucket how many requests waited on how many of its
 * steps, as the observer counts them, and those that are sure to come. What a graph would have saved is worked out against what is captured *now*. So a regret
 * that a neighbour has meanwhile removed leaves every account at once: it is shared, not counted
 * twice. New steps are added to the balances as they come; only a change of the captured set or of
 * the costs makes all of them anew.
 */

import type { StepShape } from "../../base/graph.ts";
import type { StepsSeen } from "../policy.ts";
import type { Demand } from "./demand.ts";
import type { LaneWeights, Savings } from "./savings.ts";
import type { Held, Lane } from "./shapes.ts";

export class Accounts {
  readonly #savings: Savings;
  readonly #demand: Demand | undefined;
  /** Steps booked before they ran. */
  readonly #ahead = new Map<Lane, LaneWeights>();
  /** Of the demand's, those that the balances have. */
  #added = 0;
  #balances: Float64Array;
  #held: Held | undefined;
  #version = -1;
  #revision = -1;

  /** @param demand the steps that ran. @default none: all are booked by `book` */
  constructor(savings: Savings, demand?: Demand) {
    this.#savings = savings;
    this.#demand = demand;
    this.#balances = new Float64Array(savings.costs.shapes.planned.length);
  }

  /** Books `count` steps to come, each of which `requests` requests will wait on. */
  book(step: StepShape, count: number, requests: number): void {
    const { shapes } = this.#savings.costs;
    const bucket = shapes.bucketOf(step);
    if (bucket === undefined) return;
    const { lane, size } = bucket;
    let entry = this.#ahead.get(lane);
    if (entry === undefined) {
      entry = { lane, weights: new Float64Array(shapes.sizes.length) };
      this.#ahead.set(lane, entry);
    }
    const weight = count * requests;
    entry.weights[size] = (entry.weights[size] ?? 0) + weight;
    this.#add(lane, size, weight);
  }

  /**
   * Steps ran that the demand has counted, and `waiting` requests waited on each besides those in
   * it. Call after each report: then balances are kept.
   */
  ran(steps: readonly StepsSeen[], waiting: number): void {
    const held = this.#held;
    // Balances that are made anew need nothing added, and where no graph is missing none has any.
    if (held === undefined || held.missing === 0 || !this.#upToDate(held)) return;
    const { buckets } = this.#savings.costs.shapes.placed(steps);
    for (let at = 0; at < steps.length; at++) {
      const seen = steps[at];
      const bucket = buckets[at];
      if (seen === undefined || bucket === undefined || !(seen.count > 0)) continue;
      this.#add(bucket.lane, bucket.size, seen.count * (seen.requests + waiting));
      this.#added++;
    }
  }

  #add(lane: Lane, size: number, weight: number): void {
    if (this.#held === undefined || !this.#upToDate(this.#held)) return;
    this.#savings.lane(lane, this.#held).addOne(size, weight, this.#held, this.#balances);
  }

  /**
   * Request-seconds that each missing graph would have spared, by its place in the plan: to be read
   * before the next call.
   */
  balances(held: Held): Float64Array {
    // Whoever missed a report makes all balances anew.
    const missed = this.#demand !== undefined && this.#demand.added !== this.#added;
    if (missed || !this.#upToDate(held)) {
      this.#balances = this.#savings.of(held, this.#steps());
      this.#held = held;
      this.#version = held.version;
      this.#added = this.#demand?.added ?? 0;
      this.#revision = this.#savings.costs.revision;
    }
    return this.#balances;
  }

  /** The part of `of`'s account that capturing `instead` would remove as well. */
  shared(of: number, instead: number, held: Held): number {
    let shared = 0;
    for (const { lane, weights } of this.#steps()) {
      shared += this.#savings.lane(lane, held).shared(of, instead, weights);
    }
    return shared;
  }

  *#steps(): Generator<LaneWeights, void, undefined> {
    for (const { lane, requestSteps } of this.#demand?.lanes ?? []) {
      yield { lane, weights: requestSteps };
    }
    yield* this.#ahead.values();
  }

  #upToDate(held: Held): boolean {
    return (
      this.#held === held &&
      this.#version === held.version &&
      this.#revision === this.#savings.costs.revision
    );
  }
}

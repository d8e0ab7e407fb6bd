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
 * twice.
 */

import type { StepShape } from "../graph.ts";
import type { BucketCosts, Costs } from "./cost.ts";
import { type Bucket, HELD, type Held } from "./shapes.ts";

interface Entry {
  readonly bucket: Bucket;
  /** Sum over its steps of the requests that waited on each. */
  requestSteps: number;
}

export class Accounts {
  readonly #costs: Costs;
  readonly #ledger = new Map<Bucket, Entry>();

  constructor(costs: Costs) {
    this.#costs = costs;
  }

  /** Books `count` steps, each of which `requests` requests waited on. */
  book(step: StepShape, count: number, requests: number): void {
    const bucket = this.#costs.shapes.bucketOf(step);
    if (bucket === undefined) return;
    const entry = this.#ledger.get(bucket);
    if (entry === undefined) this.#ledger.set(bucket, { bucket, requestSteps: count * requests });
    else entry.requestSteps += count * requests;
  }

  /** Request-seconds that each missing graph would have spared, by its place in the plan. */
  balances(held: Held): Float64Array {
    const regrets = new Float64Array(held.length);
    for (const { bucket, requestSteps } of this.#ledger.values()) {
      addSavings(regrets, this.#costs, bucket, held, requestSteps);
    }
    return regrets;
  }

  /** The part of `of`'s account that capturing `instead` would remove as well. */
  shared(of: number, instead: number, held: Held): number {
    let shared = 0;
    for (const { bucket, requestSteps } of this.#ledger.values()) {
      const costs = this.#costs.bucketCosts(bucket);
      const ofSeconds = costs.servers[bucket.servers.indexOf(of)];
      const insteadSeconds = costs.servers[bucket.servers.indexOf(instead)];
      if (ofSeconds === undefined || insteadSeconds === undefined) continue;
      const saved = availableSeconds(costs, bucket, held) - Math.max(ofSeconds, insteadSeconds);
      if (saved > 0) shared += saved * requestSteps;
    }
    return shared;
  }
}

/** Adds to each missing graph what it would save on `weight` steps of a bucket. */
export function addSavings(
  sums: Float64Array,
  costs: Costs,
  bucket: Bucket,
  held: Held,
  weight: number,
): void {
  const bucketCosts = costs.bucketCosts(bucket);
  const available = availableSeconds(bucketCosts, bucket, held);
  const { servers } = bucket;
  for (let index = 0; index < servers.length; index++) {
    const place = servers[index] ?? 0;
    const saved = available - (bucketCosts.servers[index] ?? 0);
    if (saved > 0 && held[place] === HELD.missing) {
      sums[place] = (sums[place] ?? 0) + saved * weight;
    }
  }
}

/** Seconds of a step of the bucket with what is captured: by the cheapest choice. */
function availableSeconds(costs: BucketCosts, { servers }: Bucket, held: Held): number {
  let available = costs.ungraphed;
  for (let index = 0; index < servers.length; index++) {
    const seconds = costs.servers[index] ?? available;
    if (seconds < available && held[servers[index] ?? 0] === HELD.captured) available = seconds;
  }
  return available;
}

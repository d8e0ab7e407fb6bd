/**
 * What missing graphs would save: sums over all steps of a lane, for all graphs at once.
 *
 * A missing graph `g` saves `available - T_g` on each step of a size up to its reach for which that
 * is positive; `available` is the cheapest choice with what is captured. Sizes are entered into two
 * Fenwick trees in rising order, at the rank of their `available` among all `T_g`, and each graph
 * asks for the ranks above its own once all sizes within its reach are in: n log n instead of n².
 */

import type { Costs } from "./cost.ts";
import { HELD, type Held, type Lane } from "./shapes.ts";

/** Weights of the steps of a lane, by the place of their size. */
export interface LaneWeights {
  readonly lane: Lane;
  /** Request-steps. */
  readonly weights: Float64Array;
}

export class Savings {
  readonly costs: Costs;
  readonly #lanes = new Map<Lane, LaneSavings>();

  constructor(costs: Costs) {
    this.costs = costs;
  }

  /** Seconds that each missing graph would save on these steps, times their weights. */
  of(held: Held, steps: Iterable<LaneWeights>): Float64Array {
    const sums = new Float64Array(held.at.length);
    for (const { lane, weights } of steps) this.lane(lane, held).addAll(weights, held, sums);
    return sums;
  }

  /** The lane with what is captured now. */
  lane(lane: Lane, held: Held): LaneSavings {
    let savings = this.#lanes.get(lane);
    if (savings === undefined) {
      savings = new LaneSavings(this.costs, lane);
      this.#lanes.set(lane, savings);
    }
    savings.refresh(held);
    return savings;
  }
}

class LaneSavings {
  /** Seconds of a step of each size by the cheapest choice that is captured. */
  readonly available: Float64Array;
  readonly #costs: Costs;
  readonly #lane: Lane;
  /** Seconds of each graph of the lane, and the cheapest from there on. */
  readonly #seconds: Float64Array;
  readonly #cheapestOn: Float64Array;
  readonly #order: Int32Array;
  readonly #sorted: Float64Array;
  /** One more than the graph's place in the order of seconds. */
  readonly #rank: Int32Array;
  readonly #treeWeights: Float64Array;
  readonly #treeSeconds: Float64Array;
  #revision = -1;
  #held: Held | undefined;
  #version = -1;

  constructor(costs: Costs, lane: Lane) {
    const graphs = lane.places.length;
    this.#costs = costs;
    this.#lane = lane;
    this.available = new Float64Array(costs.shapes.sizes.length);
    this.#seconds = new Float64Array(graphs);
    this.#cheapestOn = new Float64Array(graphs + 1);
    this.#order = Int32Array.from({ length: graphs }, (_, index) => index);
    this.#sorted = new Float64Array(graphs);
    this.#rank = new Int32Array(graphs);
    this.#treeWeights = new Float64Array(graphs + 1);
    this.#treeSeconds = new Float64Array(graphs + 1);
  }

  refresh(held: Held): void {
    const { revision } = this.#costs;
    const sameCosts = this.#revision === revision;
    if (sameCosts && this.#held === held && this.#version === held.version) return;
    if (!sameCosts) this.#sort();
    this.#revision = revision;
    this.#held = held;
    this.#version = held.version;
    const { places, reach } = this.#lane;
    const { available } = this;
    const ungraphed = this.#costs.ungraphedBySize(this.#lane.uniform > 0);
    let cheapest = Number.POSITIVE_INFINITY;
    let index = places.length - 1;
    for (let size = available.length - 1; size >= 0; size--) {
      for (; index >= 0 && (reach[index] ?? 0) >= size; index--) {
        const seconds = this.#seconds[index] ?? cheapest;
        if (seconds < cheapest && held.at[places[index] ?? 0] === HELD.captured) cheapest = seconds;
      }
      available[size] = Math.min(ungraphed[size] ?? 0, cheapest);
    }
  }

  #sort(): void {
    const bySize = this.#costs.graphSecondsByPlace;
    const { places } = this.#lane;
    let cheapest = Number.POSITIVE_INFINITY;
    this.#cheapestOn[places.length] = cheapest;
    for (let index = places.length - 1; index >= 0; index--) {
      const seconds = bySize[places[index] ?? 0] ?? 0;
      this.#seconds[index] = seconds;
      cheapest = Math.min(cheapest, seconds);
      this.#cheapestOn[index] = cheapest;
    }
    const seconds = this.#seconds;
    // Nearly sorted already, which the sort makes use of.
    this.#order.sort((a, b) => (seconds[a] ?? 0) - (seconds[b] ?? 0));
    for (let rank = 0; rank < places.length; rank++) {
      const index = this.#order[rank] ?? 0;
      this.#rank[index] = rank + 1;
      this.#sorted[rank] = seconds[index] ?? 0;
    }
  }

  /** Adds what each missing graph would save on `weight` steps of one size. */
  addOne(size: number, weight: number, held: Held, sums: Float64Array): void {
    const { places, reach } = this.#lane;
    const available = this.available[size] ?? 0;
    for (let index = lowerBound(reach, size); index < places.length; index++) {
      if ((this.#cheapestOn[index] ?? 0) >= available) return;
      const saved = available - (this.#seconds[index] ?? 0);
      const place = places[index] ?? 0;
      if (saved > 0 && held.at[place] === HELD.missing) {
        sums[place] = (sums[place] ?? 0) + saved * weight;
      }
    }
  }

  /** Adds what each missing graph would save on steps of these weights. */
  addAll(weights: Float64Array, held: Held, sums: Float64Array): void {
    const { places, reach } = this.#lane;
    this.#treeWeights.fill(0);
    this.#treeSeconds.fill(0);
    let size = 0;
    for (let index = 0; index < places.length; index++) {
      for (; size <= (reach[index] ?? 0); size++) this.#enter(size, weights[size] ?? 0);
      const place = places[index] ?? 0;
      if (held.at[place] !== HELD.missing) continue;
      const saved = this.#saved(this.#rank[index] ?? 0, this.#seconds[index] ?? 0);
      if (saved > 0) sums[place] = (sums[place] ?? 0) + saved;
    }
  }

  /** What both of two graphs would save on steps of these weights. */
  shared(one: number, other: number, weights: Float64Array): number {
    const { places, reach } = this.#lane;
    const first = places.indexOf(one);
    const second = places.indexOf(other);
    if (first === -1 || second === -1) return 0;
    const seconds = Math.max(this.#seconds[first] ?? 0, this.#seconds[second] ?? 0);
    const last = Math.min(reach[first] ?? 0, reach[second] ?? 0);
    let shared = 0;
    for (let size = 0; size <= last; size++) {
      const weight = weights[size] ?? 0;
      const saved = (this.available[size] ?? 0) - seconds;
      if (weight > 0 && saved > 0) shared += saved * weight;
    }
    return shared;
  }

  /** Enters the steps of a size at the number of graphs that are faster than what they have. */
  #enter(size: number, weight: number): void {
    if (weight === 0) return;
    const available = this.available[size] ?? 0;
    const weightSeconds = weight * available;
    for (let at = lowerBound(this.#sorted, available); at > 0; at -= at & -at) {
      this.#treeWeights[at] = (this.#treeWeights[at] ?? 0) + weight;
      this.#treeSeconds[at] = (this.#treeSeconds[at] ?? 0) + weightSeconds;
    }
  }

  /** What a graph of this rank saves on the steps entered so far: those at its rank or above. */
  #saved(rank: number, seconds: number): number {
    let weight = 0;
    let weightSeconds = 0;
    for (let at = rank; at < this.#treeWeights.length; at += at & -at) {
      weight += this.#treeWeights[at] ?? 0;
      weightSeconds += this.#treeSeconds[at] ?? 0;
    }
    return weight === 0 ? 0 : weightSeconds - weight * seconds;
  }
}

/** The first index whose value is at least `value`; values rise. */
export function lowerBound(values: Int32Array | Float64Array, value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((values[middle] ?? 0) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

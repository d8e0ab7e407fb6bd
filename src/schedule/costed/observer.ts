/**
 * The one observer of an engine's steps: what they cost, which were wanted, and how late they were.
 * The policy decides by it, the learned plan keeps what it saw, and a snapshot tells its regret;
 * none of them learns from telemetry by itself.
 *
 *   telemetry ─▶ costs, demand ─▶ policy
 *                     ├─────────▶ learned plan
 *                     ╰─────────▶ regret
 */

import { type Graph, idealGraph, type StepShape } from "../../base/graph.ts";
import type { StepsSeen } from "../policy.ts";
import { type CostSeed, type Costs, createCosts } from "./cost.ts";
import { Demand } from "./demand.ts";
import { stepOf } from "./earlier.ts";
import { workSeconds } from "./load.ts";
import type { Prior } from "./prior.ts";
import { lowerBound } from "./savings.ts";
import type { Bucket, Lane } from "./shapes.ts";

/** Steps of earlier starts that count at most: two or three minutes of serving. */
const PRIOR_STEPS_MAX = 20_000;

/** Steps that ran without their ideal graph, by that graph. */
export interface Stray {
  requestSteps: number;
  /** Of the timed ones. */
  seconds: number;
  timed: number;
}

/** What one report of steps came to. */
export interface Report {
  readonly steps: readonly StepsSeen[];
  /** The bucket of each of them, in their order; undefined where no graph could ever serve it. */
  readonly buckets: readonly (Bucket | undefined)[];
  /** Requests that waited on each step besides those in it. */
  readonly waiting: number;
  /** Seconds of work that no batch wins back, by the costs before this report. */
  readonly workSeconds: number;
  /** Seconds that the steps took longer than with their ideal graphs. */
  readonly regretSeconds: number;
}

export class StepObserver {
  readonly planned: readonly Graph[];
  readonly costs: Costs;
  readonly demand: Demand;
  /** The last report. */
  latest: Report = { steps: [], buckets: [], waiting: 0, workSeconds: 0, regretSeconds: 0 };
  /** Seconds that all steps took, and those of them that were work. */
  seconds = 0;
  workSeconds = 0;
  /** By id of the ideal graph. */
  readonly strays: Map<string, Stray> = new Map();
  /** Timed steps by the id of the graph that served them. */
  readonly timed: Map<string, number> = new Map();
  readonly #byId: ReadonlyMap<string, Graph>;
  /** By lane and place of the size; null: none. */
  readonly #ideals = new Map<Lane, (Graph | null | undefined)[]>();
  readonly #hasAdapters: boolean;
  #expecting = false;

  constructor(planned: readonly Graph[], seed: CostSeed, halfLifeSeconds?: number) {
    this.planned = planned;
    this.costs = createCosts(planned, seed);
    this.demand = new Demand(this.costs.shapes, halfLifeSeconds);
    this.#byId = new Map(planned.map((graph) => [graph.id, graph]));
    this.#hasAdapters = planned.some(({ loras = 0 }) => loras > 0);
  }

  /** Traffic starts where earlier starts left it, but not with more than soon fades. Once. */
  expect({ traffic }: Prior, atSeconds: number): void {
    if (this.#expecting) return;
    this.#expecting = true;
    const known = traffic.reduce((sum, { steps }) => sum + steps, 0);
    const share = Math.min(1, PRIOR_STEPS_MAX / Math.max(1, known));
    for (const row of traffic) {
      const requests = row.steps > 0 ? row.requestSteps / row.steps : 0;
      this.demand.expect(stepOf(row), row.steps * share, requests, atSeconds);
    }
  }

  /** Learns from reported steps; `waiting` requests waited on each besides those in it. */
  observe(steps: readonly StepsSeen[], waiting: number, atSeconds: number): Report {
    const { costs } = this;
    // Whoever books a step asks for its bucket, and each look-up takes a search and a key.
    const buckets: (Bucket | undefined)[] = [];
    let work = 0;
    for (const seen of steps) {
      const bucket = costs.shapes.bucketOf(seen);
      buckets.push(bucket);
      work += workSeconds(costs, seen, bucket);
      if (seen.timed > 0) this.seconds += (seen.count * seen.seconds) / seen.timed;
    }
    let regretSeconds = 0;
    for (const [index, seen] of steps.entries()) {
      costs.observeSteps(seen);
      if (!(seen.count > 0)) continue;
      const bucket = buckets[index];
      const ungraphedTimed = seen.served === "" ? seen.timed : 0;
      this.demand.add(bucket, seen.count, seen.requests + waiting, atSeconds, ungraphedTimed);
      regretSeconds += this.#regret(seen, bucket, waiting);
    }
    this.workSeconds += work;
    this.latest = { steps, buckets, waiting, workSeconds: work, regretSeconds };
    return this.latest;
  }

  /** The graph that stock would replay, as `idealGraph` finds it: looked for once a bucket. */
  ideal(step: StepShape): Graph | undefined {
    return this.#idealIn(this.costs.shapes.bucketOf(step), step);
  }

  #idealIn(bucket: Bucket | undefined, step: StepShape): Graph | undefined {
    const { shapes } = this.costs;
    if (step.tokens > shapes.tokensMax) return undefined;
    const uniform = shapes.isUniform(step) ? step.uniform : 0;
    // A uniform step that doesn't add up is in no bucket's like.
    if (bucket === undefined || (uniform > 0 && step.requests * uniform !== step.tokens)) {
      return idealGraph(this.planned, uniform === step.uniform ? step : { ...step, uniform });
    }
    let ideals = this.#ideals.get(bucket.lane);
    if (ideals === undefined) {
      ideals = [];
      this.#ideals.set(bucket.lane, ideals);
    }
    let ideal = ideals[bucket.size];
    if (ideal === undefined) {
      ideal = this.#idealOf(bucket, step) ?? null;
      ideals[bucket.size] = ideal;
    }
    return ideal ?? undefined;
  }

  /** Of a plan without adapter cases it is among the few graphs that end at the step's own size. */
  #idealOf({ lane, size }: Bucket, step: StepShape): Graph | undefined {
    const { shapes } = this.costs;
    if (this.#hasAdapters) {
      const uniform = shapes.isUniform(step) ? step.uniform : 0;
      return idealGraph(this.planned, { ...step, uniform });
    }
    let best = -1;
    for (let index = lowerBound(lane.reach, size); lane.reach[index] === size; index++) {
      const place = lane.places[index] ?? -1;
      const graph = this.planned[place];
      if (graph?.tokens !== shapes.sizes[size]) continue;
      const isFull = graph?.kind === "FULL";
      const known = this.planned[best];
      const better =
        known === undefined || (known.kind === "FULL") === isFull ? place < best : isFull;
      if (known === undefined || better) best = place;
    }
    return this.planned[best];
  }

  #regret(seen: StepsSeen, bucket: Bucket | undefined, waiting: number): number {
    const { costs } = this;
    const ideal = this.#idealIn(bucket, seen);
    // Stock would run it without a graph, too.
    if (ideal === undefined) return 0;
    const server = this.#byId.get(seen.served);
    if (server !== undefined) {
      this.timed.set(server.id, (this.timed.get(server.id) ?? 0) + seen.timed);
    }
    if (server === ideal) return 0;
    const stray = this.strays.get(ideal.id) ?? { requestSteps: 0, seconds: 0, timed: 0 };
    stray.requestSteps += seen.count * (seen.requests + waiting);
    stray.seconds += seen.seconds;
    stray.timed += seen.timed;
    this.strays.set(ideal.id, stray);
    const took =
      server === undefined
        ? costs.ungraphedBySize(costs.shapes.isUniform(seen))[costs.shapes.sizeOf(seen.tokens)]
        : this.#seconds(server);
    // A larger graph may be estimated as the faster one by noise: that is no gain to book.
    return seen.count * Math.max(0, (took ?? 0) - this.#seconds(ideal));
  }

  #seconds({ id }: Graph): number {
    const { graphSecondsByPlace, shapes } = this.costs;
    return graphSecondsByPlace[shapes.places.get(id) ?? -1] ?? 0;
  }
}

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
import type { GraphState } from "../state.ts";
import { type CostSeed, type Costs, createCosts } from "./cost.ts";
import { Demand } from "./demand.ts";
import { stepOf } from "./earlier.ts";
import { workSeconds } from "./load.ts";
import type { Prior } from "./prior.ts";
import { lowerBound } from "./savings.ts";
import type { Bucket } from "./shapes.ts";

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
  /** Seconds of work that no batch wins back, by the costs before this report. */
  readonly workSeconds: number;
  /** Seconds that the steps took longer than with their ideal graphs. */
  readonly regretSeconds: number;
}

/** Where an observer's sums are; places of graphs are from `servers` on. */
const SUM = { seconds: 0, work: 1, latestWork: 2, servers: 3, numbers: 7 } as const;

export class StepObserver {
  readonly planned: readonly Graph[];
  readonly costs: Costs;
  readonly demand: Demand;
  /** Sums so far, the last report's work, and places of graphs that served its first steps. */
  readonly #sums = new Float64Array(SUM.numbers);
  /** By id of the ideal graph. */
  readonly strays: Map<string, Stray> = new Map();
  /** Timed steps by the place in the plan of the graph that served them. */
  readonly timed: Float64Array;
  readonly #hasAdapters: boolean;
  #expecting = false;

  constructor(planned: readonly Graph[], seed: CostSeed, halfLifeSeconds?: number) {
    this.planned = planned;
    this.costs = createCosts(planned, seed);
    this.demand = new Demand(this.costs.shapes, halfLifeSeconds);
    this.timed = new Float64Array(planned.length);
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

  /** Seconds that all steps took. */
  get seconds(): number {
    return this.#sums[SUM.seconds] ?? 0;
  }

  /** Those of them that were work. */
  get workSeconds(): number {
    return this.#sums[SUM.work] ?? 0;
  }

  /** As `Report` has it, of the last one. */
  get latestWorkSeconds(): number {
    return this.#sums[SUM.latestWork] ?? 0;
  }

  /** Reads what a report will be added to; the number has no meaning (engine/prefetch.ts). */
  prefetch(): number {
    const { costs, demand, strays, timed } = this;
    return this.seconds + (timed[0] ?? 0) + strays.size + costs.prefetch() + demand.prefetch();
  }

  /** Likewise of the graphs that served last. */
  prefetchGraphs(entries: readonly GraphState[]): number {
    let sum = 0;
    for (let at: number = SUM.servers; at < SUM.numbers; at++) {
      const server = this.#sums[at] ?? -1;
      if (server < 0) continue;
      sum += this.costs.prefetchGraph(server) + (entries[server]?.replays ?? 0);
    }
    return sum;
  }

  /** Learns from reported steps; `waiting` requests waited on each besides those in it. */
  observe(steps: readonly StepsSeen[], waiting: number, atSeconds: number): Report {
    const { costs } = this;
    const { buckets, servers } = costs.shapes.placed(steps);
    let work = 0;
    let { seconds } = this;
    for (let at = 0; at < steps.length; at++) {
      const seen = steps[at] as StepsSeen;
      work += workSeconds(costs, seen, buckets[at], servers[at] ?? -1);
      if (seen.timed > 0) seconds += (seen.count * seen.seconds) / seen.timed;
    }
    let regretSeconds = 0;
    for (let at = 0; at < steps.length; at++) {
      const seen = steps[at] as StepsSeen;
      const bucket = buckets[at];
      const server = servers[at] ?? -1;
      costs.observeSteps(seen, server);
      const kept = SUM.servers + at;
      if (kept < SUM.numbers) this.#sums[kept] = server;
      if (!(seen.count > 0)) continue;
      const ungraphedTimed = seen.served === "" ? seen.timed : 0;
      this.demand.add(bucket, seen.count, seen.requests + waiting, atSeconds, ungraphedTimed);
      regretSeconds += this.#regret(seen, waiting, bucket, server);
    }
    this.#sums[SUM.seconds] = seconds;
    this.#sums[SUM.work] = this.workSeconds + work;
    this.#sums[SUM.latestWork] = work;
    return { workSeconds: work, regretSeconds };
  }

  /** The graph that stock would replay, as `idealGraph` finds it: looked for once a bucket. */
  ideal(step: StepShape): Graph | undefined {
    return this.planned[this.idealAt(step, this.costs.shapes.bucketOf(step))];
  }

  /**
   * Its place in the plan; -1: none.
   *
   * @param bucket the step's
   */
  idealAt(step: StepShape, bucket: Bucket | undefined): number {
    const { shapes } = this.costs;
    if (step.tokens > shapes.tokensMax) return -1;
    const uniform = shapes.isUniform(step) ? step.uniform : 0;
    // A uniform step that doesn't add up is in no bucket's like.
    if (bucket === undefined || (uniform > 0 && step.requests * uniform !== step.tokens)) {
      return this.#search(step, uniform);
    }
    bucket.ideal ??= this.#idealOf(bucket, step);
    return bucket.ideal;
  }

  #search(step: StepShape, uniform: number): number {
    const asked = uniform === step.uniform ? step : { ...step, uniform };
    const ideal = idealGraph(this.planned, asked);
    return ideal === undefined ? -1 : (this.costs.shapes.places.get(ideal.id) ?? -1);
  }

  /** Of a plan without adapter cases it is among the few graphs that end at the step's own size. */
  #idealOf({ lane, size }: Bucket, step: StepShape): number {
    const { shapes } = this.costs;
    if (this.#hasAdapters) return this.#search(step, shapes.isUniform(step) ? step.uniform : 0);
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
    return best;
  }

  #regret(seen: StepsSeen, waiting: number, bucket: Bucket | undefined, server: number): number {
    const { costs } = this;
    const idealAt = this.idealAt(seen, bucket);
    const ideal = this.planned[idealAt];
    // Stock would run it without a graph, too.
    if (ideal === undefined) return 0;
    if (server !== -1) this.timed[server] = (this.timed[server] ?? 0) + seen.timed;
    if (server === idealAt) return 0;
    const stray = this.strays.get(ideal.id) ?? { requestSteps: 0, seconds: 0, timed: 0 };
    stray.requestSteps += seen.count * (seen.requests + waiting);
    stray.seconds += seen.seconds;
    stray.timed += seen.timed;
    this.strays.set(ideal.id, stray);
    const { graphSecondsByPlace, shapes } = costs;
    const took =
      server === -1
        ? costs.ungraphedBySize(shapes.isUniform(seen))[shapes.sizeOf(seen.tokens)]
        : graphSecondsByPlace[server];
    // A larger graph may be estimated as the faster one by noise: that is no gain to book.
    return seen.count * Math.max(0, (took ?? 0) - (graphSecondsByPlace[idealAt] ?? 0));
  }
}

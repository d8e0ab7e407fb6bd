/**
 * What one start of one engine learns for the next: demand by planned size, step times, what
 * captures took. Pure; it reads no clock.
 *
 * It learns the same from every policy, also from those that don't reckon with costs.
 */

import {
  caseKey,
  caseOf,
  type Graph,
  idealGraph,
  type StepCase,
  type StepShape,
} from "../base/graph.ts";
import { caseRounding } from "../schedule/cases.ts";
import { type CostSeed, type Costs, createCosts } from "../schedule/costed/cost.ts";
import { workSeconds } from "../schedule/costed/load.ts";
import type { PriorLoad } from "../schedule/costed/prior.ts";
import type { StepsSeen } from "../schedule/policy.ts";
import type { EngineState } from "../schedule/state.ts";
import type { PlanGraph, PlanTraffic } from "./plan.ts";

/** What one start learned so far. */
export interface Learned {
  readonly traffic: readonly PlanTraffic[];
  readonly graphs: readonly PlanGraph[];
  /** Absent where no step was timed. */
  readonly load?: PriorLoad;
}

/** Steps of one planned size, uniform length and case. */
interface Bucket {
  readonly tokens: number;
  readonly uniform: number;
  readonly stepCase: StepCase;
  /** The step that its others are padded to, and that one's ideal graph: looked up once. */
  readonly largest: StepShape;
  readonly ideal: Graph | undefined;
  requestSteps: number;
  steps: number;
  /** Request-steps that ran without their ideal graph, and the seconds of these. */
  strayRequestSteps: number;
  straySeconds: number;
  strayTimed: number;
  ungraphedTimed: number;
}

/** Sizes times uniform lengths that are kept; more of them are no plan's. */
const BUCKETS_MAX = 4096;

export class PlanRecorder {
  readonly #planned: readonly Graph[];
  readonly #ids: ReadonlySet<string>;
  readonly #costs: Costs;
  /** Uniform lengths that some graph asks for: every other step is a mixed one. */
  readonly #uniforms: ReadonlySet<number>;
  readonly #roundCase: (step: StepCase) => StepCase;
  readonly #buckets = new Map<string, Bucket>();
  readonly #timed = new Map<string, number>();
  readonly #captures = new Set<string>();
  #seconds = 0;
  #workSeconds = 0;

  constructor(planned: readonly Graph[], seed: CostSeed) {
    this.#planned = planned;
    this.#ids = new Set(planned.map(({ id }) => id));
    this.#costs = createCosts(planned, seed);
    this.#uniforms = new Set(planned.flatMap(({ uniform }) => uniform ?? []));
    this.#roundCase = caseRounding(planned);
  }

  /** Books reported steps; `waiting` requests waited on each besides those in it. */
  observe(steps: readonly StepsSeen[], waiting: number): void {
    for (const seen of steps) {
      const uniform = this.#uniforms.has(seen.uniform) ? seen.uniform : 0;
      const stepCase = this.#roundCase(seen);
      const shape = { tokens: seen.tokens, requests: seen.requests, uniform, ...stepCase };
      if (seen.timed > 0 && seen.count > 0) {
        this.#seconds += (seen.count * seen.seconds) / seen.timed;
        this.#workSeconds += workSeconds(this.#costs, { ...seen, uniform });
      }
      const ideal = idealGraph(this.#planned, shape);
      if (ideal === undefined || !(seen.count > 0)) continue;
      const bucket = this.#bucket(ideal.tokens, uniform, stepCase);
      if (bucket === undefined) continue;
      this.#costs.observeSteps({ ...seen, uniform });
      const requestSteps = seen.count * (seen.requests + waiting);
      bucket.requestSteps += requestSteps;
      bucket.steps += seen.count;
      if (seen.served === "") bucket.ungraphedTimed += seen.timed;
      else if (this.#ids.has(seen.served)) {
        this.#timed.set(seen.served, (this.#timed.get(seen.served) ?? 0) + seen.timed);
      }
      if (seen.served === ideal.id) continue;
      bucket.strayRequestSteps += requestSteps;
      bucket.straySeconds += seen.seconds;
      bucket.strayTimed += seen.timed;
    }
  }

  /** What was learned so far, if anything; `state` knows captures and replays. */
  learned(state: EngineState): Learned | undefined {
    this.#learnCaptures(state);
    if (this.#buckets.size === 0 && this.#captures.size === 0) return undefined;
    const traffic: PlanTraffic[] = [];
    const regrets = new Map<string, number>();
    for (const bucket of this.#buckets.values()) {
      const { ideal } = bucket;
      const ungraphed = this.#costs.ungraphedSeconds(bucket.largest).value;
      traffic.push({
        tokens: bucket.tokens,
        uniform: bucket.uniform,
        ...bucket.stepCase,
        requestSteps: bucket.requestSteps,
        steps: bucket.steps,
        ungraphedSeconds: ungraphed,
        ungraphedTimed: bucket.ungraphedTimed,
      });
      if (ideal === undefined || bucket.strayRequestSteps === 0) continue;
      const took = bucket.strayTimed > 0 ? bucket.straySeconds / bucket.strayTimed : ungraphed;
      const regret = Math.max(0, took - this.#costs.graphSeconds(ideal).value);
      const sum = (regrets.get(ideal.id) ?? 0) + regret * bucket.strayRequestSteps;
      regrets.set(ideal.id, sum);
    }
    traffic.sort((a, b) => a.uniform - b.uniform || a.tokens - b.tokens);
    const graphs = this.#planned.map((graph) => this.#graph(graph, state, regrets));
    const load = { seconds: this.#seconds, workSeconds: this.#workSeconds };
    return { traffic, graphs, ...(load.seconds > 0 ? { load } : {}) };
  }

  #graph(graph: Graph, state: EngineState, regrets: ReadonlyMap<string, number>): PlanGraph {
    const entry = state.graphs.get(graph.id);
    const { captureMs, bytes } = entry ?? {};
    return {
      id: graph.id,
      kind: graph.kind,
      tokens: graph.tokens,
      ...(graph.uniform === undefined ? {} : { uniform: graph.uniform }),
      ...caseOf(graph),
      replays: entry?.replays ?? 0,
      regret: regrets.get(graph.id) ?? 0,
      stepSeconds: this.#costs.graphSeconds(graph).value,
      timed: this.#timed.get(graph.id) ?? 0,
      ...(captureMs === undefined ? {} : { captureMs }),
      // Growth is measured, and may come out below zero when something else let go.
      ...(bytes === undefined ? {} : { bytes: Math.max(0, bytes) }),
    };
  }

  #learnCaptures(state: EngineState): void {
    for (const { graph, captureMs, bytes } of state.graphs.values()) {
      if (captureMs === undefined || this.#captures.has(graph.id)) continue;
      this.#captures.add(graph.id);
      this.#costs.observeCapture(graph, captureMs / 1000, Math.max(0, bytes ?? 0));
    }
  }

  #bucket(tokens: number, uniform: number, stepCase: StepCase): Bucket | undefined {
    const key = `${tokens}/${uniform}/${caseKey(stepCase)}`;
    let bucket = this.#buckets.get(key);
    if (bucket === undefined && this.#buckets.size < BUCKETS_MAX) {
      const largest = { ...largestStep({ tokens, uniform }), ...stepCase };
      bucket = {
        tokens,
        uniform,
        stepCase,
        largest,
        ideal: idealGraph(this.#planned, largest),
        requestSteps: 0,
        steps: 0,
        strayRequestSteps: 0,
        straySeconds: 0,
        strayTimed: 0,
        ungraphedTimed: 0,
      };
      this.#buckets.set(key, bucket);
    }
    return bucket;
  }
}

/** The step that a bucket's others are padded to. */
function largestStep({ tokens, uniform }: Pick<Bucket, "tokens" | "uniform">): StepShape {
  return { tokens, requests: uniform > 0 ? Math.ceil(tokens / uniform) : 1, uniform };
}

/**
 * A learned plan: what the starts of one kind of engine needed, and what it cost. Pure data; the
 * other files of this folder check, merge, age, read and write it.
 */

import { caseOf, type StepCase } from "../base/graph.ts";
import type { Prior, PriorLoad } from "../schedule/costed/prior.ts";
import type { Fingerprint } from "./fingerprint.ts";

/** The newest schema that is read. */
export const PLAN_VERSION = 2;

/**
 * The schema that a plan is written in. Rows of another case than the plain one came with schema 2:
 * who knows only the first would take them for plain steps, and reads all other plans as before.
 */
export function planVersion({ traffic, graphs }: Pick<Plan, "traffic" | "graphs">): number {
  const isPlain = (row: StepCase): boolean => Object.keys(caseOf(row)).length === 0;
  return traffic.every(isPlain) && graphs.every(isPlain) ? 1 : PLAN_VERSION;
}

/** Steps of one case that round up to one planned size. */
export interface PlanTraffic extends StepCase {
  /** The planned size. */
  readonly tokens: number;
  /** Tokens of each request in decode steps, 0 for mixed ones. */
  readonly uniform: number;
  /** Sum over its steps of the requests that waited on each; later starts make it count less. */
  readonly requestSteps: number;
  readonly steps: number;
  /** Seconds of such a step without any graph. */
  readonly ungraphedSeconds: number;
  /** How many timed steps are behind that; 0: the cost profile's word. */
  readonly ungraphedTimed: number;
}

/** Its case is that of the steps which it serves. */
export interface PlanGraph extends StepCase {
  readonly id: string;
  readonly kind: "FULL" | "PIECEWISE";
  readonly tokens: number;
  /** Tokens that each request of a step must have; absent when any mixture fits. */
  readonly uniform?: number;
  /** Steps it served, over all starts; not aged. */
  readonly replays: number;
  /** Request-seconds that it would have spared the steps that ran without it; aged by start. */
  readonly regret: number;
  /** Seconds of a step in it, and how many timed steps are behind that (0: the profile's word). */
  readonly stepSeconds: number;
  readonly timed: number;
  /** What its capture took; absent where no start captured it. */
  readonly captureMs?: number;
  readonly bytes?: number;
}

export interface Plan {
  readonly fingerprint: Fingerprint;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  readonly updatedAt: string;
  /** Which program, policy and host wrote it last, in words. */
  readonly learnedBy: string;
  /** Starts of engines behind it. */
  readonly starts: number;
  /** The cost profile of a simulated engine; absent for real ones. */
  readonly simulated?: string;
  /** What its engines did with their time, older starts counting less; absent: not known. */
  readonly load?: PriorLoad;
  readonly traffic: readonly PlanTraffic[];
  readonly graphs: readonly PlanGraph[];
  /** Ids of the graphs that traffic needed besides the tops, most valuable per second first. */
  readonly first: readonly string[];
}

/** What a policy starts with. */
export function priorOf({ traffic, first, load }: Pick<Plan, "traffic" | "first" | "load">): Prior {
  return {
    traffic: traffic.map((row) => ({
      tokens: row.tokens,
      uniform: row.uniform,
      ...caseOf(row),
      requestSteps: row.requestSteps,
      steps: row.steps,
    })),
    first,
    ...(load === undefined ? {} : { load }),
  };
}

/** Bytes of each graph that some start captured: what a forecast before the first capture knows. */
export function planBytes({ graphs }: Plan): ReadonlyMap<string, number> {
  return new Map(
    graphs.flatMap(({ id, bytes }) => (bytes === undefined ? [] : [[id, bytes] as const])),
  );
}

/** What earlier starts of an engine learned: what a policy uses of a plan. */

import type { StepCase } from "../../base/graph.ts";

/** Steps of one planned size and case. */
export interface PriorTraffic extends StepCase {
  /** The planned size that the steps round up to. */
  readonly tokens: number;
  /** Tokens of each request where all have the same number; 0: a mixed step. */
  readonly uniform: number;
  /** Steps times the requests that waited on each; older starts count less. */
  readonly requestSteps: number;
  readonly steps: number;
}

/** What an engine did with its time. */
export interface PriorLoad {
  /** Its steps' seconds. */
  readonly seconds: number;
  /** Those that went into work in proportion to tokens. */
  readonly workSeconds: number;
}

export interface Prior {
  readonly traffic: readonly PriorTraffic[];
  /** Ids of graphs that earlier starts needed, most needed first. */
  readonly first: readonly string[];
  /** @default not known */
  readonly load?: PriorLoad;
}

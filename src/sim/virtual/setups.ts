/** Policies by name, each with what the simulated engine must do for it. */

import { costSeedOf } from "../profile/cost-seed.ts";
import type { Profile } from "../profile/profile.ts";
import { createFloorPolicy } from "../schedule/comparators/floor.ts";
import { createLadderPolicy } from "../schedule/comparators/ladder.ts";
import { createLargestFirstPolicy } from "../schedule/comparators/largest-first.ts";
import { createNonePolicy } from "../schedule/comparators/none.ts";
import { createOraclePolicy } from "../schedule/comparators/oracle.ts";
import { createPr23184Policy, pr23184Capture } from "../schedule/comparators/pr23184.ts";
import { createStockPolicy } from "../schedule/comparators/stock.ts";
import type { CostSeed } from "../schedule/cost.ts";
import { createCostPolicy } from "../schedule/costed.ts";
import { createPolicy } from "../schedule/modes.ts";
import type { Policy } from "../schedule/policy.ts";
import type { Prior } from "../schedule/prior.ts";
import type { SimulateOptions } from "./virtual.ts";

/** A policy and the engine it runs on. Each call makes a fresh one: policies hold state. */
export type Setup = Pick<SimulateOptions, "policy" | "warmUps" | "captureInStep" | "freeGraphs">;

export type PolicyName =
  | "oracle"
  | "floor"
  | "stock"
  | "none"
  | "ladder"
  | "pr23184"
  | "largest-first"
  | "eager"
  | "lazy"
  | "idle"
  | "lazy-costed"
  | "idle-costed";

const SETUPS: Readonly<Record<PolicyName, (costs: CostSeed, prior?: Prior) => Setup>> = {
  oracle: (costs) => ({ policy: createOraclePolicy(costs), freeGraphs: "at start" }),
  floor: (costs) => ({ policy: createFloorPolicy(costs), freeGraphs: "when ready" }),
  // Stock has a warm-up run before every capture.
  stock: () => ({ policy: createStockPolicy(), warmUps: "all" }),
  none: () => plain(createNonePolicy()),
  ladder: (costs) => plain(createLadderPolicy(costs)),
  pr23184: () => ({ policy: createPr23184Policy(), captureInStep: pr23184Capture }),
  "largest-first": () => plain(createLargestFirstPolicy()),
  eager: () => plain(createPolicy("eager")),
  lazy: () => plain(createPolicy("lazy")),
  idle: () => plain(createPolicy("idle")),
  "lazy-costed": (costs, prior) => plain(costed("lazy", costs, prior)),
  "idle-costed": (costs, prior) => plain(costed("idle", costs, prior)),
};

export const POLICY_NAMES: readonly PolicyName[] = Object.keys(SETUPS) as PolicyName[];

/** @param prior what earlier starts learned; only the costed policies make use of it */
export function createSetup(name: PolicyName, profile: Profile, prior?: Prior): Setup {
  return SETUPS[name](costSeedOf(profile), prior);
}

function costed(mode: "lazy" | "idle", costs: CostSeed, prior: Prior | undefined): Policy {
  return createCostPolicy({ mode, costs, ...(prior === undefined ? {} : { prior }) });
}

function plain(policy: Policy): Setup {
  return { policy };
}

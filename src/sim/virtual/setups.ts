/** Policies by name, each with what the simulated engine must do for it. */

import { costSeedOf } from "../../profile/cost-seed.ts";
import type { Profile } from "../../profile/profile.ts";
import type { CostSeed } from "../../schedule/costed/cost.ts";
import { createCostPolicy } from "../../schedule/costed/costed.ts";
import type { Prior } from "../../schedule/costed/prior.ts";
import { createPolicy } from "../../schedule/modes/modes.ts";
import type { Policy } from "../../schedule/policy.ts";
import { createFloorPolicy } from "./comparators/floor.ts";
import { createLadderPolicy } from "./comparators/ladder.ts";
import { createLargestFirstPolicy } from "./comparators/largest-first.ts";
import { createNonePolicy } from "./comparators/none.ts";
import { createOraclePolicy } from "./comparators/oracle.ts";
import { createPr23184Policy, pr23184Capture } from "./comparators/pr23184.ts";
import { createStockPolicy } from "./comparators/stock.ts";
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

/** Policies by name, each with what the simulated engine must do for it. */

import { costSeedOf } from "../../profile/cost-seed.ts";
import type { Profile } from "../../profile/profile.ts";
import { DEFAULT_POLICY, type PolicyMaker } from "../../schedule/choice.ts";
import type { CostSeed } from "../../schedule/costed/cost.ts";
import { createCostPolicy } from "../../schedule/costed/costed.ts";
import { createPolicy } from "../../schedule/modes/modes.ts";
import { createFloorPolicy } from "./comparators/floor.ts";
import { createLadderPolicy } from "./comparators/ladder.ts";
import { createLargestFirstPolicy } from "./comparators/largest-first.ts";
import { createNonePolicy } from "./comparators/none.ts";
import { createOraclePolicy } from "./comparators/oracle.ts";
import { createPr23184Policy, pr23184Capture } from "./comparators/pr23184.ts";
import { createStockPolicy } from "./comparators/stock.ts";
import type { SimulateOptions } from "./virtual.ts";

/** A policy and the engine it runs on. */
export type Setup = Pick<
  SimulateOptions,
  "mode" | "guarded" | "warmUps" | "captureInStep" | "freeGraphs"
> & { readonly policy: PolicyMaker };

export type PolicyName =
  | "oracle"
  | "floor"
  | "stock"
  | "none"
  | "ladder"
  | "pr23184"
  | "largest-first"
  | "eager"
  | "lazy-simple"
  | "idle-simple"
  | "lazy-costed"
  | "idle-costed";

const SETUPS: Readonly<Record<PolicyName, (costs: CostSeed) => Setup>> = {
  oracle: (costs) => ({
    ...alone(() => createOraclePolicy(costs)),
    freeGraphs: "at start",
  }),
  floor: (costs) => ({ ...alone(() => createFloorPolicy(costs)), freeGraphs: "when ready" }),
  // Stock has a warm-up run before every capture.
  stock: () => ({ ...alone(createStockPolicy), warmUps: "all" }),
  none: () => alone(createNonePolicy),
  ladder: (costs) => ({ mode: "eager", policy: () => createLadderPolicy(costs) }),
  pr23184: () => ({ ...alone(createPr23184Policy), captureInStep: pr23184Capture }),
  "largest-first": () => ({ mode: "idle", policy: createLargestFirstPolicy }),
  eager: () => ({ mode: "eager", policy: createPolicy }),
  "lazy-simple": () => ({ mode: "lazy", policy: createPolicy }),
  "idle-simple": () => ({ mode: "idle", policy: createPolicy }),
  "lazy-costed": (costs) => costed("lazy", costs),
  "idle-costed": (costs) => costed("idle", costs),
};

/** A mode's name alone is what the mode runs by default. */
const ALIASES: Readonly<Record<"lazy" | "idle", PolicyName>> = {
  lazy: `lazy-${DEFAULT_POLICY}`,
  idle: `idle-${DEFAULT_POLICY}`,
};

/** The policy of that name; undefined: there is none. */
export function policyNamed(name: string): PolicyName | undefined {
  if (Object.hasOwn(ALIASES, name)) return ALIASES[name as keyof typeof ALIASES];
  return POLICY_NAMES.find((known) => known === name);
}

export const POLICY_NAMES: readonly PolicyName[] = Object.keys(SETUPS) as PolicyName[];
/** What `policyNamed` knows. */
export const POLICY_WORDS: readonly string[] = [...POLICY_NAMES, ...Object.keys(ALIASES)];

export function createSetup(name: PolicyName, profile: Profile): Setup {
  return SETUPS[name](costSeedOf(profile));
}

/** For an engine that no controller of ours has: nobody guards its memory. */
function alone(policy: PolicyMaker): Setup {
  return { mode: "eager", guarded: false, policy };
}

/** @param seed where costs start unless a learned plan knows better */
function costed(mode: "lazy" | "idle", seed: CostSeed): Setup {
  return {
    mode,
    policy: (_, { costs = seed, ...known } = {}) => createCostPolicy({ mode, costs, ...known }),
  };
}

/** Which policy an engine gets: by name or the user's own, within the user's rules. */

import type { CostSeed } from "./costed/cost.ts";
import { createCostPolicy } from "./costed/costed.ts";
import type { StepObserver } from "./costed/observer.ts";
import type { Prior } from "./costed/prior.ts";
import { createIdlePolicy } from "./modes/idle.ts";
import { createPolicy, type Mode } from "./modes/modes.ts";
import type { Policy } from "./policy.ts";
import { type PlanRules, withRules } from "./rules.ts";
import type { EngineState } from "./state.ts";

/**
 * `simple`: the modes by counting steps. `costed`: lazy and idle by measured costs (docs/policy.md).
 */
export type PolicyName = "simple" | "costed";
export const POLICY_NAMES: readonly PolicyName[] = ["simple", "costed"];
/**
 * How lazy and idle mode decide where nobody says: the one place that says so. Simulations speak for
 * `costed` (docs/policy.md, "The first set").
 */
export const DEFAULT_POLICY: PolicyName = "costed";

/** The policy where none is named: a share of the time for fill is the simple idle mode's. */
export function defaultPolicy(fills: boolean): PolicyName {
  return fills ? "simple" : DEFAULT_POLICY;
}

/** What is known of an engine when its policy is made. */
export interface PolicyContext {
  /** What earlier starts of the same engine learned. */
  readonly prior?: Prior;
  /** Where cost estimates start; a policy that counts steps needs none. */
  readonly costs?: CostSeed;
  /** What observes the engine's steps. @default nothing does: a policy learns from its events */
  readonly observer?: StepObserver;
}

/** A policy that can say of any graph why it is where it is. */
export interface ExplainingPolicy extends Policy {
  explain?(state: EngineState, id: string, atSeconds: number): string;
}

export type PolicyMaker = (mode: Mode, context?: PolicyContext) => ExplainingPolicy;

export interface PolicyChoice {
  readonly policy: PolicyName | ((mode: Mode, context: PolicyContext) => Policy);
  readonly initOnly: boolean;
  /** Of the simple idle mode. */
  readonly fillShare?: number;
  readonly rules: PlanRules;
}

export function policyMaker(choice: PolicyChoice): PolicyMaker {
  const { rules } = choice;
  const ruled = Object.values(rules).some((rule) => rule !== undefined);
  return (mode, context = {}) => {
    const made = makePolicy(choice, mode, context);
    if (!ruled) return made;
    const { explain } = made;
    const within = withRules(made, rules);
    return explain === undefined ? within : { ...within, explain: explain.bind(made) };
  };
}

function makePolicy(
  { policy, initOnly, fillShare }: PolicyChoice,
  mode: Mode,
  context: PolicyContext,
): ExplainingPolicy {
  if (typeof policy === "function") return policy(mode, context);
  const { costs, prior, observer } = context;
  // In eager mode there is nothing to weigh: everything comes before ready.
  if (policy === "simple" || mode === "eager" || costs === undefined) {
    // Only idle mode fills.
    const filling = mode === "idle" && fillShare !== undefined;
    return filling ? createIdlePolicy({ fillShare }) : createPolicy(mode);
  }
  return createCostPolicy({
    ...{ mode, costs, initOnly },
    ...(prior === undefined ? {} : { prior }),
    ...(observer === undefined ? {} : { observer }),
  });
}

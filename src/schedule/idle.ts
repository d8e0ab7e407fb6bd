import { topGraphs } from "../graph.ts";
import { createModePolicy } from "./base.ts";
import { EARNED_STEPS_MIN } from "./lazy.ts";
import { largestMissing, mostWanted, nextRung } from "./order.ts";
import type { Policy } from "./policy.ts";

/**
 * As lazy, and while the engine has nothing to do the rest of the plan: what any step wanted, then
 * a sparse ladder, then the largest first.
 */
export function createIdlePolicy(): Policy {
  return createModePolicy({
    name: "idle",
    endsAtReady: false,
    first: (planned) => ({ graphs: topGraphs(planned), reason: "the top graph of each kind" }),
    next(state) {
      const earned = mostWanted(state, EARNED_STEPS_MIN);
      if (earned !== undefined) return { ...earned, whenIdle: false };
      if (!state.idle) return undefined;
      const fill = mostWanted(state, 1) ?? nextRung(state) ?? largestMissing(state);
      return fill && { ...fill, whenIdle: true };
    },
  });
}

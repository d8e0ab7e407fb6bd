import { topGraphs } from "../../base/graph.ts";
import { mostWanted } from "../order.ts";
import type { Policy } from "../policy.ts";
import { createModePolicy } from "./base.ts";

/**
 * Steps that must have wanted a graph before it is captured: one step is chance, a few in a row are
 * a batch size that lasts. A constant, until prices measured on the engine take its place.
 */
export const EARNED_STEPS_MIN = 3;

/** The top graphs before ready, then what traffic has earned, most wanted first, busy or not. */
export function createLazyPolicy(): Policy {
  return createModePolicy({
    name: "lazy-simple",
    endsAtReady: false,
    first: (planned) => ({ graphs: topGraphs(planned), reason: "the top graph of each kind" }),
    next(state) {
      const earned = mostWanted(state, EARNED_STEPS_MIN);
      return earned && { ...earned, whenIdle: false };
    },
  });
}

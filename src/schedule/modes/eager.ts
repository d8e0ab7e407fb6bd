import { byKindThenSize } from "../../base/graph.ts";
import type { Policy } from "../policy.ts";
import { createModePolicy } from "./base.ts";

/** Everything before ready, in stock's order: PIECEWISE, then FULL, each from the largest down. */
export function createEagerPolicy(): Policy {
  return createModePolicy({
    name: "eager",
    endsAtReady: true,
    first: (planned) => ({
      graphs: [...planned].sort(byKindThenSize),
      reason: `all ${planned.length} graphs before ready`,
    }),
    next: () => undefined,
  });
}

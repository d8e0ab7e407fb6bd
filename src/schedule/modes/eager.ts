import { byKindThenSize } from "../../base/graph.ts";
import type { Policy } from "../policy.ts";
import { createModePolicy } from "./base.ts";

/** All before ready, as stock: PIECEWISE, then FULL, largest first. */
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

import { bySizeDescending, type Graph } from "../../base/graph.ts";
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

function byKindThenSize(a: Graph, b: Graph): number {
  if (a.kind !== b.kind) return a.kind === "PIECEWISE" ? -1 : 1;
  return bySizeDescending(a, b);
}

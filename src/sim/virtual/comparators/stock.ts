import { bySizeDescending, type Graph } from "../../../base/graph.ts";
import { createModePolicy } from "../../../schedule/modes/base.ts";
import type { Policy } from "../../../schedule/policy.ts";
import { exactTable } from "./exact.ts";

/** vLLM 0.26 as it is: all graphs before ready, PIECEWISE then FULL, each largest first. */
export function createStockPolicy(): Policy {
  return createModePolicy({
    name: "stock",
    endsAtReady: true,
    first: (planned) => ({
      graphs: [...planned].sort(byKindThenSize),
      reason: `all ${planned.length} graphs before ready`,
    }),
    next: () => undefined,
    table: exactTable,
  });
}

function byKindThenSize(a: Graph, b: Graph): number {
  if (a.kind !== b.kind) return a.kind === "PIECEWISE" ? -1 : 1;
  return bySizeDescending(a, b);
}

import { byKindThenSize } from "../../../base/graph.ts";
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

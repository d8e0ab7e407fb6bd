import { topGraphs } from "../../../base/graph.ts";
import { createModePolicy } from "../../../schedule/modes/base.ts";
import { largestMissing } from "../../../schedule/order.ts";
import type { Policy } from "../../../schedule/policy.ts";
import { exactTable } from "./exact.ts";

/** Tops before ready, the rest largest first and only while idle; exact graph or ungraphed. */
export function createLargestFirstPolicy(): Policy {
  return createModePolicy({
    name: "largest-first",
    endsAtReady: false,
    first: (planned) => ({ graphs: topGraphs(planned), reason: "the top graph of each kind" }),
    next(state) {
      const choice = state.idle ? largestMissing(state) : undefined;
      return choice && { ...choice, whenIdle: true };
    },
    table: exactTable,
  });
}

import { bySizeDescending, topGraphs } from "../../../base/graph.ts";
import type { CostSeed } from "../../../schedule/costed/cost.ts";
import { createModePolicy } from "../../../schedule/modes/base.ts";
import type { Policy } from "../../../schedule/policy.ts";
import { costTable } from "./cost-table.ts";

/** Powers of two of both kinds before ready, the tops first, padded up by cost, nothing after. */
export function createLadderPolicy(costs: CostSeed): Policy {
  return createModePolicy({
    name: "ladder",
    endsAtReady: true,
    first(planned) {
      const rungs = planned.filter((graph) => Number.isInteger(Math.log2(graph.tokens)));
      const graphs = [...new Set([...topGraphs(planned), ...rungs.sort(bySizeDescending)])];
      return { graphs, reason: `a ladder of ${graphs.length} graphs before ready` };
    },
    next: () => undefined,
    table: costTable(costs),
  });
}

import { topGraphs } from "../../../base/graph.ts";
import type { CostSeed } from "../../../schedule/costed/cost.ts";
import { createModePolicy } from "../../../schedule/modes/base.ts";
import type { Policy } from "../../../schedule/policy.ts";
import { costTable } from "./cost-table.ts";

/**
 * Ready after the top graph of each kind, every other graph free from then on, dispatch by cost:
 * what lazy and idle mode could reach at best. Only a simulator can give graphs away.
 */
export function createFloorPolicy(costs: CostSeed): Policy {
  return createModePolicy({
    name: "floor",
    endsAtReady: true,
    first: (planned) => ({ graphs: topGraphs(planned), reason: "the top graph of each kind" }),
    next: () => undefined,
    table: costTable(costs),
  });
}

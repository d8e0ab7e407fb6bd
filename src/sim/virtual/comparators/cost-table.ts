import type { Graph } from "../../../base/graph.ts";
import { type CostSeed, type Costs, createCosts } from "../../../schedule/costed/cost.ts";
import { costDispatchTable } from "../../../schedule/costed/cost-dispatch.ts";
import type { DispatchTable } from "../../../schedule/policy.ts";

/** Dispatch by the costs of a profile, which a comparator takes as they are. */
export function costTable(
  seed: CostSeed,
): (planned: readonly Graph[], captured: readonly Graph[]) => DispatchTable {
  let costs: Costs | undefined;
  return (planned, captured) => {
    costs ??= createCosts(planned, seed);
    return costDispatchTable(captured, costs);
  };
}

import type { CostSeed } from "../../../schedule/costed/cost.ts";
import { createModePolicy } from "../../../schedule/modes/base.ts";
import type { Policy } from "../../../schedule/policy.ts";
import { costTable } from "./cost-table.ts";

/**
 * Every graph free at second 0, dispatch by cost: nothing a policy does can be faster. Only a
 * simulator can give graphs away; the policy itself just doesn't ask for any.
 */
export function createOraclePolicy(costs: CostSeed): Policy {
  return createModePolicy({
    name: "oracle",
    endsAtReady: true,
    first: () => ({ graphs: [], reason: "every graph is there for free" }),
    next: () => undefined,
    table: costTable(costs),
  });
}

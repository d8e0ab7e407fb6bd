import { createModePolicy } from "../base.ts";
import type { CostSeed } from "../cost.ts";
import type { Policy } from "../policy.ts";
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

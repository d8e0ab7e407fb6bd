/** Looks up what earlier starts of such an engine learned, once it has told its graphs. */

import { codeOf, messageOf } from "../base/errors.ts";
import type { EnginePlan, PlanDesk } from "../plan/engine-plan.ts";
import type { EngineState } from "../schedule/state.ts";
import type { Inventory } from "../wire/protocol.ts";
import { announceDecision, announceProblem } from "./announce.ts";
import type { EngineRecord } from "./record.ts";

/** @returns undefined where nothing can be learned */
export function recallPlan(
  record: EngineRecord,
  state: EngineState,
  inventory: Inventory,
  plans: PlanDesk | undefined,
): EnginePlan | undefined {
  const plan = planOf(record, state, inventory, plans);
  record.plan = plan?.snapshot;
  if (plan?.snapshot !== undefined && plan.snapshot.starts > 0) {
    const { starts, file, first } = plan.snapshot;
    const reason = `${starts} earlier starts needed ${first.length} graphs (${file})`;
    announceDecision(record, { decision: "plan", reason });
  }
  return plan;
}

/** An engine waits for its first set of graphs: no fault of a plan's may keep it from that. */
function planOf(
  record: EngineRecord,
  state: EngineState,
  inventory: Inventory,
  plans: PlanDesk | undefined,
): EnginePlan | undefined {
  try {
    return plans?.engine(record.hello, inventory, state);
  } catch (error) {
    const why = messageOf(error);
    announceProblem(
      record,
      codeOf(error) ?? "ERR_LAZYGRAPH_INTERNAL",
      `Expected to look up what earlier starts of ${record.hello.engine} learned, ` +
        `but it starts without: ${why}`,
    );
    return undefined;
  }
}

/** Looks up what earlier starts of such an engine learned, once it has told its graphs. */

import { counted } from "../../base/counted.ts";
import { codeOf, messageOf } from "../../base/errors.ts";
import type { EngineState } from "../../schedule/state.ts";
import type { Inventory } from "../../wire/protocol.ts";
import type { EngineRecord } from "../record.ts";
import { book, remember } from "./booking.ts";
import { decided } from "./decided.ts";
import type { Inner, StepTools } from "./effects.ts";
import { announceProblem } from "./tell.ts";

/** An engine waits for its first set of graphs: no fault of a plan's may keep it from that. */
export function* recallPlan(
  record: EngineRecord,
  state: EngineState,
  inventory: Inventory,
  tools: StepTools,
): Generator<Inner, void, undefined> {
  try {
    remember(record, { plan: tools.plans?.engine(record.hello, inventory, state) });
  } catch (error) {
    yield announceProblem(
      codeOf(error) ?? "ERR_LAZYGRAPH_INTERNAL",
      `Expected to look up what earlier starts of ${record.hello.engine} learned, ` +
        `but it starts without: ${messageOf(error)}`,
    );
  }
  const snapshot = record.course.plan?.snapshot;
  book(record, { plan: snapshot });
  if (snapshot === undefined || snapshot.starts === 0) return;
  const { starts, file, first } = snapshot;
  const reason = `${counted(starts, "earlier start")} needed ${counted(first.length, "graph")} (${file})`;
  yield* decided(record, { decision: "plan", reason }, tools);
}

/** The user's rules about graphs, against the graphs that an engine told. */

import type { Decision } from "../../schedule/policy.ts";
import {
  EXCLUDED_REASON,
  excludedGraphs,
  type PlanRules,
  unmatchedRules,
} from "../../schedule/rules.ts";
import type { EngineState } from "../../schedule/state.ts";
import { LIMITS, type Start } from "../../wire/protocol.ts";
import type { EngineRecord } from "../record.ts";
import { bookGraph } from "./booking.ts";
import type { Inner } from "./effects.ts";
import { announceProblem, firstOf } from "./tell.ts";

/** Refuses what the user excluded. */
export function applyRules(record: EngineRecord, rules: PlanRules): void {
  const { state } = record;
  if (state === undefined) return;
  for (const id of excludedGraphs(state.planned, rules)) {
    if (state.graphs.get(id)?.status !== "planned") continue;
    bookGraph(record, id, "refused", EXCLUDED_REASON);
  }
}

/** What comes before ready besides `start.graphs`, as the protocol has it. */
type More = Pick<Start, "more" | "budgetMs">;

/**
 * What of a first set has a budget, as an engine of this protocol version can take it. One of
 * version 1 knows none: those graphs come after ready.
 */
export function moreFor(
  { more = [], budgetMs = Number.POSITIVE_INFINITY }: Extract<Decision, { type: "start" }>,
  version: number,
): More {
  if (version < 2 || more.length === 0) return {};
  const ids = more.map(({ id }) => id);
  if (budgetMs === Number.POSITIVE_INFINITY) return { more: ids };
  return { more: ids, budgetMs: Math.min(LIMITS.budgetMsMax, Math.floor(budgetMs)) };
}

/** What of the rules an engine must know to keep to them without its controller. */
export function rulesAlone(
  { planned }: EngineState,
  rules: PlanRules,
): Pick<Start, "exclude" | "graphsMax"> {
  const exclude = excludedGraphs(planned, rules);
  const { graphsMax } = rules;
  return {
    ...(exclude.length === 0 ? {} : { exclude }),
    ...(graphsMax === undefined ? {} : { graphsMax }),
  };
}

/** A rule about no graph of this engine is most often a mistyped one. */
export function* announceUnmatched(
  record: EngineRecord,
  { planned }: EngineState,
  rules: PlanRules,
): Generator<Inner, void, undefined> {
  const unmatched = unmatchedRules(planned, rules);
  if (unmatched.length === 0) return;
  yield announceProblem(
    "ERR_LAZYGRAPH_OPTION",
    `Expected pinned and excluded graphs to be of ${record.hello.engine}'s plan, got ` +
      `${firstOf(unmatched)}: what matches nothing is ignored.`,
  );
}

/** Whether captures were ended from outside, all or some of them; the user's rules don't count. */
export function hasEnded({ frozenReason, state }: EngineRecord): boolean {
  if (frozenReason !== undefined) return true;
  return [...(state?.graphs.values() ?? [])].some(
    ({ status, reason }) => status === "refused" && reason !== EXCLUDED_REASON,
  );
}

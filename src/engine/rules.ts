/** The user's rules about graphs, against the graphs that an engine told. */

import type { Decision } from "../schedule/policy.ts";
import {
  EXCLUDED_REASON,
  excludedGraphs,
  type PlanRules,
  unmatchedRules,
} from "../schedule/rules.ts";
import type { EngineState } from "../schedule/state.ts";
import { LIMITS, type Start } from "../wire/protocol.ts";
import { announceProblem, firstOf } from "./announce.ts";
import { type EngineRecord, setStatus } from "./record.ts";

/** Refuses what the user excluded. */
export function applyRules({ state }: EngineRecord, rules: PlanRules): void {
  if (state === undefined) return;
  for (const id of excludedGraphs(state.planned, rules)) {
    const entry = state.graphs.get(id);
    if (entry?.status === "planned") setStatus(entry, "refused", EXCLUDED_REASON);
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
  if (!(budgetMs >= 0)) throw new RangeError(`start has a budget of ${budgetMs} ms`);
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
export function announceUnmatched(
  record: EngineRecord,
  { planned }: EngineState,
  rules: PlanRules,
): void {
  const unmatched = unmatchedRules(planned, rules);
  if (unmatched.length === 0) return;
  announceProblem(
    record,
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

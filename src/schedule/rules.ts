/**
 * What the user decided, around any policy: graphs that must be there, graphs that must not, and
 * how many at most.
 *
 * An entry names a graph by its id (`FULL:24`), all of a kind (`PIECEWISE`), all of a size (`24`),
 * or all sizes above or below one (`>256`, `<8`). Excluding wins over pinning, and who pins what is
 * excluded as a whole is told.
 */

import { type Graph, topGraphs } from "../base/graph.ts";
import type { Decision, Policy } from "./policy.ts";
import type { EngineState } from "./state.ts";

export interface PlanRules {
  /** Captured before ready. */
  readonly pin?: readonly string[];
  /** Never captured. */
  readonly exclude?: readonly string[];
  /** Graphs captured at most: tops first, then pinned ones, then what the policy asks for first. */
  readonly graphsMax?: number;
}

/** The reason that the caller gives the graphs it marks as refused. */
export const EXCLUDED_REASON = "excluded by the user";

/** Ids that the rules exclude: the caller marks them `refused` with the reason above. */
export function excludedGraphs(planned: readonly Graph[], rules: PlanRules): string[] {
  return matching(planned, rules.exclude).map((graph) => graph.id);
}

/** Entries that match no graph of the plan, each once: most likely misspelt. */
export function unmatchedRules(planned: readonly Graph[], rules: PlanRules): string[] {
  const entries = new Set([...(rules.pin ?? []), ...(rules.exclude ?? [])]);
  return [...entries].filter((entry) => !planned.some((graph) => matches(graph, entry)));
}

/**
 * The policy within the rules. It sees a plan without the excluded graphs, so that it pads to the
 * next size and takes other tops by itself.
 */
export function withRules(policy: Policy, rules: PlanRules): Policy {
  const graphsMax = rules.graphsMax ?? Number.POSITIVE_INFINITY;
  let view: EngineState | undefined;
  let viewed: EngineState | undefined;
  let viewedPlan: readonly Graph[] | undefined;
  let settled = false;

  /** The same state, always up to date, with a smaller plan. */
  function allowed(state: EngineState): EngineState {
    if (view !== undefined && viewed === state && viewedPlan === state.planned) return view;
    viewed = state;
    viewedPlan = state.planned;
    const excluded = new Set(excludedGraphs(state.planned, rules));
    const planned = state.planned.filter((graph) => !excluded.has(graph.id));
    view = Object.create(state, { planned: { value: planned, enumerable: true } }) as EngineState;
    return view;
  }

  function capped(state: EngineState, decisions: readonly Decision[]): readonly Decision[] {
    const count = heldCount(state);
    const room = graphsMax - count;
    if (!state.ready || room > 0) return decisions;
    const kept = decisions.filter(({ type }) => type !== "capture" && type !== "wait");
    const capturing = state.capturing !== undefined;
    if (kept.some(({ type }) => type === "settled")) settled = true;
    if (settled || state.settled || capturing) return kept;
    settled = true;
    const reason = `${count === 1 ? "1 graph is" : `${count} graphs are`} captured, and the user allows ${graphsMax}`;
    return [...kept, { type: "settled", reason }];
  }

  return {
    name: policy.name,
    decide(state, event) {
      const seen = allowed(state);
      const decisions = policy
        .decide(seen, event)
        .map((decision) =>
          decision.type === "start" ? startOf(decision, seen.planned, rules) : decision,
        );
      return capped(seen, decisions);
    },
  };
}

/** The policy's first set with the pinned graphs in it, in the policy's order, cut to the limit. */
function startOf(
  decision: Extract<Decision, { type: "start" }>,
  planned: readonly Graph[],
  rules: PlanRules,
): Decision {
  const pinned = matching(planned, rules.pin);
  const all = [...new Set([...decision.graphs, ...pinned])];
  const tops = topGraphs(planned).filter((graph) => all.includes(graph));
  const ranked = [...new Set([...tops, ...pinned, ...all])];
  const kept = new Set(ranked.slice(0, rules.graphsMax));
  const graphs = all.filter((graph) => kept.has(graph));
  const notes = [decision.reason];
  if (pinned.length > 0) notes.push(`${pinned.length} pinned by the user`);
  if (graphs.length < all.length) notes.push(`at most ${rules.graphsMax} as the user allows`);
  const room = (rules.graphsMax ?? Number.POSITIVE_INFINITY) - graphs.length;
  const more = (decision.more ?? []).filter((graph) => !all.includes(graph)).slice(0, room);
  const rest = more.length === 0 ? {} : { more };
  const budget = decision.budgetMs === undefined ? {} : { budgetMs: decision.budgetMs };
  return { type: "start", graphs, ...rest, ...budget, reason: notes.join("; ") };
}

/** Captured, or about to be. */
function heldCount(state: EngineState): number {
  let count = 0;
  for (const { graph, status } of state.graphs.values()) {
    if (status === "captured" || state.capturing === graph.id) count++;
  }
  return count;
}

function matching(planned: readonly Graph[], entries: readonly string[] = []): Graph[] {
  return planned.filter((graph) => entries.some((entry) => matches(graph, entry)));
}

/** A kind, or an id: what engines put after the size is theirs, and bounded. */
const KIND_OR_ID = /^(FULL|PIECEWISE)(:[1-9][0-9]{0,8}(:[\w.-]{1,64}){0,6})?$/;
const SIZE = /^([<>]?)([1-9][0-9]{0,8})$/;

/** Whether an entry could match a graph of some engine; no other is worth taking. */
export function isGraphRule(entry: unknown): boolean {
  if (typeof entry !== "string" || entry === "<1") return false;
  return KIND_OR_ID.test(entry) || SIZE.test(entry);
}

/**
 * A sentence about an entry of `pin` of which one of `exclude` leaves nothing.
 *
 * @param prefix of the options' names
 */
export function pinnedInVain(
  { pin = [], exclude = [] }: PlanRules,
  prefix = "",
): string | undefined {
  for (const entry of pin) {
    const by = exclude.find((each) => covers(each, entry));
    if (by === undefined) continue;
    return (
      `Expected ${prefix}pin to name graphs that may be captured, got "${entry}", and ` +
      `${prefix}exclude "${by}" leaves none of them: take one of the two out.`
    );
  }
  return undefined;
}

/** Whether every graph that `inner` matches is one of `outer`'s. */
function covers(outer: string, inner: string): boolean {
  if (outer === inner) return true;
  const [kind, tokens] = inner.split(":");
  if (outer === kind) return true;
  const [low, high] = sizesOf(tokens ?? inner);
  const [from, to] = sizesOf(outer);
  return from <= low && high <= to;
}

/** The first and the last size of an entry that is one of sizes; of another one none covers. */
function sizesOf(entry: string): [first: number, last: number] {
  const [, sign, text] = SIZE.exec(entry) ?? [];
  const tokens = Number(text);
  if (sign === ">") return [tokens + 1, Number.POSITIVE_INFINITY];
  return sign === "<" ? [1, tokens - 1] : [tokens, tokens];
}

function matches(graph: Graph, entry: string): boolean {
  if (entry === graph.id || entry === graph.kind) return true;
  const size = SIZE.exec(entry);
  if (size === null) return false;
  const tokens = Number(size[2]);
  if (size[1] === ">") return graph.tokens > tokens;
  if (size[1] === "<") return graph.tokens < tokens;
  return graph.tokens === tokens;
}

/** Plans put together: an older one with what a start learned, or two of different hosts. Pure. */

import { caseKey, caseOf, topGraphs } from "../base/graph.ts";
import type { PriorLoad } from "../schedule/costed/prior.ts";
import { neededGraphs } from "./needed.ts";
import type { Plan, PlanGraph, PlanTraffic } from "./plan.ts";
import type { Learned } from "./recorder.ts";

/** Below this a size is forgotten: less than one request waited on one step. */
const FORGOTTEN_REQUEST_STEPS = 0.5;
const LEARNED_BY_CHARS_MAX = 512;
const TRAFFIC_MAX = 4096;

/**
 * Traffic changes, and a plan must follow: starts that saw as many steps as are known halve these;
 * such as saw next to nothing leave them. What captures took stays true.
 */
export function agePlan(plan: Plan, news: readonly Pick<Learned, "traffic">[]): Plan {
  const before = stepsOf(plan.traffic);
  const own = news.reduce((sum, { traffic }) => sum + stepsOf(traffic), 0);
  const kept = 2 ** -Math.min(1, own / Math.max(1, before));
  const traffic = plan.traffic
    .map((row) => ({ ...row, requestSteps: row.requestSteps * kept, steps: row.steps * kept }))
    .filter(({ requestSteps }) => requestSteps >= FORGOTTEN_REQUEST_STEPS);
  const graphs = plan.graphs.map((graph) => ({ ...graph, regret: graph.regret * kept }));
  const load = sumOf(plan.load, undefined, kept);
  return { ...plan, ...(load === undefined ? {} : { load }), traffic, graphs };
}

/** What engines did with their time, together; `share` of it. */
function sumOf(
  a: PriorLoad | undefined,
  b: PriorLoad | undefined,
  share = 1,
): PriorLoad | undefined {
  if (a === undefined && b === undefined) return undefined;
  return {
    seconds: share * ((a?.seconds ?? 0) + (b?.seconds ?? 0)),
    workSeconds: share * ((a?.workSeconds ?? 0) + (b?.workSeconds ?? 0)),
  };
}

function stepsOf(traffic: readonly PlanTraffic[]): number {
  return traffic.reduce((sum, { steps }) => sum + steps, 0);
}

/** Adds what starts learned to a plan; the order comes out anew. */
export function addLearned(plan: Plan, news: readonly Learned[], starts: number): Plan {
  let { traffic, graphs, load } = plan;
  for (const learned of news) {
    traffic = combineTraffic(traffic, learned.traffic);
    graphs = combineGraphs(graphs, learned.graphs, "newer");
    load = sumOf(load, learned.load);
  }
  const known = load === undefined ? {} : { load };
  return ordered({ ...plan, starts: plan.starts + starts, ...known, traffic, graphs });
}

/**
 * What a start learned beyond what it had learned `then`: another controller has built on that in
 * the meantime, and it must not count twice.
 */
export function learnedSince(now: Learned, then: Learned): Learned {
  const rows = new Map(then.traffic.map((row) => [keyOf(row), row]));
  const traffic = now.traffic.map((row) => {
    const known = rows.get(keyOf(row));
    if (known === undefined) return row;
    return {
      ...row,
      requestSteps: beyond(row.requestSteps, known.requestSteps),
      steps: beyond(row.steps, known.steps),
      ungraphedTimed: beyond(row.ungraphedTimed, known.ungraphedTimed),
    };
  });
  const before = new Map(then.graphs.map((graph) => [graph.id, graph]));
  const graphs = now.graphs.map((graph) => {
    const known = before.get(graph.id);
    if (known === undefined) return graph;
    return {
      ...graph,
      replays: beyond(graph.replays, known.replays),
      regret: beyond(graph.regret, known.regret),
      timed: beyond(graph.timed, known.timed),
    };
  });
  const { load, ...rest } = now;
  if (load === undefined) return { ...rest, traffic, graphs };
  const seconds = beyond(load.seconds, then.load?.seconds ?? 0);
  const workSeconds = beyond(load.workSeconds, then.load?.workSeconds ?? 0);
  return { ...rest, load: { seconds, workSeconds }, traffic, graphs };
}

function beyond(now: number, then: number): number {
  return Math.max(0, now - then);
}

/** Both plans' traffic together. The caller has made sure that their fingerprints are the same. */
export function mergePlans(a: Plan, b: Plan): Plan {
  const [older, newer] = a.updatedAt <= b.updatedAt ? [a, b] : [b, a];
  const load = sumOf(older.load, newer.load);
  const merged = ordered({
    ...older,
    ...(load === undefined ? {} : { load }),
    starts: older.starts + newer.starts,
    traffic: combineTraffic(older.traffic, newer.traffic),
    graphs: combineGraphs(older.graphs, newer.graphs, "larger"),
  });
  const names = [...new Set([...older.learnedBy.split("; "), ...newer.learnedBy.split("; ")])];
  return {
    ...merged,
    createdAt: [a.createdAt, b.createdAt].sort()[0] ?? a.createdAt,
    updatedAt: newer.updatedAt,
    learnedBy: names.join("; ").slice(0, LEARNED_BY_CHARS_MAX),
  };
}

/** A plan for a fingerprint that nothing is known of yet. */
export function emptyPlan(
  head: Pick<Plan, "fingerprint" | "createdAt" | "learnedBy" | "simulated">,
): Plan {
  return { ...head, updatedAt: head.createdAt, starts: 0, traffic: [], graphs: [], first: [] };
}

function ordered(plan: Plan): Plan {
  const tops = new Set(topGraphs(plan.graphs).map(({ id }) => id));
  return { ...plan, first: neededGraphs(plan.graphs, plan.traffic, tops) };
}

function combineTraffic(
  a: readonly PlanTraffic[],
  b: readonly PlanTraffic[],
): readonly PlanTraffic[] {
  const rows = new Map(a.map((row) => [keyOf(row), row]));
  for (const row of b) {
    const known = rows.get(keyOf(row));
    rows.set(keyOf(row), known === undefined ? row : addTraffic(known, row));
  }
  const all = [...rows.values()];
  if (all.length > TRAFFIC_MAX) all.sort((x, y) => y.requestSteps - x.requestSteps);
  return all.slice(0, TRAFFIC_MAX).sort((x, y) => x.uniform - y.uniform || x.tokens - y.tokens);
}

function keyOf(row: PlanTraffic): string {
  return `${row.tokens}/${row.uniform}/${caseKey(row)}`;
}

function addTraffic(a: PlanTraffic, b: PlanTraffic): PlanTraffic {
  const seconds = weighed(
    a.ungraphedSeconds,
    a.ungraphedTimed,
    b.ungraphedSeconds,
    b.ungraphedTimed,
  );
  return {
    ...b,
    requestSteps: a.requestSteps + b.requestSteps,
    steps: a.steps + b.steps,
    ungraphedSeconds: seconds,
    ungraphedTimed: a.ungraphedTimed + b.ungraphedTimed,
  };
}

function combineGraphs(
  a: readonly PlanGraph[],
  b: readonly PlanGraph[],
  choose: "newer" | "larger",
): readonly PlanGraph[] {
  const graphs = new Map(a.map((graph) => [graph.id, graph]));
  for (const graph of b) {
    const known = graphs.get(graph.id);
    graphs.set(graph.id, known === undefined ? graph : addGraph(known, graph, choose));
  }
  return [...graphs.values()];
}

function addGraph(a: PlanGraph, b: PlanGraph, choose: "newer" | "larger"): PlanGraph {
  const captureMs = b.captureMs ?? a.captureMs;
  // Of two hosts the larger figure: who reserves memory by it must not come out short.
  const bytes =
    choose === "larger" && a.bytes !== undefined && b.bytes !== undefined
      ? Math.max(a.bytes, b.bytes)
      : (b.bytes ?? a.bytes);
  return {
    id: b.id,
    kind: b.kind,
    tokens: b.tokens,
    ...(b.uniform === undefined ? {} : { uniform: b.uniform }),
    ...caseOf(b),
    replays: a.replays + b.replays,
    regret: a.regret + b.regret,
    stepSeconds: weighed(a.stepSeconds, a.timed, b.stepSeconds, b.timed),
    timed: a.timed + b.timed,
    ...(captureMs === undefined ? {} : { captureMs }),
    ...(bytes === undefined ? {} : { bytes }),
  };
}

/** The mean by weight; the second value where neither has any. */
function weighed(a: number, aWeight: number, b: number, bWeight: number): number {
  const weight = aWeight + bWeight;
  return weight > 0 ? (a * aWeight + b * bWeight) / weight : b;
}

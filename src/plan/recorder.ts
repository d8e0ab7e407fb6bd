/**
 * What one start of one engine learned for the next: demand by planned size, step times, what
 * captures took. Pure: it reads what the engine's observer saw, whatever the policy made of it.
 */

import { caseKey, caseOf, type Graph, idealGraph, type StepShape } from "../base/graph.ts";
import type { LaneDemand } from "../schedule/costed/demand.ts";
import type { StepObserver } from "../schedule/costed/observer.ts";
import type { PriorLoad } from "../schedule/costed/prior.ts";
import type { EngineState } from "../schedule/state.ts";
import type { PlanGraph, PlanTraffic } from "./plan.ts";

/** What one start learned so far. */
export interface Learned {
  readonly traffic: readonly PlanTraffic[];
  readonly graphs: readonly PlanGraph[];
  /** Absent where no step was timed. */
  readonly load?: PriorLoad;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** What was learned so far, if anything; `state` knows captures and replays. */
export function learnedOf(observer: StepObserver, state: EngineState): Learned | undefined {
  const traffic = trafficOf(observer);
  const captures = [...state.graphs.values()].some(({ captureMs }) => captureMs !== undefined);
  if (traffic.length === 0 && !captures) return undefined;
  const graphs = observer.planned.map((graph) => learnedGraph(graph, observer, state));
  const { seconds, workSeconds } = observer;
  return { traffic, graphs, ...(seconds > 0 ? { load: { seconds, workSeconds } } : {}) };
}

/** Steps by the planned size of their ideal graph, uniform length and case. */
function trafficOf(observer: StepObserver): PlanTraffic[] {
  const rows = new Map<string, Mutable<PlanTraffic>>();
  for (const demand of observer.demand.lanes) {
    for (let size = 0; size < demand.requestSteps.length; size++) {
      if (demand.steps(size) > 0) addRow(rows, demand, size, observer);
    }
  }
  return [...rows.values()].sort((a, b) => a.uniform - b.uniform || a.tokens - b.tokens);
}

function addRow(
  rows: Map<string, Mutable<PlanTraffic>>,
  demand: LaneDemand,
  size: number,
  { planned, costs }: StepObserver,
): void {
  const { uniform, requests, stepCase } = demand.lane;
  const tokens = costs.shapes.sizes[size] ?? 0;
  const each = uniform > 0 ? Math.ceil(tokens / uniform) : requests;
  const ideal = idealGraph(planned, { tokens, requests: each, uniform, ...stepCase });
  if (ideal === undefined) return;
  const key = `${ideal.tokens}/${uniform}/${caseKey(stepCase)}`;
  let row = rows.get(key);
  if (row === undefined) {
    const largest = { ...largestStep(ideal.tokens, uniform), ...stepCase };
    row = {
      tokens: ideal.tokens,
      uniform,
      ...stepCase,
      requestSteps: 0,
      steps: 0,
      ungraphedSeconds: costs.ungraphedSeconds(largest).value,
      ungraphedTimed: 0,
    };
    rows.set(key, row);
  }
  row.requestSteps += demand.requestSteps[size] ?? 0;
  row.steps += demand.steps(size);
  row.ungraphedTimed += demand.ungraphedTimed(size);
}

function learnedGraph(
  graph: Graph,
  { costs, strays, timed }: StepObserver,
  state: EngineState,
): PlanGraph {
  const entry = state.graphs.get(graph.id);
  const { captureMs, bytes } = entry ?? {};
  const stepSeconds = costs.graphSeconds(graph).value;
  const stray = strays.get(graph.id);
  let regret = 0;
  if (stray !== undefined) {
    const largest = { ...largestStep(graph.tokens, graph.uniform ?? 0), ...caseOf(graph) };
    const took =
      stray.timed > 0 ? stray.seconds / stray.timed : costs.ungraphedSeconds(largest).value;
    regret = Math.max(0, took - stepSeconds) * stray.requestSteps;
  }
  return {
    id: graph.id,
    kind: graph.kind,
    tokens: graph.tokens,
    ...(graph.uniform === undefined ? {} : { uniform: graph.uniform }),
    ...caseOf(graph),
    replays: entry?.replays ?? 0,
    regret,
    stepSeconds,
    timed: timed[costs.shapes.places.get(graph.id) ?? -1] ?? 0,
    ...(captureMs === undefined ? {} : { captureMs }),
    // Growth is measured, and may come out below zero when something else let go.
    ...(bytes === undefined ? {} : { bytes: Math.max(0, bytes) }),
  };
}

/** The step that the others of its size are padded to. */
function largestStep(tokens: number, uniform: number): StepShape {
  return { tokens, requests: uniform > 0 ? Math.ceil(tokens / uniform) : 1, uniform };
}

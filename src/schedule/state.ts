/**
 * What the scheduler knows of one engine. The controller updates it from messages, the simulator
 * from its own events; policies only read it.
 */

import { type Graph, idealGraph, type StepShape } from "../base/graph.ts";

export interface GraphState {
  readonly graph: Graph;
  readonly status: "planned" | "captured" | "refused" | "failed";
  /** Milliseconds and bytes its capture took; undefined until captured. */
  readonly captureMs?: number;
  readonly bytes?: number;
  /** Why it is where it is: the last decision's or refusal's sentence. */
  readonly reason?: string;
  /** Refused for want of memory: planned again as soon as there is room. */
  readonly retryable?: boolean;
  /** Steps whose ideal graph this is, since the engine started. */
  readonly wanted: number;
  /** Steps it served. */
  readonly replays: number;
  readonly lastUsedSeconds?: number;
}

export interface EngineState {
  readonly graphs: ReadonlyMap<string, GraphState>;
  /** All graphs in stock's order. */
  readonly planned: readonly Graph[];
  readonly ready: boolean;
  readonly idle: boolean;
  /** The graph whose capture is under way. */
  readonly capturing: string | undefined;
  readonly frozen: boolean;
  readonly settled: boolean;
  readonly running: number;
  readonly waiting: number;
  readonly stepsExact: number;
  readonly stepsPadded: number;
  readonly stepsUngraphed: number;
}

/** The same for its owner, who alone may change it. */
export type WritableGraph = { -readonly [K in keyof GraphState]: GraphState[K] };
export type WritableState = {
  -readonly [K in Exclude<keyof EngineState, "graphs">]: EngineState[K];
} & { readonly graphs: ReadonlyMap<string, WritableGraph> };

export function createEngineState(planned: readonly Graph[]): WritableState {
  return {
    graphs: new Map(
      planned.map((graph) => [graph.id, { graph, status: "planned", wanted: 0, replays: 0 }]),
    ),
    planned,
    ready: false,
    idle: false,
    capturing: undefined,
    frozen: false,
    settled: false,
    running: 0,
    waiting: 0,
    stepsExact: 0,
    stepsPadded: 0,
    stepsUngraphed: 0,
  };
}

export function capturedGraphs(state: EngineState): Graph[] {
  return state.planned.filter((graph) => state.graphs.get(graph.id)?.status === "captured");
}

export function missingGraphs(state: EngineState): Graph[] {
  return state.planned.filter((graph) => state.graphs.get(graph.id)?.status === "planned");
}

/** How many graphs wait for memory: as long as any does, captures have not come to their end. */
export function waitingForMemory(state: EngineState): number {
  let count = 0;
  for (const { status, retryable } of state.graphs.values()) {
    if (status === "refused" && retryable === true) count++;
  }
  return count;
}

/**
 * Books `count` steps of one shape: who was wanted, who served.
 *
 * @param ideal the graph that stock would replay for them
 */
export function recordSteps(
  state: WritableState,
  step: StepShape,
  served: string,
  count: number,
  atSeconds: number,
  ideal: Graph | undefined = idealGraph(state.planned, step),
): void {
  if (ideal !== undefined) {
    const wanted = state.graphs.get(ideal.id);
    if (wanted !== undefined) wanted.wanted += count;
  }
  const server = served === "" ? undefined : state.graphs.get(served);
  if (server === undefined) {
    state.stepsUngraphed += count;
    return;
  }
  server.replays += count;
  server.lastUsedSeconds = atSeconds;
  if (server.graph.id === ideal?.id) state.stepsExact += count;
  else state.stepsPadded += count;
}

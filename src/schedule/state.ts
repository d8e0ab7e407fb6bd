/**
 * What the scheduler knows of one engine. The controller updates it from messages, the simulator
 * from its own events; policies only read it.
 */

import { type Graph, idealGraph, type StepShape } from "../base/graph.ts";

export interface GraphState {
  readonly graph: Graph;
  readonly status: "planned" | "captured" | "refused" | "failed";
  /** Milliseconds and bytes its capture took; undefined until captured. */
  readonly captureMs?: number | undefined;
  readonly bytes?: number | undefined;
  /** Why it is where it is: the last decision's or refusal's sentence. */
  readonly reason?: string | undefined;
  /** Refused for want of memory: planned again as soon as there is room. */
  readonly retryable?: boolean | undefined;
  /** Steps whose ideal graph this is, since the engine started. */
  readonly wanted: number;
  /** Steps it served. */
  readonly replays: number;
}

export interface EngineState {
  readonly graphs: ReadonlyMap<string, GraphState>;
  /** All graphs in stock's order. */
  readonly planned: readonly Graph[];
  readonly ready: boolean;
  readonly idle: boolean;
  /** The graph being captured. */
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
} & {
  readonly graphs: ReadonlyMap<string, WritableGraph>;
  /** The same by place in the plan: every step is booked here. */
  readonly entries: readonly WritableGraph[];
};

export function createEngineState(planned: readonly Graph[]): WritableState {
  const entries = planned.map((graph): WritableGraph => {
    return {
      graph,
      status: "planned",
      captureMs: undefined,
      bytes: undefined,
      reason: undefined,
      retryable: undefined,
      wanted: 0,
      replays: 0,
    };
  });
  return {
    graphs: new Map(entries.map((entry) => [entry.graph.id, entry])),
    entries,
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

/** How many graphs wait for memory: as long as any does, captures haven't ended. */
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
  ideal: Graph | undefined = idealGraph(state.planned, step),
): void {
  const wanted = ideal === undefined ? undefined : state.graphs.get(ideal.id);
  const server = served === "" ? undefined : state.graphs.get(served);
  bookSteps(state, wanted, server, count);
}

/** The same where it is known who was wanted and who served; undefined: nobody. */
export function bookSteps(
  state: WritableState,
  wanted: WritableGraph | undefined,
  server: WritableGraph | undefined,
  count: number,
): void {
  if (wanted !== undefined) wanted.wanted += count;
  if (server === undefined) {
    state.stepsUngraphed += count;
    return;
  }
  server.replays += count;
  if (server === wanted) state.stepsExact += count;
  else state.stepsPadded += count;
}

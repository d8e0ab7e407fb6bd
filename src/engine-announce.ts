/** Turns what happened to an engine into events for whoever listens. */

import {
  type EngineRecord,
  forecastOf,
  freeBytesMin,
  reasonOf,
  takenBytes,
} from "./engine-record.ts";
import { type EngineEventBase, publish } from "./events.ts";
import { memoryLine } from "./memory-line.ts";
import { capturedGraphs, type EngineState } from "./schedule/state.ts";
import type { CaptureResult } from "./wire/protocol.ts";

export function eventBase(record: EngineRecord): EngineEventBase {
  const { engine, session } = record.hello;
  return { engine, session, atUnixMs: Date.now() };
}

export function countsOf(state: EngineState): { graphsCaptured: number; graphsPlanned: number } {
  return { graphsCaptured: capturedGraphs(state).length, graphsPlanned: state.planned.length };
}

export function announceResult(
  record: EngineRecord,
  message: CaptureResult,
  state: EngineState,
): void {
  const base = eventBase(record);
  const { graph, outcome } = message;
  if (outcome === "captured" || outcome === "already") {
    const { ms, stallMs, bytes } = message;
    publish("lazygraph:capture:end", { ...base, graph, ms, stallMs, bytes, ...countsOf(state) });
    return;
  }
  publish(`lazygraph:capture:${outcome}`, {
    ...base,
    graph,
    reason: reasonOf(message),
    ...(outcome === "failed" ? { code: "ERR_LAZYGRAPH_CAPTURE_FAILED" } : {}),
  });
}

/** After the first graphs: what they took, what is free, and what the rest will take. */
export function announceMemory(record: EngineRecord, state: EngineState): void {
  const forecast = forecastOf(record);
  if (forecast === undefined) return;
  const taken = takenBytes(state);
  const freeBytes = freeBytesMin(record.ranks);
  const line = memoryLine({
    engine: record.hello.engine,
    graphsCaptured: capturedGraphs(state).length,
    takenBytes: taken,
    freeBytes,
    forecast,
  });
  record.memoryLine = line;
  publish("lazygraph:engine:memory", {
    ...eventBase(record),
    takenBytes: taken,
    ...(freeBytes === undefined ? {} : { freeBytes }),
    forecast,
    line,
  });
}

/** Turns what happened to an engine into events for whoever listens. */

import { type EngineRecord, forecastOf, reasonOf, takenBytes } from "./engine-record.ts";
import { type EngineEventBase, publish } from "./events.ts";
import { type MemoryFigures, memoryAdvice, memoryLine, verdictOf } from "./memory-line.ts";
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

/** After the first graphs: what they took, what is free, and whether the rest will fit. */
export function announceMemory(record: EngineRecord, state: EngineState): void {
  const figures = memoryFigures(record, state);
  if (figures === undefined) return;
  const { takenBytes: taken, headroom, forecast } = figures;
  const advice = memoryAdvice(figures);
  const line = memoryLine(figures);
  record.memoryLine = line;
  publish("lazygraph:engine:memory", {
    ...eventBase(record),
    takenBytes: taken,
    ...(headroom === undefined
      ? {}
      : {
          freeBytes: headroom.freeBytes,
          servingBytes: headroom.spokenForBytes,
          headroomBytes: headroom.bytes,
        }),
    forecast,
    verdict: verdictOf(forecast, headroom),
    ...(advice === undefined ? {} : { advice }),
    line,
  });
}

function memoryFigures(record: EngineRecord, state: EngineState): MemoryFigures | undefined {
  const forecast = forecastOf(record);
  if (forecast === undefined) return undefined;
  return {
    engine: record.hello.engine,
    graphsCaptured: capturedGraphs(state).length,
    takenBytes: takenBytes(state),
    headroom: record.guard?.headroom(),
    forecast,
    reserve: record.inventory?.reserve?.mode,
    utilization: record.utilization,
  };
}

/** Turns what happened to an engine, and what was decided for it, into events for listeners. */

import { codeOf, type LazygraphError, messageOf } from "../base/errors.ts";
import { capturedGraphs, type EngineState } from "../schedule/state.ts";
import type { CaptureResult, Ready, Telemetry } from "../wire/protocol.ts";
import {
  type CaptureStartEvent,
  type DecisionEvent,
  type EngineEventBase,
  type MemoryRefusedEvent,
  publish,
  publishProblem,
} from "./events.ts";
import { type MemoryFigures, memoryAdvice, memoryLine, mib, verdictOf } from "./memory-line.ts";
import { type EngineRecord, forecastOf, noteDecision, reasonOf, takenBytes } from "./record.ts";

function eventBase(record: EngineRecord): EngineEventBase {
  const { engine, session } = record.hello;
  return { engine, session, atUnixMs: Date.now() };
}

function countsOf(state: EngineState): { graphsCaptured: number; graphsPlanned: number } {
  return { graphsCaptured: capturedGraphs(state).length, graphsPlanned: state.planned.length };
}

/** @param reconnected whether the same process was here before */
export function announceJoin(record: EngineRecord, reconnected: boolean): void {
  const { hello, mode } = record;
  const simulated = hello.simulated !== undefined;
  publish("lazygraph:engine:join", {
    ...eventBase(record),
    model: hello.model,
    mode,
    reconnected,
    simulated,
  });
}

export function announceLost(record: EngineRecord, { code, message }: LazygraphError): void {
  const { goodbye } = record;
  publish("lazygraph:engine:lost", {
    ...eventBase(record),
    code,
    reason: message,
    ...(goodbye === undefined ? {} : { goodbye }),
  });
}

export function announceReady(record: EngineRecord, message: Ready, state: EngineState): void {
  publish("lazygraph:engine:ready", {
    ...eventBase(record),
    captureSeconds: message.captureSeconds,
    ...countsOf(state),
  });
}

export function announceSettled(record: EngineRecord, reason: string, state: EngineState): void {
  const seconds = record.readyToSettledSeconds;
  publish("lazygraph:engine:settled", {
    ...eventBase(record),
    reason,
    ...(seconds === undefined ? {} : { readyToSettledSeconds: seconds }),
    ...countsOf(state),
  });
}

/** What was decided is remembered too, for people who ask later. */
export function announceDecision(
  record: EngineRecord,
  decision: Pick<DecisionEvent, "decision" | "graph" | "reason">,
): void {
  noteDecision(record, { atUnixMs: Date.now(), ...decision });
  publish("lazygraph:decision", { ...eventBase(record), ...decision });
}

export function announceProblem({ hello }: EngineRecord, code: string, message: string): void {
  publishProblem(hello.engine, code, message);
}

export function announceSteps(record: EngineRecord, message: Telemetry): void {
  const { running, waiting, steps } = message;
  publish("lazygraph:engine:steps", { ...eventBase(record), running, waiting, steps });
}

/**
 * @param where the message that names graphs which the plan doesn't have
 * @param asked whether a fresh inventory is asked for
 */
export function announceUnknown(
  record: EngineRecord,
  graphs: readonly string[],
  where: string,
  asked: boolean,
): void {
  announceProblem(
    record,
    "ERR_LAZYGRAPH_UNKNOWN_GRAPH",
    `Expected ${where} of ${record.hello.engine} to name graphs of its inventory, got ` +
      `${firstOf(graphs)}: ${asked ? "asked for a fresh inventory" : "left them out"}.`,
  );
}

/** The first three names of a list that may be long. */
export function firstOf(names: readonly string[]): string {
  return `${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""}`;
}

export function announceCapture(
  record: EngineRecord,
  capture: Omit<CaptureStartEvent, keyof EngineEventBase>,
): void {
  publish("lazygraph:capture:start", { ...eventBase(record), ...capture });
}

/** The engine was lost with this capture open. */
export function announceUnanswered(record: EngineRecord, graph: string, error: unknown): void {
  const code = codeOf(error) ?? "ERR_LAZYGRAPH_INTERNAL";
  const reason = messageOf(error);
  publish("lazygraph:capture:failed", { ...eventBase(record), graph, reason, code });
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

/**
 * Graphs were refused for want of memory.
 *
 * @param reason as the end of a sentence about them
 */
export function announceRefused(
  record: EngineRecord,
  state: EngineState,
  refusal: Omit<MemoryRefusedEvent, keyof EngineEventBase | "line">,
  reason: string,
): void {
  const figures = memoryFigures(record, state);
  const advice = figures && memoryAdvice(figures);
  const { graphs } = refusal;
  const which = graphs.length === 1 ? graphs[0] : `${graphs.length} graphs (${graphs[0]}, …)`;
  publish("lazygraph:memory:refused", {
    ...eventBase(record),
    ...refusal,
    line:
      `${record.hello.engine}: not captured for want of memory: ${which}, which ${reason}` +
      (advice === undefined ? "" : `. To have them all, ${advice}`),
  });
}

/** Graphs that were refused for want of memory are asked for again. */
export function announceRoom(
  record: EngineRecord,
  graphs: readonly string[],
  availableBytes: number,
): void {
  publish("lazygraph:memory:room", {
    ...eventBase(record),
    graphs,
    availableBytes,
    line:
      `${record.hello.engine}: there is room for ${graphs.length} graphs again ` +
      `(${mib(availableBytes)})`,
  });
}

/** A tier was given up because serving ran short of memory. */
export function announceDropped(
  record: EngineRecord,
  graphs: readonly string[],
  freedBytes: number,
): void {
  publish("lazygraph:memory:dropped", {
    ...eventBase(record),
    graphs,
    freedBytes,
    line:
      `${record.hello.engine}: free memory fell below what serving needs: dropped ` +
      `${graphs.length} graphs of the least use, ${mib(freedBytes)} came back`,
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

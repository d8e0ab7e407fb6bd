/** What happened to an engine, and what was decided for it, as events for listeners. Pure. */

import { counted } from "../../base/counted.ts";
import { codeOf, type LazygraphError, messageOf } from "../../base/errors.ts";
import { mib } from "../../base/units.ts";
import { capturedGraphs, type EngineState } from "../../schedule/state.ts";
import type { CaptureResult, Ready, Telemetry } from "../../wire/protocol.ts";
import type {
  CaptureStartEvent,
  DecisionEvent,
  EngineEventBase,
  MemoryRefusedEvent,
} from "../events.ts";
import { type MemoryFigures, memoryAdvice, memoryLine, verdictOf } from "../memory-line.ts";
import { type EngineRecord, forecastOf, reasonOf, takenBytes } from "../record.ts";
import type { PublishEffect } from "./effects.ts";

function tell<E extends PublishEffect, K extends E["name"]>(
  name: K,
  event: Extract<E, { name: K }>["event"],
): Extract<PublishEffect, { name: K }> {
  return { type: "publish", name, event } as unknown as Extract<PublishEffect, { name: K }>;
}

function countsOf(state: EngineState): { graphsCaptured: number; graphsPlanned: number } {
  return { graphsCaptured: capturedGraphs(state).length, graphsPlanned: state.planned.length };
}

/** @param reconnected whether the same process was here before */
export function announceJoin(record: EngineRecord, reconnected: boolean): PublishEffect {
  const { hello, mode } = record;
  const simulated = hello.simulated !== undefined;
  return tell("lazygraph:engine:join", {
    model: hello.model,
    mode,
    reconnected,
    simulated,
  });
}

export function announceLost(
  record: EngineRecord,
  { code, message }: LazygraphError,
): PublishEffect {
  const { goodbye } = record;
  return tell("lazygraph:engine:lost", {
    code,
    reason: message,
    ...(goodbye === undefined ? {} : { goodbye }),
  });
}

export function announceReady(message: Ready, state: EngineState): PublishEffect {
  return tell("lazygraph:engine:ready", {
    captureSeconds: message.captureSeconds,
    ...countsOf(state),
  });
}

export function announceSettled(
  record: EngineRecord,
  reason: string,
  state: EngineState,
): PublishEffect {
  const seconds = record.readyToSettledSeconds;
  return tell("lazygraph:engine:settled", {
    reason,
    ...(seconds === undefined ? {} : { readyToSettledSeconds: seconds }),
    ...countsOf(state),
  });
}

export function announceAsleep({ asleep }: EngineRecord): PublishEffect {
  return tell("lazygraph:engine:asleep", { asleep });
}

export function announceDecision(
  decision: Pick<DecisionEvent, "decision" | "graph" | "reason">,
): PublishEffect {
  return tell("lazygraph:decision", { ...decision });
}

export function announceProblem(code: string, message: string): PublishEffect {
  return tell("lazygraph:problem", { code, message });
}

export function announceSteps(message: Telemetry): PublishEffect {
  const { running, waiting, steps } = message;
  return tell("lazygraph:engine:steps", { running, waiting, steps });
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
): PublishEffect {
  return announceProblem(
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
  capture: Omit<CaptureStartEvent, keyof EngineEventBase>,
): PublishEffect {
  return tell("lazygraph:capture:start", { ...capture });
}

/** The engine was lost with this capture open. */
export function announceUnanswered(graph: string, error: unknown): PublishEffect {
  const code = codeOf(error) ?? "ERR_LAZYGRAPH_INTERNAL";
  const reason = messageOf(error);
  return tell("lazygraph:capture:failed", { graph, reason, code });
}

export function announceResult(message: CaptureResult, state: EngineState): PublishEffect {
  const { graph, outcome } = message;
  if (outcome === "captured" || outcome === "already") {
    const { ms, stallMs, bytes } = message;
    return tell("lazygraph:capture:end", { graph, ms, stallMs, bytes, ...countsOf(state) });
  }
  return tell(`lazygraph:capture:${outcome}`, {
    graph,
    reason: reasonOf(message),
    ...(outcome === "failed" ? { code: "ERR_LAZYGRAPH_CAPTURE_FAILED" } : {}),
  });
}

/** After the first graphs: what they took, what is free, and whether the rest will fit. */
export function announceMemory(
  record: EngineRecord,
  state: EngineState,
): Extract<PublishEffect, { name: "lazygraph:engine:memory" }> | undefined {
  const figures = memoryFigures(record, state);
  if (figures === undefined) return undefined;
  const { takenBytes: taken, headroom, forecast } = figures;
  const advice = memoryAdvice(figures);
  const line = memoryLine(figures);
  return tell("lazygraph:engine:memory", {
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
): PublishEffect {
  const figures = memoryFigures(record, state);
  const advice = figures && memoryAdvice(figures);
  const { graphs } = refusal;
  const which = graphs.length === 1 ? graphs[0] : `${graphs.length} graphs (${graphs[0]}, …)`;
  return tell("lazygraph:memory:refused", {
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
): PublishEffect {
  return tell("lazygraph:memory:room", {
    graphs,
    availableBytes,
    line:
      `${record.hello.engine}: there is room for ${counted(graphs.length, "graph")} again ` +
      `(${mib(availableBytes)})`,
  });
}

/** A tier was given up because serving ran short of memory. */
export function announceDropped(
  record: EngineRecord,
  graphs: readonly string[],
  freedBytes: number,
): PublishEffect {
  return tell("lazygraph:memory:dropped", {
    graphs,
    freedBytes,
    line:
      `${record.hello.engine}: free memory fell below what serving needs: dropped ` +
      `${counted(graphs.length, "graph")} of the least use, ${mib(freedBytes)} came back`,
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

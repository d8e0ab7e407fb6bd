/**
 * What the modes share: the first set, a new dispatch table whenever the captured set changed, and
 * one `settled`. A mode adds which graphs come first and which one is next.
 */

import type { Graph } from "../../base/graph.ts";
import { dispatchTable } from "../dispatch.ts";
import type { Choice } from "../order.ts";
import {
  type Decision,
  type DispatchTable,
  type EngineEvent,
  type Policy,
  settledWith,
} from "../policy.ts";
import { capturedGraphs, type EngineState, missingGraphs, waitingForMemory } from "../state.ts";

export interface Next extends Choice {
  readonly whenIdle: boolean;
}

export interface ModeRules {
  readonly name: string;
  /** What to capture before ready, and why. */
  readonly first: (planned: readonly Graph[]) => { graphs: readonly Graph[]; reason: string };
  /** The next capture after ready. */
  readonly next: (state: EngineState, event: EngineEvent) => Next | undefined;
  /** True when nothing is captured after ready: what is missing then stays missing. */
  readonly endsAtReady: boolean;
  /** Which captured graph serves which step. @default padded up to a limit */
  readonly table?: (planned: readonly Graph[], captured: readonly Graph[]) => DispatchTable;
}

/** Seconds until an engine that deferred a capture is asked again, if no idle edge comes first. */
const DEFERRED_RETRY_SECONDS = 1;

export function createModePolicy(rules: ModeRules): Policy {
  const tableOf = rules.table ?? dispatchTable;
  let tableKey: string | undefined;
  let settled = false;
  let retryAtSeconds = Number.NEGATIVE_INFINITY;
  let askedWhenIdle: string | undefined;

  function table(state: EngineState, event: EngineEvent): Decision[] {
    const captured = capturedGraphs(state);
    const key = captured.map((graph) => graph.id).join(" ");
    // After an inventory the engine may be another process, without any table.
    if (key === tableKey && event.type !== "inventory") return [];
    tableKey = key;
    const reason = `${captured.length} of ${state.planned.length} graphs are captured`;
    return [{ type: "dispatch", table: tableOf(state.planned, captured), reason }];
  }

  function settle(state: EngineState): Decision[] {
    if (settled || state.settled) return [];
    const missing = missingGraphs(state).length;
    const open = missing > 0 || waitingForMemory(state) > 0;
    if (!state.frozen && !rules.endsAtReady && open) return [];
    settled = true;
    const why = state.frozen ? "captures are frozen" : `${rules.name} mode captures before ready`;
    return [settledWith(missing, why)];
  }

  function capture(state: EngineState, event: EngineEvent): Decision[] {
    if (state.frozen || state.settled || settled) return [];
    const next = rules.next(state, event);
    if (next === undefined) return [];
    const waitSeconds = retryAtSeconds - event.atSeconds;
    if (waitSeconds <= 0 || (!next.whenIdle && askedWhenIdle !== undefined)) {
      askedWhenIdle = next.whenIdle ? next.graph.id : undefined;
      return [{ type: "capture", ...next }];
    }
    const reason = `${next.graph.id}: the engine deferred a capture`;
    // One wait per deferral; a timer that fires a little early asks once more.
    return event.type === "deferred" || event.type === "tick"
      ? [{ type: "wait", seconds: waitSeconds, reason }]
      : [];
  }

  return {
    name: rules.name,
    decide(state, event) {
      if (event.type === "idle" || event.type === "inventory") {
        retryAtSeconds = Number.NEGATIVE_INFINITY;
      }
      if (event.type === "deferred") retryAtSeconds = event.atSeconds + DEFERRED_RETRY_SECONDS;
      if (event.type === "inventory" && !state.ready) {
        return [{ type: "start", ...rules.first(state.planned) }];
      }
      // No table before ready: an engine whose controller then ends would serve by an empty one.
      if (!state.ready) return [];
      const decisions = table(state, event);
      if (state.capturing !== undefined) return decisions;
      return [...decisions, ...settle(state), ...capture(state, event)];
    },
  };
}

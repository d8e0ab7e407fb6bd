/** The head of a run, the same for engines in real time and in virtual time. */

import { LazygraphError } from "../base/errors.ts";
import { defined } from "./fields.ts";
import { hostFacts } from "./host.ts";
import type { Load, ScheduledRequest } from "./load.ts";
import type { AskedFields, RunHead } from "./samples.ts";
import type { BenchSpec, CellName, ModeSpec } from "./spec.ts";
import { storedMode } from "./stored-mode.ts";

export interface CellPlan {
  readonly spec: BenchSpec;
  readonly cell: CellName;
  readonly schedule: readonly ScheduledRequest[];
}

export function modeOf({ spec, cell }: CellPlan): ModeSpec {
  return spec.modes[cell.mode] as ModeSpec;
}

export function loadOf({ spec, cell }: CellPlan): Load {
  return spec.loads[cell.load] as Load;
}

/** Of a run that has just begun; `more` is what has become known. */
export function headOf(plan: CellPlan, startedAt: string, more: Partial<RunHead>): RunHead {
  const { spec, cell, schedule } = plan;
  const load = loadOf(plan);
  return {
    format: 1,
    cell,
    status: "running",
    startedAt,
    host: hostFacts([]),
    mode: storedMode(modeOf(plan)),
    load,
    start: load.start ?? "ready",
    endpoint: spec.endpoint,
    asked: askedOf(spec),
    requestsScheduled: schedule.length,
    times: {},
    ...more,
  };
}

export function askedOf(spec: AskedFields): AskedFields {
  const { ignoreEos, maxTokensSent, streamOptions, textPrompts, numWarmups, model } = spec;
  return {
    ignoreEos,
    textPrompts,
    numWarmups,
    ...defined({ maxTokensSent, streamOptions, model }),
  };
}

export function neverSettled(secondsMax: number): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_BENCH",
    `Expected the engine to settle within ${secondsMax} s, but it did not: ` +
      'start the load at "ready", or use another mode.',
  );
}

/** How it went, where nothing ended it early. */
export function verdictOf(scheduled: number, done: number, failed: number): Partial<RunHead> {
  if (scheduled > 0 && failed === done)
    return { status: "partial", reason: "No request succeeded." };
  return { status: "complete", ...(failed > 0 ? { requestsFailed: failed } : {}) };
}

/** What the controller knows of one engine. Read by all who like; written by booking.ts alone. */

import type { Forecast } from "../memory/forecast.ts";
import type { MemoryGuard } from "../memory/guard.ts";
import type { EnginePlan, PlanSnapshot } from "../plan/engine-plan.ts";
import { Announced } from "../schedule/announced.ts";
import type { ExplainingPolicy } from "../schedule/choice.ts";
import type { EngineState, GraphState } from "../schedule/state.ts";
import type {
  CaptureResult,
  Hello,
  Inventory,
  Mode,
  Orders,
  Phase,
  PhaseSeconds,
  RankMemory,
} from "../wire/protocol.ts";
import { DecisionLog } from "./decision-log.ts";
import { EarlyArrivals } from "./early-arrivals.ts";

/** What went wrong with an engine so far, by kind. */
export interface ProblemCounts {
  /** Frames that were no message. */
  malformed: number;
  /** Messages of a type this version doesn't know. */
  unknownTypes: number;
  /** Graphs named that are not in the inventory. */
  unknownGraphs: number;
  /** Frames dropped unread because the engine sent too many. */
  flooded: number;
  /** Batches and steps the engine itself could not report. */
  telemetryDropped: number;
  /** Problems the engine reported. */
  reported: number;
  /** Times this name was taken from another process that was still connected. */
  replaced: number;
  /** Times that another key, or none, asked for this name and was put off. */
  namesakes: number;
}

/** Where an engine stands between two inputs. */
export interface Course {
  started: boolean;
  /** A mode was set after the engine joined; it may have missed the message. */
  modeSet: boolean;
  closed: boolean;
  /** The end of the time in which captures may happen is waited for, or has come. */
  settling: boolean;
  /** When that time began; undefined until it does. */
  settlingAtSeconds: number | undefined;
  policy: ExplainingPolicy | undefined;
  plan: EnginePlan | undefined;
  resyncAtSeconds: number;
  /** Heartbeats in a row that said something else than this side believes. */
  doubts: number;
  /** From how many on the engine is asked. */
  doubtsMax: number;
  readonly early: EarlyArrivals;
  /** What the policy has heard of, for the one after it. */
  readonly announced: Announced;
  /** The plan that the guard has been told. */
  guarded: EngineState | undefined;
  /** Ends what is held for the capture under way, or for those before ready. */
  release: (() => void) | undefined;
  dropping: boolean;
  dropAtSeconds: number;
  refusals: number;
  /** Graphs went with a sleep, and are to come back after it. */
  droppedAsleep: boolean;
}

export interface EngineRecord {
  readonly hello: Hello;
  readonly mode: Mode;
  readonly phase: Phase;
  readonly connected: boolean;
  /** Why it is not connected; undefined while it is. */
  readonly lostReason: string | undefined;
  /** The reason it gave when it said goodbye. */
  readonly goodbye: string | undefined;
  /** What its operator ordered: the engine is told all of it, for the next controller. */
  readonly orders: Orders;
  /** Why somebody ended captures; undefined while they may happen, or end by themselves. */
  readonly frozenReason: string | undefined;
  readonly inventory: Inventory | undefined;
  /** What of it sleeps; empty: it is awake. */
  readonly asleep: readonly string[];
  readonly state: EngineState | undefined;
  readonly ranks: readonly RankMemory[];
  readonly epoch: number;
  readonly captureBeforeReadySeconds: number | undefined;
  /** Of these, seconds in warm-up runs; undefined where the engine doesn't tell them apart. */
  readonly warmUpBeforeReadySeconds: number | undefined;
  /** What its start spent by phase, until it was ready; empty where it wasn't timed. */
  readonly startPhases: readonly PhaseSeconds[];
  readonly readyAtSeconds: number | undefined;
  /** To the first time it settled: what it took to be done, whatever is asked of it later. */
  readonly readyToSettledSeconds: number | undefined;
  readonly longestCaptureMs: number;
  readonly longestStallMs: number;
  /** Seconds that steps took longer than with their ideal graphs, by the cost estimates. */
  readonly regretSeconds: number;
  readonly memoryLine: string | undefined;
  /** What may be captured with the memory there is. */
  readonly guard: MemoryGuard | undefined;
  /** The engine's `--gpu-memory-utilization`, where the user told it. */
  readonly utilization: number | undefined;
  /** Name of the policy that decides. */
  readonly policy: string | undefined;
  /** Why a graph is where it is, by the policy's word; undefined when it has none. */
  readonly explain: ((graph: string) => string) | undefined;
  /** What earlier starts of such engines left; undefined where plans are off. */
  readonly plan: PlanSnapshot | undefined;
  readonly decisions: Pick<DecisionLog, "list">;
  readonly problems: Readonly<ProblemCounts>;
  /** What the step remembers from one input to the next, and nobody else asks for. */
  readonly course: Readonly<Course>;
}

/** What an engine is given when it joins. */
export interface RecordBeginning {
  readonly guard?: MemoryGuard;
  readonly utilization?: number | undefined;
  /** What was ordered before, by whichever controller. @default nothing */
  readonly orders?: Orders;
}

export function createEngineRecord(
  hello: Hello,
  mode: Mode,
  { guard, utilization, orders = {} }: RecordBeginning = {},
): EngineRecord {
  return {
    hello,
    mode,
    phase: hello.phase,
    connected: true,
    lostReason: undefined,
    goodbye: undefined,
    orders,
    frozenReason: orders.frozen,
    inventory: undefined,
    asleep: [],
    state: undefined,
    ranks: [],
    epoch: 0,
    captureBeforeReadySeconds: undefined,
    warmUpBeforeReadySeconds: undefined,
    startPhases: [],
    readyAtSeconds: undefined,
    readyToSettledSeconds: undefined,
    longestCaptureMs: 0,
    longestStallMs: 0,
    regretSeconds: 0,
    memoryLine: undefined,
    guard,
    utilization,
    policy: undefined,
    explain: undefined,
    plan: undefined,
    decisions: new DecisionLog(),
    problems: {
      malformed: 0,
      unknownTypes: 0,
      unknownGraphs: 0,
      flooded: 0,
      telemetryDropped: 0,
      reported: 0,
      replaced: 0,
      namesakes: 0,
    },
    course: {
      started: false,
      modeSet: false,
      closed: false,
      settling: false,
      settlingAtSeconds: undefined,
      policy: undefined,
      plan: undefined,
      resyncAtSeconds: Number.NEGATIVE_INFINITY,
      doubts: 0,
      doubtsMax: 2,
      early: new EarlyArrivals(),
      announced: new Announced(),
      guarded: undefined,
      release: undefined,
      dropping: false,
      dropAtSeconds: Number.NEGATIVE_INFINITY,
      refusals: 0,
      droppedAsleep: false,
    },
  };
}

export function reasonOf(message: CaptureResult): string {
  return message.reason ?? `the engine gave no reason (${message.outcome})`;
}

/** Whether a graph is still to be captured: planned, or waiting for memory. */
export function isOpen({ status, retryable }: GraphState): boolean {
  return status === "planned" || (status === "refused" && retryable === true);
}

/** Bytes on the rank that has the least; undefined when no rank reported. */
export function freeBytesMin(ranks: readonly RankMemory[]): number | undefined {
  return ranks.length === 0 ? undefined : Math.min(...ranks.map((rank) => rank.freeBytes));
}

export function takenBytes(state: EngineState): number {
  let bytes = 0;
  for (const entry of state.graphs.values()) {
    if (entry.status === "captured") bytes += entry.bytes ?? 0;
  }
  return bytes;
}

export function forecastOf(record: EngineRecord): Forecast | undefined {
  const { state, guard } = record;
  if (state === undefined) return undefined;
  return guard?.rest(state, (id) => {
    const entry = state.graphs.get(id);
    return entry !== undefined && isOpen(entry);
  });
}

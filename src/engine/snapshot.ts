/** Read-only pictures of engines: plain frozen data that can be printed, sent and kept. */

import type { GraphKind } from "../base/graph.ts";
import type { Forecast } from "../memory/forecast.ts";
import type { PlanSnapshot } from "../plan/engine-plan.ts";
import { type EngineState, type GraphState, waitingForMemory } from "../schedule/state.ts";
import {
  type Mode,
  type Phase,
  type PhaseSeconds,
  PROTOCOL_VERSION_MIN,
  type RankMemory,
  type Reserved,
} from "../wire/protocol.ts";
import { spokenVersion } from "../wire/version.ts";
import type { DecisionRecord } from "./decision-log.ts";
import type { EngineRecord, ProblemCounts } from "./record.ts";
import { forecastOf, freeBytesMin, takenBytes } from "./record.ts";

export interface GraphSnapshot {
  readonly id: string;
  readonly kind: GraphKind;
  readonly tokens: number;
  /** Active LoRA adapters that it is for. */
  readonly loras: number;
  /** Largest number of tokens of one request; undefined: any. */
  readonly queryLength: number | undefined;
  /** Microbatches that its step is split into. */
  readonly microbatches: number;
  readonly status: GraphState["status"];
  /** Milliseconds and bytes of its capture; undefined until captured. */
  readonly ms: number | undefined;
  readonly bytes: number | undefined;
  /** Steps it served, and steps whose ideal graph it is. */
  readonly replays: number;
  readonly wanted: number;
  /** Why it is captured, refused, failed or next. */
  readonly reason: string | undefined;
}

export interface EngineSnapshot {
  readonly engine: string;
  readonly session: string;
  readonly model: string;
  readonly host: string;
  readonly pid: number;
  readonly mode: Mode;
  /** Name of the policy that decides; undefined until it has been asked. */
  readonly policy: string | undefined;
  /** Its learned plan; undefined until it has told its graphs, and where plans are off. */
  readonly plan: PlanSnapshot | undefined;
  readonly phase: Phase;
  readonly connected: boolean;
  /** Why it is not connected. */
  readonly lostReason: string | undefined;
  /** Profile of a simulated engine; undefined for a real one. */
  readonly simulated: string | undefined;
  readonly pluginVersion: string;
  readonly vllmVersion: string;
  /** Which of the plugin's adapters to vLLM serves it; undefined where it doesn't tell. */
  readonly adapter: string | undefined;
  /** Version of the protocol that is spoken with it. */
  readonly protocolVersion: number;
  readonly tensorParallel: number;
  readonly pipelineParallel: number;
  readonly cudagraphMode: string | undefined;
  readonly kvCacheTokens: number | undefined;
  /** Layers, and the largest batch in requests and in tokens of a step. */
  readonly layers: number | undefined;
  readonly maxRequests: number | undefined;
  readonly maxBatchedTokens: number | undefined;
  /** Why the plugin stepped aside. */
  readonly unsupported: string | undefined;
  readonly gpus: readonly { readonly uuid: string; readonly name: string }[];

  /** What of the engine sleeps, such as `weights`; empty: it is awake. */
  readonly asleep: readonly string[];
  readonly idle: boolean;
  readonly running: number;
  readonly waiting: number;
  readonly frozen: boolean;
  readonly settled: boolean;
  /** The graph whose capture is under way. */
  readonly capturing: string | undefined;

  readonly graphs: readonly GraphSnapshot[];
  readonly graphsPlanned: number;
  readonly graphsCaptured: number;
  readonly graphsRefused: number;
  readonly graphsFailed: number;
  /** Undefined when this controller did not see the engine get ready. */
  readonly captureBeforeReadySeconds: number | undefined;
  /** Of these, seconds in warm-up runs; undefined where the engine doesn't tell them apart. */
  readonly warmUpBeforeReadySeconds: number | undefined;
  /** What its start spent by phase, from its first process on; empty where it wasn't timed. */
  readonly startPhases: readonly PhaseSeconds[];
  /** To the first time it settled; a later mode doesn't change it. */
  readonly readyToSettledSeconds: number | undefined;
  readonly longestCaptureMs: number;
  /** Longest time a capture command held the engine up. */
  readonly longestStallMs: number;
  readonly stepsExact: number;
  readonly stepsPadded: number;
  readonly stepsUngraphed: number;
  /** Seconds that steps took longer than with their ideal graphs, by the cost estimates. */
  readonly regretSeconds: number;

  readonly ranks: readonly RankMemory[];
  /** What all captured graphs took, and what is free on the rank that has the least. */
  readonly takenBytes: number;
  readonly freeBytes: number | undefined;
  /** What graphs may take beside serving; undefined until a rank has reported. */
  readonly headroomBytes: number | undefined;
  /** Graphs that wait for memory, among the refused ones. */
  readonly graphsWaiting: number;
  /** What was taken off the KV cache for graphs. */
  readonly reserve: Reserved | undefined;
  /** What the graphs not captured yet will take. */
  readonly forecast: Forecast | undefined;
  /** The line that was published after the first graphs. */
  readonly memoryLine: string | undefined;

  readonly problems: Readonly<ProblemCounts>;
  /** The latest decisions, oldest first. */
  readonly decisions: readonly DecisionRecord[];
}

/** @param explains whether it says of each graph that is missing why it is */
export function snapshotOf(record: EngineRecord, explains = true): EngineSnapshot {
  const { hello, inventory, state, ranks } = record;
  const graphs = graphsOf(state, explains ? record.explain : undefined);
  const counted = (status: GraphState["status"]): number =>
    graphs.filter((graph) => graph.status === status).length;
  return Object.freeze({
    engine: hello.engine,
    session: hello.session,
    model: hello.model,
    host: hello.host,
    pid: hello.pid,
    mode: record.mode,
    policy: record.policy,
    plan: record.plan,
    phase: record.phase,
    connected: record.connected,
    lostReason: record.lostReason,
    simulated: hello.simulated,
    pluginVersion: hello.pluginVersion,
    vllmVersion: hello.vllmVersion,
    adapter: hello.adapter,
    protocolVersion: spokenVersion(hello) ?? PROTOCOL_VERSION_MIN,
    tensorParallel: hello.tensorParallel,
    pipelineParallel: hello.pipelineParallel,
    cudagraphMode: inventory?.cudagraphMode,
    kvCacheTokens: inventory?.kvCacheTokens,
    layers: inventory?.layers,
    maxRequests: inventory?.maxRequests,
    maxBatchedTokens: inventory?.maxBatchedTokens,
    unsupported: inventory?.unsupported,
    gpus: frozenList(ranks.map((rank) => ({ uuid: rank.gpuUuid, name: rank.gpuName }))),
    asleep: record.asleep,
    idle: state?.idle ?? false,
    running: state?.running ?? 0,
    waiting: state?.waiting ?? 0,
    frozen: record.frozenReason !== undefined,
    settled: state?.settled ?? false,
    capturing: state?.capturing,
    graphs,
    graphsPlanned: graphs.length,
    graphsCaptured: counted("captured"),
    graphsRefused: counted("refused"),
    graphsFailed: counted("failed"),
    captureBeforeReadySeconds: record.captureBeforeReadySeconds,
    warmUpBeforeReadySeconds: record.warmUpBeforeReadySeconds,
    startPhases: record.startPhases,
    readyToSettledSeconds: record.readyToSettledSeconds,
    longestCaptureMs: record.longestCaptureMs,
    longestStallMs: record.longestStallMs,
    stepsExact: state?.stepsExact ?? 0,
    stepsPadded: state?.stepsPadded ?? 0,
    stepsUngraphed: state?.stepsUngraphed ?? 0,
    regretSeconds: record.regretSeconds,
    ranks: frozenList(ranks.map((rank) => ({ ...rank }))),
    takenBytes: state === undefined ? 0 : takenBytes(state),
    freeBytes: freeBytesMin(ranks),
    headroomBytes: record.guard?.headroom()?.bytes,
    graphsWaiting: state === undefined ? 0 : waitingForMemory(state),
    reserve: inventory?.reserve === undefined ? undefined : frozen({ ...inventory.reserve }),
    forecast: frozen(forecastOf(record)),
    memoryLine: record.memoryLine,
    problems: frozen({ ...record.problems }),
    decisions: frozenList(record.decisions.list()),
  });
}

/** Plans above this are not explained graph by graph: a snapshot has to stay cheap. */
const EXPLAINED_MAX = 512;

function graphsOf(
  state: EngineState | undefined,
  explain: EngineRecord["explain"],
): readonly GraphSnapshot[] {
  const entries = state === undefined ? [] : [...state.graphs.values()];
  const explained = entries.length > EXPLAINED_MAX ? undefined : explain;
  return frozenList(
    entries.map((graph) => {
      const known = graphSnapshot(graph);
      const isOpen = graph.status === "planned" && explained !== undefined;
      return isOpen ? { ...known, reason: explained(known.id) } : known;
    }),
  );
}

/** What is known of one graph. */
export function graphSnapshot(state: GraphState): GraphSnapshot {
  const { graph, status, captureMs, bytes, replays, wanted, reason } = state;
  return {
    id: graph.id,
    kind: graph.kind,
    tokens: graph.tokens,
    loras: graph.loras ?? 0,
    queryLength: graph.queryLength,
    microbatches: graph.microbatches ?? 1,
    status,
    ms: captureMs,
    bytes,
    replays,
    wanted,
    reason,
  };
}

function frozen<T>(value: T): T {
  return Object.freeze(value);
}

function frozenList<T extends object>(list: T[]): readonly T[] {
  for (const entry of list) Object.freeze(entry);
  return Object.freeze(list);
}

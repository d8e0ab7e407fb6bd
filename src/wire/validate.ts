/**
 * What each message must look like: one table per message, in the field order of protocol.ts.
 * The compiler holds the tables to the interfaces: a field without a check does not build.
 */

import type { Graph, StepCase } from "../base/graph.ts";
import {
  amount,
  type Check,
  count,
  type Fields,
  flag,
  id,
  integer,
  list,
  listsApart,
  Mismatch,
  oneOf,
  optional,
  record,
  signed,
  text,
} from "./check.ts";
import {
  type Capture,
  type Captured,
  type CaptureResult,
  type Dispatch,
  type DispatchRow,
  type Drop,
  type Dropped,
  type Edge,
  type Freeze,
  type FromEngine,
  type Goodbye,
  type Heartbeat,
  type Hello,
  type Inventory,
  type KeyProof,
  type Later,
  LIMITS,
  MODES,
  type Orders,
  PHASES,
  type PhaseSeconds,
  type Problem,
  type RankMemory,
  RESERVES,
  type Ready,
  type Refuse,
  type Reserved,
  type Resync,
  type SetMode,
  type Sleep,
  type Slept,
  type Start,
  type StepCount,
  type Telemetry,
  type ToEngine,
  type Wake,
  type Welcome,
} from "./protocol.ts";

const sentence = text(LIMITS.textChars);
const label = text(LIMITS.idChars);
const version = integer(0, 65535);
const tokens = integer(1, LIMITS.tokens);
const counted = integer(0, LIMITS.tokens);
const served: Check<string> = (value, path) => (value === "" ? "" : id(value, path));

const stepCase: Fields<StepCase> = {
  loras: optional(counted),
  queryLength: optional(tokens),
  microbatches: optional(tokens),
};

const phaseSeconds: Check<PhaseSeconds> = record<PhaseSeconds>({ name: label, seconds: amount });

const keyProof: Check<KeyProof> = record<KeyProof>({ key: id, mac: id });

const graph: Check<Graph> = record<Graph>({
  id,
  kind: oneOf(["FULL", "PIECEWISE"]),
  tokens,
  requests: optional(tokens),
  uniform: optional(tokens),
  ...stepCase,
  draftLayers: optional(counted),
});

const rankMemory: Check<RankMemory> = record<RankMemory>({
  rank: integer(0, LIMITS.ranks - 1),
  gpuUuid: label,
  gpuName: label,
  totalBytes: count,
  freeBytes: count,
  reservedBytes: count,
  poolBytes: count,
  activationPeakBytes: count,
  activationHeldBytes: optional(count),
  cachedBytes: optional(count),
});

// Growth is measured, and may come out below zero when something else let go.
const capturedGraph: Check<Captured> = record<Captured>({ graph: id, ms: amount, bytes: signed });

const graphs = list(graph, LIMITS.graphs, (entry) => entry.id);
const graphIds = list(id, LIMITS.graphs, (entry) => entry);
const someGraphIds = list(id, LIMITS.graphs, (entry) => entry, 1);
const tiers = listsApart(list(someGraphIds, LIMITS.tiers));
const captured = list(capturedGraph, LIMITS.graphs, (entry) => entry.graph);
const ranks = list(rankMemory, LIMITS.ranks, (entry) => entry.rank);

const reserved: Check<Reserved> = record<Reserved>({
  mode: oneOf(RESERVES),
  bytes: count,
  kvTokens: count,
  servingBytes: optional(count),
});

const elapsed: Check<number> = (value, path) => {
  const seconds = amount(value, path);
  if (seconds <= LIMITS.secondsMax) return seconds;
  throw new Mismatch(path, `to be at most ${LIMITS.secondsMax}, got ${seconds}`);
};

const orders: Check<Orders> = record<Orders>({
  serial: optional(count),
  mode: optional(oneOf(MODES)),
  frozen: optional(sentence),
  settleWithinSeconds: optional(elapsed),
  pin: optional(list(id, LIMITS.rules)),
  exclude: optional(list(id, LIMITS.rules)),
  graphsMax: optional(integer(1, LIMITS.graphs)),
});

const stepCount: Check<StepCount> = record<StepCount>({
  tokens,
  requests: counted,
  uniform: counted,
  served,
  count,
  seconds: amount,
  timed: count,
  contextTokens: amount,
  ...stepCase,
});

const dispatchRow: Check<DispatchRow> = record<DispatchRow>({
  upTo: tokens,
  graphs: list(id, LIMITS.rowGraphs),
});
const dispatchRows = list(dispatchRow, LIMITS.tableRows, (row) => row.upTo);

/** A check for each type of message that one side may send. */
export type Checks<M extends { readonly type: string }> = {
  readonly [T in M["type"]]: Check<Extract<M, { readonly type: T }>>;
};

const heartbeat = record<Heartbeat>({
  type: oneOf(["heartbeat"]),
  ranks: optional(ranks),
  phase: optional(oneOf(PHASES)),
  mode: optional(oneOf(MODES)),
  epoch: optional(count),
  captured: optional(count),
  state: optional(oneOf(["idle", "busy"])),
  orders: optional(count),
  frozen: optional(flag),
  asleep: optional(flag),
});

/** Checks of everything an engine may send. */
export const FROM_ENGINE: Checks<FromEngine> = {
  hello: record<Hello>({
    type: oneOf(["hello"]),
    versionMin: version,
    versionMax: version,
    engine: id,
    session: id,
    pluginVersion: label,
    vllmVersion: label,
    model: sentence,
    host: sentence,
    pid: count,
    phase: oneOf(PHASES),
    mode: oneOf(MODES),
    tensorParallel: integer(1, LIMITS.ranks),
    pipelineParallel: integer(1, LIMITS.ranks),
    simulated: optional(label),
    adapter: optional(label),
    sleeps: optional(flag),
    incarnation: optional(count),
    orders: optional(orders),
    proof: optional(keyProof),
  }),
  inventory: record<Inventory>({
    type: oneOf(["inventory"]),
    phase: oneOf(PHASES),
    graphs,
    captured,
    ranks,
    cudagraphMode: label,
    layers: integer(0, LIMITS.tokens),
    latent: optional(flag),
    maxRequests: counted,
    maxBatchedTokens: count,
    kvCacheTokens: count,
    epoch: count,
    unsupported: optional(sentence),
    reserve: optional(reserved),
    tiers: optional(tiers),
    asleep: optional(list(label, LIMITS.tags)),
    frozen: optional(sentence),
    settlingSeconds: optional(elapsed),
  }),
  ready: record<Ready>({
    type: oneOf(["ready"]),
    captureSeconds: amount,
    captured,
    ranks,
    epoch: count,
    warmUpSeconds: optional(amount),
    skipped: optional(graphIds),
    phases: optional(list(phaseSeconds, LIMITS.phases)),
  }),
  result: record<CaptureResult>({
    type: oneOf(["result"]),
    command: count,
    graph: id,
    outcome: oneOf(["captured", "already", "deferred", "refused", "failed"]),
    reason: optional(sentence),
    refusal: optional(oneOf(["headroom", "other"])),
    stallMs: amount,
    ms: amount,
    bytes: signed,
    ranks,
    epoch: count,
  }),
  dropped: record<Dropped>({
    type: oneOf(["dropped"]),
    command: count,
    outcome: oneOf(["dropped", "refused", "deferred", "failed"]),
    graphs: graphIds,
    freedBytes: count,
    reason: optional(sentence),
    ranks,
    epoch: count,
  }),
  slept: record<Slept>({
    type: oneOf(["slept"]),
    command: count,
    outcome: oneOf(["asleep", "awake", "refused", "failed"]),
    asleep: list(label, LIMITS.tags),
    seconds: amount,
    freedBytes: optional(count),
    reason: optional(sentence),
    ranks,
    epoch: count,
  }),
  telemetry: record<Telemetry>({
    type: oneOf(["telemetry"]),
    sequence: count,
    dropped: count,
    steps: list(stepCount, LIMITS.stepsPerBatch),
    running: counted,
    waiting: counted,
  }),
  edge: record<Edge>({
    type: oneOf(["edge"]),
    state: oneOf(["idle", "busy"]),
    running: counted,
    waiting: counted,
  }),
  heartbeat,
  problem: record<Problem>({ type: oneOf(["problem"]), code: id, message: sentence }),
  goodbye: record<Goodbye>({ type: oneOf(["goodbye"]), reason: sentence }),
};

/** Checks of everything a controller may send. */
export const TO_ENGINE: Checks<ToEngine> = {
  welcome: record<Welcome>({
    type: oneOf(["welcome"]),
    version,
    incarnation: count,
    heartbeatMs: integer(LIMITS.heartbeatMsMin, LIMITS.heartbeatMsMax),
    mode: oneOf(MODES),
    reserve: optional(oneOf(RESERVES)),
    reserveBytes: optional(count),
    marginBytes: optional(count),
    orders: optional(orders),
  }),
  refuse: record<Refuse>({ type: oneOf(["refuse"]), code: id, message: sentence }),
  later: record<Later>({
    type: oneOf(["later"]),
    code: id,
    message: sentence,
    retrySeconds: integer(1, LIMITS.retrySecondsMax),
  }),
  start: record<Start>({
    type: oneOf(["start"]),
    graphs: graphIds,
    tiers: optional(tiers),
    exclude: optional(graphIds),
    graphsMax: optional(integer(1, LIMITS.graphs)),
    more: optional(graphIds),
    budgetMs: optional(integer(0, LIMITS.budgetMsMax)),
  }),
  capture: record<Capture>({
    type: oneOf(["capture"]),
    command: count,
    graph: id,
    whenIdle: flag,
    needBytes: optional(count),
  }),
  drop: record<Drop>({ type: oneOf(["drop"]), command: count, graphs: someGraphIds }),
  dispatch: record<Dispatch>({
    type: oneOf(["dispatch"]),
    uniform: dispatchRows,
    mixed: dispatchRows,
  }),
  freeze: record<Freeze>({
    type: oneOf(["freeze"]),
    reason: sentence,
    orders: optional(orders),
  }),
  mode: record<SetMode>({
    type: oneOf(["mode"]),
    mode: oneOf(MODES),
    orders: optional(orders),
    settlingSeconds: optional(elapsed),
  }),
  sleep: record<Sleep>({
    type: oneOf(["sleep"]),
    command: count,
    level: integer(1, 2),
    dropGraphs: optional(flag),
  }),
  wake: record<Wake>({
    type: oneOf(["wake"]),
    command: count,
    reloadWeights: optional(flag),
  }),
  resync: record<Resync>({ type: oneOf(["resync"]), hello: optional(flag) }),
  heartbeat,
};

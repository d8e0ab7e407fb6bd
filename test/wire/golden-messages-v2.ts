/** Meanings of the frames that came with version 2 of the protocol; see golden-messages.ts. */

import type { FromEngine, ToEngine } from "../../src/wire/protocol.ts";

const shape = { tokens: 24, requests: 24, uniform: 1, served: "FULL:24:l2", count: 3 };

const HELLO = {
  type: "hello",
  versionMin: 1,
  versionMax: 2,
  engine: "llama-8b-0",
  session: "5b1f0c9e7d3a4e61",
  pluginVersion: "0.2.0",
  vllmVersion: "0.33.0",
  model: "meta-llama/Llama-3.1-8B",
  host: "node-17",
  pid: 4_194_304,
  phase: "loading",
  mode: "idle",
  tensorParallel: 1,
  pipelineParallel: 1,
  adapter: "v31",
} as const;

/** What came with orders that outlive a restart; an older peer ignores it. */
const ORDERS = {
  serial: 3,
  mode: "lazy",
  frozen: "for the benchmark",
  settleWithinSeconds: 90.5,
  pin: ["FULL:24", ">256"],
  exclude: ["PIECEWISE"],
  graphsMax: 40,
} as const;

const SERVING = {
  type: "inventory",
  phase: "serving",
  graphs: [{ id: "FULL:1", kind: "FULL", tokens: 1, requests: 1, uniform: 1 }],
  captured: [],
  ranks: [],
  cudagraphMode: "FULL",
  layers: 32,
  maxRequests: 1,
  maxBatchedTokens: 2048,
  kvCacheTokens: 1600,
  epoch: 2,
} as const;

const WELCOME = {
  type: "welcome",
  version: 2,
  incarnation: 1_795_000_000_125,
  heartbeatMs: 1000,
  mode: "idle",
} as const;

/** Of an engine that drafts: which graphs come with a drafter's; an older peer ignores it. */
const DRAFTING = {
  type: "inventory",
  phase: "capturing",
  graphs: [
    { id: "PIECEWISE:512", kind: "PIECEWISE", tokens: 512, draftLayers: 1 },
    { id: "FULL:16:u4", kind: "FULL", tokens: 16, requests: 4, uniform: 4, draftLayers: 3 },
  ],
  captured: [{ graph: "FULL:16:u4", ms: 24.5, bytes: 5_242_880 }],
  ranks: [],
  cudagraphMode: "FULL_AND_PIECEWISE",
  layers: 32,
  maxRequests: 256,
  maxBatchedTokens: 8192,
  kvCacheTokens: 900_000,
  epoch: 1,
} as const;

export const FROM_ENGINE_V2: readonly (readonly [string, FromEngine])[] = [
  ["inventory of an engine that drafts", DRAFTING],
  ["hello of version 2, with its adapter", HELLO],
  [
    "inventory with graphs of every case",
    {
      type: "inventory",
      phase: "capturing",
      graphs: [
        { id: "PIECEWISE:512", kind: "PIECEWISE", tokens: 512 },
        { id: "PIECEWISE:512:l2", kind: "PIECEWISE", tokens: 512, loras: 2 },
        { id: "FULL:24:l2", kind: "FULL", tokens: 24, requests: 24, uniform: 1, loras: 2 },
        { id: "FULL:64:mixed:q4", kind: "FULL", tokens: 64, requests: 64, queryLength: 4 },
        { id: "FULL:64:b2", kind: "FULL", tokens: 64, requests: 64, uniform: 1, microbatches: 2 },
      ],
      captured: [],
      ranks: [],
      cudagraphMode: "FULL_AND_PIECEWISE",
      layers: 32,
      maxRequests: 1024,
      maxBatchedTokens: 8192,
      kvCacheTokens: 900_000,
      epoch: 0,
    },
  ],
  [
    "ready within a budget",
    {
      type: "ready",
      captureSeconds: 0.125,
      captured: [{ graph: "FULL:512", ms: 30.5, bytes: 1_677_721 }],
      ranks: [],
      epoch: 1,
      warmUpSeconds: 0.0625,
      skipped: ["FULL:64", "FULL:32"],
    },
  ],
  [
    "ready of a start that was timed",
    {
      type: "ready",
      captureSeconds: 0.125,
      captured: [],
      ranks: [],
      epoch: 1,
      phases: [
        { name: "weights", seconds: 2.5 },
        { name: "memory and KV cache", seconds: 0.25 },
      ],
    },
  ],
  [
    "telemetry of steps by case",
    {
      type: "telemetry",
      sequence: 1,
      dropped: 0,
      steps: [
        { ...shape, seconds: 0.25, timed: 3, contextTokens: 512.5, loras: 2, queryLength: 1 },
        { ...shape, served: "", seconds: 0, timed: 0, contextTokens: 1.5, microbatches: 2 },
      ],
      running: 24,
      waiting: 0,
    },
  ],
  [
    "inventory of an engine that sleeps",
    {
      ...SERVING,
      asleep: ["kv_cache", "weights"],
    },
  ],
  [
    "slept",
    {
      type: "slept",
      command: 7,
      outcome: "asleep",
      asleep: ["kv_cache", "weights"],
      seconds: 1.25,
      freedBytes: 975_175_680,
      ranks: [],
      epoch: 104,
    },
  ],
  [
    "slept: refused",
    {
      type: "slept",
      command: 8,
      outcome: "refused",
      asleep: [],
      seconds: 0.5,
      reason: "the engine is awake",
      ranks: [],
      epoch: 104,
    },
  ],
  [
    "heartbeat that says how an engine stands",
    {
      type: "heartbeat",
      phase: "serving",
      mode: "lazy",
      epoch: 7,
      captured: 5,
      state: "idle",
      orders: 3,
      frozen: true,
      asleep: true,
    },
  ],
  ["hello of an engine that was given orders", { ...HELLO, mode: "lazy", orders: ORDERS }],
  ["hello of an engine without orders any more", { ...HELLO, orders: {} }],
  [
    "inventory of an engine that captures no more",
    {
      ...SERVING,
      frozen: "for the benchmark",
      settlingSeconds: 12.25,
    },
  ],
];

export const TO_ENGINE_V2: readonly (readonly [string, ToEngine])[] = [
  ["welcome of version 2", WELCOME],
  [
    "start with a budget",
    { type: "start", graphs: ["FULL:512"], more: ["FULL:8", "FULL:64"], budgetMs: 115 },
  ],
  ["start with the engine's budget", { type: "start", graphs: ["FULL:512"], more: ["FULL:8"] }],
  [
    "later",
    {
      type: "later",
      code: "ERR_LAZYGRAPH_ENGINES_MAX",
      message: "Expected at most 64 engines at once, got engine-64 as one more.",
      retrySeconds: 5,
    },
  ],
  ["sleep", { type: "sleep", command: 7, level: 1 }],
  ["sleep without graphs", { type: "sleep", command: 8, level: 2, dropGraphs: true }],
  ["welcome with orders", { ...WELCOME, mode: "lazy", orders: ORDERS }],
  ["welcome that ends all orders", { ...WELCOME, orders: {} }],
  [
    "freeze by order",
    { type: "freeze", reason: "for the benchmark", orders: { frozen: "for the benchmark" } },
  ],
  ["mode by order", { type: "mode", mode: "lazy", orders: { mode: "lazy" }, settlingSeconds: 0.5 }],
  ["wake", { type: "wake", command: 9 }],
  ["wake with its weights", { type: "wake", command: 10, reloadWeights: true }],
];

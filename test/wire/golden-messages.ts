/** The meanings behind frames.json.gz. Fields stand in the order of src/wire/protocol.ts. */

import type { FromEngine, Inventory, RankMemory, ToEngine } from "../../src/wire/protocol.ts";
import { FROM_ENGINE_V2, TO_ENGINE_V2 } from "./golden-messages-v2.ts";

type Direction = "from-engine" | "to-engine";

export interface GoldenMessage {
  readonly name: string;
  readonly direction: Direction;
  readonly message: FromEngine | ToEngine;
}

/** A frame no encoder of ours writes, and what a decoder must make of it. */
export interface ForeignFrame {
  readonly name: string;
  readonly direction: Direction;
  readonly hex: string;
  /** `message`: decodes to `message`; `unknown`: dropped and counted; `error`: refused. */
  readonly outcome: "message" | "unknown" | "error";
  readonly message?: FromEngine | ToEngine;
  /** Oversize frames are described, not stored: `hex` once, then zero bytes up to this size. */
  readonly paddedBytes?: number;
}

const rank0: RankMemory = {
  rank: 0,
  gpuUuid: "GPU-5f3c1a52-6a0e-4b0c-9d8e-0a1b2c3d4e5f",
  gpuName: "NVIDIA H200",
  totalBytes: 150_754_820_096,
  freeBytes: 4_294_967_296,
  reservedBytes: 4_294_967_295,
  poolBytes: 71_303_168,
  activationPeakBytes: 1_610_612_736,
};
const rank1: RankMemory = {
  ...rank0,
  rank: 1,
  gpuUuid: "GPU-00000000-0000-0000-0000-000000000001",
};

/** Of an engine with a graph and little memory. */
const tight: Inventory = {
  type: "inventory",
  phase: "capturing",
  graphs: [{ id: "FULL:8", kind: "FULL", tokens: 8, requests: 8, uniform: 1 }],
  captured: [],
  ranks: [{ ...rank0, activationHeldBytes: 1_610_612_735, cachedBytes: 4_294_967_296 }],
  cudagraphMode: "FULL_AND_PIECEWISE",
  layers: 32,
  maxRequests: 1024,
  maxBatchedTokens: 8192,
  kvCacheTokens: 905_000,
  epoch: 0,
};

const HELLO = {
  type: "hello",
  versionMin: 1,
  versionMax: 3,
  engine: "llama-8b-0",
  session: "5b1f0c9e7d3a4e60",
  pluginVersion: "0.1.0",
  vllmVersion: "0.26.0",
  model: "meta-llama/Llama-3.1-8B",
  host: "node-17",
  pid: 4_194_304,
  phase: "loading",
  mode: "idle",
  tensorParallel: 2,
  pipelineParallel: 1,
} as const;

const fromEngine: readonly (readonly [string, FromEngine])[] = [
  ["hello", HELLO],
  [
    "hello of an engine that proves its key",
    {
      ...HELLO,
      versionMax: 2,
      vllmVersion: "0.33.0",
      pid: 17,
      tensorParallel: 1,
      proof: { key: "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", mac: "0f".repeat(32) },
    },
  ],
  [
    "hello of a simulated engine, text beyond ASCII",
    {
      type: "hello",
      versionMin: 1,
      versionMax: 1,
      engine: "Motor-ä-日本",
      session: "00",
      pluginVersion: "",
      vllmVersion: "",
      model: "m".repeat(300),
      host: "",
      pid: 0,
      phase: "serving",
      mode: "eager",
      tensorParallel: 1,
      pipelineParallel: 1,
      simulated: "llama-3.1-8b-h200",
    },
  ],
  [
    "inventory before any capture",
    {
      ...tight,
      graphs: [
        { id: "PIECEWISE:512", kind: "PIECEWISE", tokens: 512 },
        { id: "FULL:512", kind: "FULL", tokens: 512, requests: 512, uniform: 1 },
        { id: "FULL:16", kind: "FULL", tokens: 16, requests: 16 },
      ],
      ranks: [rank0, rank1],
      kvCacheTokens: 913_456,
    },
  ],
  [
    "inventory of an engine that serves",
    {
      type: "inventory",
      phase: "serving",
      graphs: [{ id: "FULL:1", kind: "FULL", tokens: 1, requests: 1, uniform: 1 }],
      captured: [{ graph: "FULL:1", ms: 29.25, bytes: -2_097_152 }],
      ranks: [rank0],
      cudagraphMode: "FULL_DECODE_ONLY",
      layers: 80,
      maxRequests: 256,
      maxBatchedTokens: 2048,
      kvCacheTokens: 5_000_000_000,
      epoch: 7,
    },
  ],
  [
    "inventory of an engine that runs as stock",
    {
      type: "inventory",
      phase: "stock",
      graphs: [],
      captured: [],
      ranks: [],
      cudagraphMode: "FULL",
      layers: 0,
      maxRequests: 0,
      maxBatchedTokens: 0,
      kvCacheTokens: 0,
      epoch: 0,
      unsupported: "LoRA is not on the list of what was tried; vLLM captures as always.",
    },
  ],
  [
    "inventory of an engine that reserved memory for graphs",
    {
      ...tight,
      reserve: { mode: "plan", bytes: 1_107_296_256, kvTokens: 12_800, servingBytes: 570_425_344 },
      tiers: [["FULL:8"]],
    },
  ],
  [
    "inventory of an engine that keeps the least back",
    {
      ...tight,
      reserve: { mode: "least", bytes: 125_829_120, kvTokens: 3488, servingBytes: 333_447_168 },
    },
  ],
  [
    "ready",
    {
      type: "ready",
      captureSeconds: 0.0625,
      captured: [
        { graph: "PIECEWISE:512", ms: 61.5, bytes: 4_294_967_296 },
        { graph: "FULL:512", ms: 30.125, bytes: 1_677_721 },
      ],
      ranks: [rank0],
      epoch: 2,
    },
  ],
  [
    "result captured",
    {
      type: "result",
      command: 4_294_967_297,
      graph: "FULL:24",
      outcome: "captured",
      stallMs: 31.5,
      ms: 29.75,
      bytes: 1_677_721,
      ranks: [rank0],
      epoch: 3,
    },
  ],
  ...(["already", "deferred", "refused", "failed"] as const).map(
    (outcome) =>
      [
        `result ${outcome}`,
        {
          type: "result",
          command: 2,
          graph: "PIECEWISE:256",
          outcome,
          ...(outcome === "already" ? {} : { reason: `${outcome}: 12 requests are waiting` }),
          stallMs: 0.5,
          ms: 0.25,
          bytes: 0,
          ranks: [],
          epoch: 3,
        },
      ] as const,
  ),
  ...(["headroom", "other"] as const).map(
    (refusal) =>
      [
        `result refused, ${refusal}`,
        {
          type: "result",
          command: 3,
          graph: "FULL:512",
          outcome: "refused",
          reason: "rank 1 has 12.0 MiB beyond the margin, 20.0 MiB are needed",
          refusal,
          stallMs: 0.5,
          ms: 0,
          bytes: 0,
          ranks: [rank1],
          epoch: 3,
        },
      ] as const,
  ),
  [
    "dropped",
    {
      type: "dropped",
      command: 4_294_967_298,
      outcome: "dropped",
      graphs: ["FULL:512", "PIECEWISE:512"],
      freedBytes: 975_175_680,
      ranks: [{ ...rank0, activationHeldBytes: 0, cachedBytes: 0 }, rank1],
      epoch: 9,
    },
  ],
  ...(["refused", "deferred", "failed"] as const).map(
    (outcome) =>
      [
        `dropped: ${outcome}`,
        {
          type: "dropped",
          command: 5,
          outcome,
          graphs: [],
          freedBytes: 0,
          reason: `${outcome}: FULL:8 is captured in the same pool and not among the graphs`,
          ranks: [],
          epoch: 9,
        },
      ] as const,
  ),
  [
    "telemetry",
    {
      type: "telemetry",
      sequence: 65_536,
      dropped: 3,
      steps: [
        {
          tokens: 24,
          requests: 24,
          uniform: 1,
          served: "FULL:24",
          count: 128,
          seconds: 0.78125,
          timed: 127,
          contextTokens: 1533.5,
        },
        {
          tokens: 8192,
          requests: 3,
          uniform: 0,
          served: "",
          count: 1,
          seconds: 0.5,
          timed: 1,
          contextTokens: 0.5,
        },
      ],
      running: 24,
      waiting: 255,
    },
  ],
  ["edge idle", { type: "edge", state: "idle", running: 0, waiting: 0 }],
  ["edge busy", { type: "edge", state: "busy", running: 127, waiting: 128 }],
  ["heartbeat of an engine", { type: "heartbeat" }],
  ["heartbeat of an engine with memory", { type: "heartbeat", ranks: [rank0, rank1] }],
  [
    "problem",
    {
      type: "problem",
      code: "ERR_LAZYGRAPH_UNKNOWN_GRAPH",
      message: "The controller asked for FULL:9999, which this engine can't capture.",
    },
  ],
  ["goodbye", { type: "goodbye", reason: "vLLM shuts down" }],
];

const WELCOME = {
  type: "welcome",
  version: 1,
  incarnation: 1_795_000_000_124,
  heartbeatMs: 500,
  mode: "idle",
} as const;

const toEngine: readonly (readonly [string, ToEngine])[] = [
  [
    "welcome",
    {
      type: "welcome",
      version: 1,
      incarnation: 1_795_000_000_123,
      heartbeatMs: 1000,
      mode: "lazy",
    },
  ],
  [
    "welcome with what it wants reserved",
    { ...WELCOME, reserve: "plan", reserveBytes: 1_107_296_256, marginBytes: 0 },
  ],
  ["welcome that wants the least reserved", { ...WELCOME, reserve: "least" }],
  [
    "refuse",
    {
      type: "refuse",
      code: "ERR_LAZYGRAPH_PROTOCOL_VERSION",
      message: "This controller speaks protocol 1, the engine 2 to 3: upgrade lazygraph.",
    },
  ],
  ["start", { type: "start", graphs: ["PIECEWISE:512", "FULL:512"] }],
  ["start with nothing", { type: "start", graphs: [] }],
  [
    "start with tiers",
    {
      type: "start",
      graphs: ["PIECEWISE:64", "FULL:64"],
      tiers: [["PIECEWISE:64", "FULL:64", "FULL:8"], ["FULL:128"]],
    },
  ],
  [
    "start with what the user allows",
    { type: "start", graphs: ["FULL:8"], exclude: ["PIECEWISE:8", "FULL:512"], graphsMax: 4096 },
  ],
  ["start with nothing excluded", { type: "start", graphs: [], exclude: [], graphsMax: 1 }],
  ["start with no tier", { type: "start", graphs: ["FULL:8"], tiers: [] }],
  ["capture", { type: "capture", command: 1, graph: "FULL:24", whenIdle: false }],
  ["capture when idle", { type: "capture", command: 65_535, graph: "PIECEWISE:8", whenIdle: true }],
  [
    "capture with what it needs",
    { type: "capture", command: 2, graph: "FULL:16", whenIdle: false, needBytes: 4_194_304 },
  ],
  ["drop", { type: "drop", command: 65_536, graphs: ["FULL:512", "PIECEWISE:512"] }],
  [
    "dispatch",
    {
      type: "dispatch",
      uniform: [
        { upTo: 8, graphs: ["FULL:8", "PIECEWISE:8"] },
        { upTo: 409, graphs: [] },
        { upTo: 512, graphs: ["FULL:512"] },
      ],
      mixed: [{ upTo: 512, graphs: ["PIECEWISE:512"] }],
    },
  ],
  ["dispatch with nothing", { type: "dispatch", uniform: [], mixed: [] }],
  ["freeze", { type: "freeze", reason: "settleWithinSeconds (120) is over" }],
  ["mode", { type: "mode", mode: "eager" }],
  ["resync", { type: "resync" }],
  ["resync of a session the controller doesn't know", { type: "resync", hello: true }],
  ["heartbeat of a controller", { type: "heartbeat" }],
];

export const MESSAGES: readonly GoldenMessage[] = [
  ...[...fromEngine, ...FROM_ENGINE_V2].map(([name, message]) => ({
    name,
    direction: "from-engine" as const,
    message,
  })),
  ...[...toEngine, ...TO_ENGINE_V2].map(([name, message]) => ({
    name,
    direction: "to-engine" as const,
    message,
  })),
];

// ------------------------------------------------------------------ written by hand, byte by byte

const str = (value: string): string => {
  const bytes = Buffer.from(value);
  if (bytes.length < 32) return (0xa0 + bytes.length).toString(16) + bytes.toString("hex");
  return `d9${bytes.length.toString(16).padStart(2, "0")}${bytes.toString("hex")}`;
};
const map = (...pairs: readonly (readonly [string, string])[]): string =>
  (0x80 + pairs.length).toString(16) + pairs.map(([key, value]) => str(key) + value).join("");

/** A message of a type. */
const frame = (type: string, ...pairs: readonly (readonly [string, string])[]): string =>
  map(["type", str(type)], ...pairs);

const NIL = "c0";
const MINUS_ONE = "ff";
const NAN = "cb7ff8000000000000";
const INFINITY = "cb7ff0000000000000";
const TWO_AS_FLOAT = "cb4000000000000000";
const TWO_AS_UINT64 = "cf0000000000000002";
const EXT = "d40000";
const EXT_RECORD = "d4720100";

const edge = (running: string, ...more: readonly (readonly [string, string])[]): string =>
  frame("edge", ["state", str("busy")], ["running", running], ["waiting", "00"], ...more);
const busy: FromEngine = { type: "edge", state: "busy", running: 2, waiting: 0 };

function foreign(direction: Direction): readonly ForeignFrame[] {
  const bad = (name: string, hex: string): ForeignFrame => ({
    name: `${direction}: ${name}`,
    direction,
    hex,
    outcome: "error",
  });
  const heartbeat = frame("heartbeat");
  return [
    bad("empty frame", ""),
    bad("a number", "01"),
    bad("an array", `91${str("heartbeat")}`),
    bad("no type", map(["kind", str("heartbeat")])),
    bad("type is a number", map(["type", "01"])),
    bad("type is nil", map(["type", NIL])),
    bad("truncated in a string", heartbeat.slice(0, -2)),
    bad("truncated before the value", `82${heartbeat.slice(2)}`),
    bad("bytes after the value", `${heartbeat}00`),
    bad("reserved byte 0xc1", map(["type", "c1"])),
    bad("ext type as the frame", EXT),
    bad("array header that claims 4 billion entries", map(["type", "ddffffffff"])),
    { ...bad("oversize", heartbeat), paddedBytes: (1 << 20) + 1 },
    {
      name: `${direction}: unknown type`,
      direction,
      hex: frame("celebrate", ["cake", "c3"]),
      outcome: "unknown",
    },
    {
      name: `${direction}: type named like a property of every object`,
      direction,
      hex: frame("constructor"),
      outcome: "unknown",
    },
    {
      name: `${direction}: unknown field`,
      direction,
      hex: map(["new", map(["deep", "90"])], ["type", str("heartbeat")]),
      outcome: "message",
      message: { type: "heartbeat" },
    },
    {
      name: `${direction}: nil for an absent field`,
      direction,
      hex: frame("heartbeat", ["ranks", NIL]),
      outcome: "message",
      message: { type: "heartbeat" },
    },
  ];
}

const captured = map(["graph", str("FULL:1")], ["ms", "00"], ["bytes", "00"]);
const mode = (value: string): string => frame("mode", ["mode", value]);
const capture = (command: string, graph: string, whenIdle: string, needBytes?: string): string =>
  frame(
    "capture",
    ["command", command],
    ["graph", graph],
    ["whenIdle", whenIdle],
    ...(needBytes === undefined ? [] : [["needBytes", needBytes] as const]),
  );
const tier = (graph: string): string => `91${str(graph)}`;
const fullTiers = (count: number): string =>
  Array.from({ length: count }, (_, index) => tier(`FULL:${index + 1}`)).join("");
const start = (tiers: string): string => frame("start", ["graphs", "90"], ["tiers", tiers]);
const limited = (field: "exclude" | "graphsMax" | "budgetMs", value: string): string =>
  frame("start", ["graphs", "90"], [field, value]);

const step = (field: string, value: string): string =>
  frame(
    "telemetry",
    ["sequence", "00"],
    ["dropped", "00"],
    [
      "steps",
      `91${map(
        ["tokens", "01"],
        ["requests", "01"],
        ["uniform", "01"],
        ["served", "a0"],
        ["count", "01"],
        ["seconds", "00"],
        ["timed", "00"],
        ["contextTokens", "00"],
        [field, value],
      )}`,
    ],
    ["running", "00"],
    ["waiting", "00"],
  );

function typed(
  direction: Direction,
  outcome: "message" | "error",
  frames: readonly (readonly [string, string])[],
  message?: FromEngine | ToEngine,
): ForeignFrame[] {
  return frames.map(([name, hex]) => ({
    name,
    direction,
    hex,
    outcome,
    ...(message === undefined ? {} : { message }),
  }));
}

export const FOREIGN: readonly ForeignFrame[] = [
  ...foreign("from-engine"),
  ...foreign("to-engine"),
  ...typed(
    "from-engine",
    "message",
    [
      ["edge, fields in another order and one more", edge("02", ["mood", str("good")])],
      ["edge, a small integer as uint64", edge(TWO_AS_UINT64)],
    ],
    busy,
  ),
  ...typed("from-engine", "error", [
    ["edge, text for a count", edge(str("2"))],
    ["edge, nil for a count", edge(NIL)],
    ["edge, -1 for a count", edge(MINUS_ONE)],
    ["edge, 2.5 for a count", edge("cb4004000000000000")],
    ["edge, NaN for a count", edge(NAN)],
    ["edge, 2^53 for a count", edge("cf0020000000000000")],
    ["edge, no waiting", frame("edge", ["state", str("idle")], ["running", "00"])],
    ["goodbye, NUL bytes for text", frame("goodbye", ["reason", "c40100"])],
    ["problem, empty code", frame("problem", ["code", "a0"], ["message", "a0"])],
    [
      "problem, escape sequence in a name",
      frame("problem", ["code", str("\u001b[2J")], ["message", "a0"]),
    ],
    ["an ext type in an unknown field", frame("heartbeat", ["new", EXT_RECORD])],
    ["64 levels in an unknown field", frame("heartbeat", ["new", `${"91".repeat(64)}00`])],
    [
      "ready, a graph twice",
      frame(
        "ready",
        ["captureSeconds", "00"],
        ["captured", `92${captured}${captured}`],
        ["ranks", "90"],
        ["epoch", "00"],
      ),
    ],
    [
      "ready, infinite seconds",
      frame(
        "ready",
        ["captureSeconds", INFINITY],
        ["captured", "90"],
        ["ranks", "90"],
        ["epoch", "00"],
      ),
    ],
    ["telemetry, -1 adapters", step("loras", MINUS_ONE)],
    ["telemetry, no microbatch", step("microbatches", "00")],
    ["telemetry, text for the longest query", step("queryLength", str("4"))],
    ["goodbye, text too long", frame("goodbye", ["reason", `da0801${"61".repeat(2049)}`])],
  ]),
  ...typed("to-engine", "error", [
    ["mode, unknown mode", mode(str("sometimes"))],
    ["mode, upper case", mode(str("IDLE"))],
    ["capture, command as text", capture(str("1"), str("FULL:1"), "c2")],
    ["capture, empty graph", capture("01", "a0", "c2")],
    ["capture, 1 for a flag", capture("01", str("FULL:1"), "01")],
    ["capture, -1 for the bytes it needs", capture("01", str("FULL:1"), "c2", MINUS_ONE)],
    ["drop, no graph", frame("drop", ["command", "01"], ["graphs", "90"])],
    [
      "drop, a graph twice",
      frame("drop", ["command", "01"], ["graphs", `92${str("FULL:1")}${str("FULL:1")}`]),
    ],
    ["start, a graph in two tiers", start(`92${tier("FULL:1")}${tier("FULL:1")}`)],
    ["start, a graph twice in a tier", start(`9192${str("FULL:1")}${str("FULL:1")}`)],
    ["start, an empty tier", start("9190")],
    ["start, a tier that is a name", start(`91${str("FULL:1")}`)],
    ["start, a graph excluded twice", limited("exclude", `92${str("FULL:1")}${str("FULL:1")}`)],
    ["start, an excluded graph without a name", limited("exclude", "91a0")],
    ["start, a name for what is excluded", limited("exclude", str("FULL:1"))],
    ["start, at most 0 graphs", limited("graphsMax", "00")],
    ["start, at most 4097 graphs", limited("graphsMax", "cd1001")],
    ["start, -1 ms of budget", limited("budgetMs", MINUS_ONE)],
    ["start, half a millisecond of budget", limited("budgetMs", "cb3fe0000000000000")],
    ["start, more than a day of budget", limited("budgetMs", "ce05265c01")],
    ["start, 65 tiers", start(`dc0041${fullTiers(65)}`)],
    [
      "welcome, unknown reserve",
      frame(
        "welcome",
        ["version", "01"],
        ["incarnation", "01"],
        ["heartbeatMs", "64"],
        ["mode", str("idle")],
        ["reserve", str("all")],
      ),
    ],
    ["start, graphs is a map", frame("start", ["graphs", "80"])],
    [
      "welcome, incarnation below zero",
      frame(
        "welcome",
        ["version", "01"],
        ["incarnation", MINUS_ONE],
        ["heartbeatMs", TWO_AS_FLOAT],
        ["mode", str("idle")],
      ),
    ],
  ]),
];

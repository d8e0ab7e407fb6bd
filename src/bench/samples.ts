/** What one run of a cell leaves behind: raw samples, as they are kept in its files. */

import type { EngineSnapshot } from "../engine/snapshot.ts";
import type { Failure } from "./failure.ts";
import type { Load, Start } from "./load.ts";
import type { BenchSpec, CellName, ModeSpec } from "./spec.ts";

/** One request. Seconds count from the spawn of the engine, or from the run's start without one. */
export interface RequestRecord {
  readonly index: number;
  readonly warmUp: boolean;
  /** When it was due by the schedule. */
  readonly dueSeconds: number;
  readonly sentSeconds: number;
  /** Of the first and the last token; absent when none came. */
  readonly firstSeconds?: number;
  readonly lastSeconds?: number;
  /** Microseconds between events with tokens. */
  readonly itlMicros: readonly number[];
  readonly promptTokensWanted: number;
  readonly outputTokensWanted: number;
  /** As the server counted them. */
  readonly promptTokens?: number;
  readonly outputTokens?: number;
  /** Sent again, because the server had closed its connection before the first byte. */
  readonly resent?: true;
  readonly failure?: Failure;
}

/** One capture after the first set, as the controller saw it. */
export interface CaptureRecord {
  readonly graph: string;
  readonly whenIdle: boolean;
  readonly reason: string;
  /** From when to when it held up the engine. */
  readonly startSeconds: number;
  readonly endSeconds: number;
  readonly ms: number;
  readonly bytes: number;
  readonly graphsCaptured: number;
}

export interface StepsRecord {
  /** When the batch arrived. */
  readonly atSeconds: number;
  readonly running: number;
  readonly waiting: number;
  readonly steps: readonly {
    readonly tokens: number;
    readonly requests: number;
    readonly served: string;
    readonly count: number;
    readonly seconds: number;
    /** How many of `count` the seconds cover; absent in folders of before it was kept. */
    readonly timed?: number;
  }[];
}

export interface MemoryRecord {
  readonly atSeconds: number;
  readonly graphsCaptured: number;
  readonly takenBytes: number;
  readonly freeBytes?: number;
}

/** A line of a run's samples file. */
export type SampleLine =
  | { readonly type: "request"; readonly value: RequestRecord }
  | { readonly type: "capture"; readonly value: CaptureRecord }
  | { readonly type: "steps"; readonly value: StepsRecord }
  | { readonly type: "memory"; readonly value: MemoryRecord };

/** When things happened; seconds from spawn. */
export interface RunTimes {
  readonly readySeconds?: number;
  readonly firstTokenSeconds?: number;
  readonly settledSeconds?: number;
  /** Second 0 of the schedule. */
  readonly scheduleSeconds?: number;
  readonly endSeconds?: number;
}

/** What of a specification makes requests other ones, besides mode, load and endpoint. */
export type AskedFields = Pick<
  BenchSpec,
  "ignoreEos" | "maxTokensSent" | "streamOptions" | "textPrompts" | "numWarmups" | "model"
>;

/** The head of a run: everything but its samples. */
export interface RunHead {
  readonly format: 1;
  readonly cell: CellName;
  /** `running`: it is under way, or was killed without a word. */
  readonly status: "running" | "complete" | "partial";
  /** Why it is partial. */
  readonly reason?: string;
  readonly startedAt: string;
  readonly host: HostFacts;
  readonly mode: ModeSpec;
  readonly load: Load;
  readonly start: Start;
  readonly endpoint: string;
  /** As it was asked for; absent in folders of before it was kept. */
  readonly asked?: AskedFields;
  readonly model?: string;
  /** Of a simulated engine: the title of its profile. */
  readonly simulated?: string;
  readonly prompts?: string;
  readonly requestsScheduled: number;
  /** Of those scheduled; absent for none. */
  readonly requestsFailed?: number;
  readonly times: RunTimes;
  /** Graphs captured before ready, with a controller. */
  readonly graphsAtReady?: readonly string[];
  readonly captureBeforeReadySeconds?: number;
  /** The controller's last snapshot; of an engine in virtual time its graphs. */
  readonly engine?: EngineFacts;
  /** Kernels that were compiled while it served; absent where nobody timed them. */
  readonly compilations?: readonly CompilationRecord[];
}

/** A kernel compiled on its first use, by the process of a rank. */
export interface CompilationRecord {
  readonly startSeconds: number;
  readonly endSeconds: number;
}

export type EngineFacts = Pick<
  EngineSnapshot,
  "graphs" | "graphsPlanned" | "graphsCaptured" | "takenBytes"
>;

export interface HostFacts {
  readonly name: string;
  readonly cpus: number;
  readonly cpuModel: string;
  readonly memoryBytes: number;
  readonly node: string;
  readonly lazygraph: string;
  readonly gpus: readonly string[];
  /** Cores this process may use, where it is pinned; absent in folders of before it was kept. */
  readonly coresAllowed?: number;
  /** CUDA_VISIBLE_DEVICES, where it is set: which GPU a run was on. */
  readonly visibleDevices?: string;
}

export interface CellRun extends RunHead {
  readonly requests: readonly RequestRecord[];
  readonly captures: readonly CaptureRecord[];
  readonly steps: readonly StepsRecord[];
  readonly memory: readonly MemoryRecord[];
}

/**
 * Every metric: its name, type, labels and meaning. docs/metrics.md, the dashboard and the alert
 * rules are tested against this list.
 *
 * Label sets are bounded: `engine` by the controller's `enginesMax`, the others by the lists here.
 */

import { MIB } from "../base/units.ts";
import { MODES, PHASES } from "../wire/protocol.ts";

export interface MetricDefinition {
  readonly type: "gauge" | "counter" | "histogram";
  /** One sentence, in base units. */
  readonly help: string;
  readonly labels: readonly string[];
  /** Upper bounds, of histograms only. */
  readonly buckets?: readonly number[];
}

export const KINDS = ["FULL", "PIECEWISE"] as const;
export const STATUSES = ["planned", "captured", "refused", "failed"] as const;
export const OUTCOMES = ["captured", "deferred", "refused", "failed", "lost"] as const;
/** Phases of a start as the plugin names them; `other` is what it may name later. */
export const START_PARTS: readonly string[] = [
  ...["imports", "command line", "config", "engine client", "tokenizer", "engine process"],
  ...["engine core", "executor", "worker", "device", "distributed", "model runner", "weights"],
  ...["memory and KV cache", "memory sizing", "profile run", "graph profiling"],
  ...["compile", "Inductor", "load compiled", "KV cache", "warm-up", "kernel warm-up"],
  ...["warm-up requests", "captures", "Inductor patterns", "JIT monitor", "garbage"],
  ...["JIT", "API server", "unattributed", "other"],
];
export type Outcome = (typeof OUTCOMES)[number];

/** The values that a label may have; `engine`, `model` and versions are the engine's own. */
export const LABEL_VALUES: Readonly<Record<string, readonly string[]>> = {
  kind: KINDS,
  mode: MODES,
  outcome: OUTCOMES,
  part: START_PARTS,
  phase: PHASES,
  served: ["exact", "padded", "ungraphed"],
  state: ["running", "waiting"],
  status: STATUSES,
};

const SECONDS = [0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5];
const BYTES = [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].map((mib) => mib * MIB);

function metric(
  type: MetricDefinition["type"],
  labels: readonly string[],
  help: string,
  buckets?: readonly number[],
): MetricDefinition {
  return { type, help, labels, ...(buckets === undefined ? {} : { buckets }) };
}

const ENGINE = ["engine"] as const;
const BY_KIND = ["engine", "kind"] as const;

export const METRIC_NAMES = [
  "lazygraph_engine_info",
  "lazygraph_engine_connected",
  "lazygraph_engine_mode",
  "lazygraph_engine_phase",
  "lazygraph_engine_settled",
  "lazygraph_engine_frozen",
  "lazygraph_engine_asleep",
  "lazygraph_engine_capturing",
  "lazygraph_engine_requests",
  "lazygraph_graphs",
  "lazygraph_graphs_waiting",
  "lazygraph_capture_results_total",
  "lazygraph_graphs_dropped_total",
  "lazygraph_capture_duration_seconds",
  "lazygraph_capture_size_bytes",
  "lazygraph_capture_stall_seconds",
  "lazygraph_longest_stall_seconds",
  "lazygraph_startup_capture_seconds",
  "lazygraph_startup_seconds",
  "lazygraph_settle_seconds",
  "lazygraph_steps_total",
  "lazygraph_replays_total",
  "lazygraph_regret_seconds_total",
  "lazygraph_graph_memory_bytes",
  "lazygraph_graph_memory_forecast_bytes",
  "lazygraph_graph_memory_forecast_error_bytes",
  "lazygraph_gpu_memory_free_bytes",
  "lazygraph_graph_memory_headroom_bytes",
  "lazygraph_problems_total",
] as const;

export type MetricName = (typeof METRIC_NAMES)[number];

export const METRICS: Readonly<Record<MetricName, MetricDefinition>> = {
  lazygraph_engine_info: metric(
    "gauge",
    ["engine", "model", "plugin_version", "vllm_version", "simulated"],
    "Always 1; what the engine is. simulated is true where no GPU is behind it.",
  ),
  lazygraph_engine_connected: metric("gauge", ENGINE, "1 while the engine has a connection."),
  lazygraph_engine_mode: metric(
    "gauge",
    ["engine", "mode"],
    "1 for the mode that the engine has, 0 for the others.",
  ),
  lazygraph_engine_phase: metric(
    "gauge",
    ["engine", "phase"],
    "1 for the phase that the engine is in, 0 for the others.",
  ),
  lazygraph_engine_settled: metric(
    "gauge",
    ENGINE,
    "1 once nothing is left to capture, or captures have ended.",
  ),
  lazygraph_engine_frozen: metric("gauge", ENGINE, "1 while captures are ended by a freeze."),
  lazygraph_engine_asleep: metric("gauge", ENGINE, "1 while anything of the engine sleeps."),
  lazygraph_engine_capturing: metric("gauge", ENGINE, "1 while a capture command is out."),
  lazygraph_engine_requests: metric(
    "gauge",
    ["engine", "state"],
    "Requests in the engine when it last told.",
  ),
  lazygraph_graphs: metric(
    "gauge",
    ["engine", "kind", "status", "loras"],
    "Graphs of the plan by where they stand; planned ones are not captured yet. loras is there " +
      "for graphs with adapters only: how many active ones they are for.",
  ),
  lazygraph_graphs_waiting: metric(
    "gauge",
    ENGINE,
    "Of the refused graphs, those that wait for memory and will be asked for again.",
  ),
  lazygraph_capture_results_total: metric(
    "counter",
    ["engine", "kind", "outcome"],
    "Capture commands after ready by how they ended; lost: with their engine.",
  ),
  lazygraph_graphs_dropped_total: metric(
    "counter",
    BY_KIND,
    "Graphs that were captured and then given up.",
  ),
  lazygraph_capture_duration_seconds: metric(
    "histogram",
    BY_KIND,
    "How long one capture took on the slowest rank, those before ready included.",
    SECONDS,
  ),
  lazygraph_capture_size_bytes: metric(
    "histogram",
    BY_KIND,
    "What one captured graph took, pool and driver memory, on the rank where it took most.",
    BYTES,
  ),
  lazygraph_capture_stall_seconds: metric(
    "histogram",
    BY_KIND,
    "How long one capture after ready held the engine up; its sum is all stall seconds.",
    SECONDS,
  ),
  lazygraph_longest_stall_seconds: metric(
    "gauge",
    ENGINE,
    "Longest time that a capture command held this engine process up.",
  ),
  lazygraph_startup_capture_seconds: metric(
    "gauge",
    ENGINE,
    "Seconds in capture before the engine was ready; absent when this was not seen.",
  ),
  lazygraph_startup_seconds: metric(
    "gauge",
    ["engine", "part"],
    "Seconds of the engine's start until it was ready, by phase; absent where it wasn't timed.",
  ),
  lazygraph_settle_seconds: metric(
    "gauge",
    ENGINE,
    "Seconds from ready to the first time the engine was settled; absent until then.",
  ),
  lazygraph_steps_total: metric(
    "counter",
    ["engine", "served"],
    "Steps by what served them: their ideal graph, a larger one, or none.",
  ),
  lazygraph_replays_total: metric(
    "counter",
    ["engine", "kind", "loras"],
    "Steps that replayed a graph of this kind; loras as in lazygraph_graphs.",
  ),
  lazygraph_regret_seconds_total: metric(
    "counter",
    ENGINE,
    "Seconds that steps took longer than with their ideal graph, by the cost estimates.",
  ),
  lazygraph_graph_memory_bytes: metric(
    "gauge",
    ENGINE,
    "What all captured graphs took, on the rank where each took most.",
  ),
  lazygraph_graph_memory_forecast_bytes: metric(
    "gauge",
    ENGINE,
    "What the graphs not captured yet will take by the forecast.",
  ),
  lazygraph_graph_memory_forecast_error_bytes: metric(
    "gauge",
    ENGINE,
    "How far off the forecast may be, either way.",
  ),
  lazygraph_gpu_memory_free_bytes: metric(
    "gauge",
    ENGINE,
    "Free device memory on the rank that has least; absent until a rank has told.",
  ),
  lazygraph_graph_memory_headroom_bytes: metric(
    "gauge",
    ENGINE,
    "What graphs may take beside serving; negative where serving itself is short of memory.",
  ),
  lazygraph_problems_total: metric(
    "counter",
    ["engine", "problem"],
    "What went wrong with the engine's messages, by kind.",
  ),
};

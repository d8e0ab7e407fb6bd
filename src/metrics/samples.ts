/** A snapshot of an engine as gauge and counter values. */

import type { EngineSnapshot } from "../engine/snapshot.ts";
import { MODES, PHASES } from "../wire/protocol.ts";
import { KINDS, type MetricName, OUTCOMES, START_PARTS, STATUSES } from "./catalogue.ts";
import type { Labels, Sample } from "./instruments.ts";
import type { EngineLedger } from "./ledger.ts";

/** Numbers of adapters told apart: some ten are captured, and a peer must not make labels. */
const LORAS_MAX = 16;

/** `ProblemCounts` as label values: Prometheus writes labels in snake case. */
const PROBLEMS = {
  malformed: "malformed",
  unknownTypes: "unknown_types",
  unknownGraphs: "unknown_graphs",
  flooded: "flooded",
  telemetryDropped: "telemetry_dropped",
  reported: "reported",
  replaced: "replaced",
  namesakes: "namesakes",
} as const satisfies Readonly<Record<keyof EngineSnapshot["problems"], string>>;

/** All samples of a connected engine. */
export function samplesOf(snapshot: EngineSnapshot, ledger: EngineLedger): Sample[] {
  const samples: Sample[] = [];
  const put = (name: MetricName, value: number | undefined, labels: Labels = {}): void => {
    if (value === undefined) return;
    samples.push({ name, labels: { engine: snapshot.engine, ...labels }, value });
  };
  putState(put, snapshot);
  putGraphs(put, snapshot, ledger);
  putSteps(put, snapshot);
  putMemory(put, snapshot);
  for (const [field, problem] of Object.entries(PROBLEMS)) {
    const count = snapshot.problems[field as keyof typeof PROBLEMS];
    put("lazygraph_problems_total", count, { problem });
  }
  return samples;
}

/** An engine that is away has no state to speak of: only that it is away, and who asks for its name. */
export function awaySamples({ engine, problems }: EngineSnapshot): Sample[] {
  const namesakes = { engine, problem: PROBLEMS.namesakes };
  return [
    { name: "lazygraph_engine_connected", labels: { engine }, value: 0 },
    { name: "lazygraph_problems_total", labels: namesakes, value: problems.namesakes },
  ];
}

type Put = (name: MetricName, value: number | undefined, labels?: Labels) => void;

function putState(put: Put, snapshot: EngineSnapshot): void {
  const { model, pluginVersion, vllmVersion, simulated } = snapshot;
  put("lazygraph_engine_info", 1, {
    model,
    plugin_version: pluginVersion,
    vllm_version: vllmVersion,
    simulated: String(simulated !== undefined),
  });
  put("lazygraph_engine_connected", Number(snapshot.connected));
  for (const mode of MODES) put("lazygraph_engine_mode", Number(mode === snapshot.mode), { mode });
  for (const phase of PHASES) {
    put("lazygraph_engine_phase", Number(phase === snapshot.phase), { phase });
  }
  put("lazygraph_engine_settled", Number(snapshot.settled));
  put("lazygraph_engine_frozen", Number(snapshot.frozen));
  put("lazygraph_engine_asleep", Number(Boolean(snapshot.asleep?.length)));
  put("lazygraph_engine_capturing", Number(snapshot.capturing !== undefined));
  put("lazygraph_engine_requests", snapshot.running, { state: "running" });
  put("lazygraph_engine_requests", snapshot.waiting, { state: "waiting" });
  put("lazygraph_startup_capture_seconds", snapshot.captureBeforeReadySeconds);
  for (const [part, seconds] of startParts(snapshot)) {
    put("lazygraph_startup_seconds", seconds, { part });
  }
  put("lazygraph_settle_seconds", snapshot.readyToSettledSeconds);
  put("lazygraph_longest_stall_seconds", snapshot.longestStallMs / 1000);
}

/** Phases that nobody listed here are one series: a peer must not make labels. */
function startParts({ startPhases }: EngineSnapshot): Map<string, number> {
  const parts = new Map<string, number>();
  for (const { name, seconds } of startPhases) {
    const part = START_PARTS.find((known) => known === name) ?? "other";
    parts.set(part, (parts.get(part) ?? 0) + seconds);
  }
  return parts;
}

function putGraphs(put: Put, { graphs }: EngineSnapshot, ledger: EngineLedger): void {
  for (const kind of KINDS) {
    const ofKind = graphs.filter((graph) => graph.kind === kind);
    for (const outcome of OUTCOMES) {
      const count = ledger.results.get(`${kind} ${outcome}`) ?? 0;
      put("lazygraph_capture_results_total", count, { kind, outcome });
    }
    put("lazygraph_graphs_dropped_total", ledger.dropped.get(kind) ?? 0, { kind });
    // Always one series for steps without adapters, and one more for each case of adapters.
    const cases = new Map<string, EngineSnapshot["graphs"][number][]>([["0", []]]);
    for (const graph of ofKind) {
      const loras = String(graph.loras);
      const name = cases.has(loras) || cases.size <= LORAS_MAX ? loras : "other";
      cases.set(name, cases.get(name) ?? []);
      cases.get(name)?.push(graph);
    }
    for (const [loras, its] of cases) {
      putCase(put, { kind, ...(loras === "0" ? {} : { loras }) }, its);
    }
  }
}

function putCase(put: Put, labels: Labels, graphs: EngineSnapshot["graphs"]): void {
  for (const status of STATUSES) {
    const count = graphs.filter((graph) => graph.status === status).length;
    put("lazygraph_graphs", count, { ...labels, status });
  }
  const replays = graphs.reduce((sum, graph) => sum + graph.replays, 0);
  put("lazygraph_replays_total", replays, labels);
}

function putSteps(put: Put, snapshot: EngineSnapshot): void {
  put("lazygraph_steps_total", snapshot.stepsExact, { served: "exact" });
  put("lazygraph_steps_total", snapshot.stepsPadded, { served: "padded" });
  put("lazygraph_steps_total", snapshot.stepsUngraphed, { served: "ungraphed" });
  put("lazygraph_regret_seconds_total", snapshot.regretSeconds);
}

function putMemory(put: Put, engine: EngineSnapshot): void {
  const { takenBytes, freeBytes, headroomBytes, graphsWaiting, forecast } = engine;
  put("lazygraph_graphs_waiting", graphsWaiting);
  put("lazygraph_graph_memory_bytes", takenBytes);
  put("lazygraph_gpu_memory_free_bytes", freeBytes);
  put("lazygraph_graph_memory_headroom_bytes", headroomBytes);
  put("lazygraph_graph_memory_forecast_bytes", forecast?.bytes);
  put("lazygraph_graph_memory_forecast_error_bytes", forecast?.errorBytes);
}

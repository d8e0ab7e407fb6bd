/** Plans and suggestions as text. Pure: data in, text out. */

import { counted } from "../base/counted.ts";
import { printable } from "../base/printable.ts";
import { MIB } from "../base/units.ts";
import { fingerprintKey } from "../plan/fingerprint.ts";
import type { Plan, PlanGraph, PlanTraffic } from "../plan/plan.ts";
import { captureSizesFlag, type Suggestion } from "../plan/suggest.ts";
import { plainTable } from "./table.ts";

/** Graphs of `first` that one line names. */
const FIRST_SHOWN = 24;

/** One row for each plan of a folder. */
export function foldersTable(plans: readonly { file: string; plan: Plan }[]): string {
  const table = plainTable([
    "model",
    "GPU",
    "TP×PP",
    "graphs",
    "starts",
    "first",
    "updated",
    "file",
  ]);
  for (const { file, plan } of plans) {
    const { fingerprint, graphs, starts, first, updatedAt } = plan;
    table.push([
      `${printable(fingerprint.model, 60)}${simulatedMark(plan)}`,
      printable(fingerprint.gpuName, 40),
      `${fingerprint.tensorParallel}×${fingerprint.pipelineParallel}`,
      String(graphs.length),
      String(starts),
      String(first.length),
      updatedAt,
      printable(file),
    ]);
  }
  return table.toString();
}

export function planText(plan: Plan): string {
  const { fingerprint, traffic, graphs, first } = plan;
  const head = plainTable([]);
  head.push(
    ["model", `${printable(fingerprint.model)}${simulatedMark(plan)}`],
    ["GPU", printable(fingerprint.gpuName)],
    ["parallel", `tensor ${fingerprint.tensorParallel}, pipeline ${fingerprint.pipelineParallel}`],
    [
      "vLLM, plugin",
      `${printable(fingerprint.vllmVersion)}, ${printable(fingerprint.pluginVersion)}`,
    ],
    ["CUDA graph mode", printable(fingerprint.cudagraphMode)],
    ["fingerprint", fingerprintKey(fingerprint)],
    ["learned", `${plan.createdAt} to ${plan.updatedAt}, ${counted(plan.starts, "start")}`],
    ["learned by", printable(plan.learnedBy)],
    ["first", firstText(first)],
  );
  const total = traffic.reduce((sum, row) => sum + row.requestSteps, 0);
  const rows = plainTable(["steps up to", "of", "request-steps", "share", "ungraphed ms"]);
  for (const row of traffic) {
    rows.push([
      String(row.tokens),
      rowText(row),
      row.requestSteps.toFixed(0),
      percent(row.requestSteps / total),
      measured(row.ungraphedSeconds, row.ungraphedTimed),
    ]);
  }
  const used = graphs.filter(isWorthShowing);
  const names = plainTable(["graph", "replays", "regret, s", "step ms", "capture ms", "MiB"]);
  for (const graph of used) {
    names.push([
      printable(graph.id),
      graph.replays.toFixed(0),
      graph.regret.toFixed(3),
      measured(graph.stepSeconds, graph.timed),
      graph.captureMs === undefined ? "" : graph.captureMs.toFixed(1),
      graph.bytes === undefined ? "" : (graph.bytes / MIB).toFixed(1),
    ]);
  }
  const left = graphs.length - used.length;
  return [
    head.toString(),
    traffic.length === 0 ? "No traffic yet." : rows.toString(),
    used.length === 0 ? "No graph was captured or wanted yet." : names.toString(),
    ...(left === 0 ? [] : [`${left} more graphs were neither captured nor wanted.`]),
    "In brackets: from a cost profile, no step of it was timed.",
  ].join("\n");
}

export function suggestionText(plan: Plan, its: Suggestion): string {
  const largest = its.sizes.at(-1) ?? 0;
  const planned = Math.max(...plan.graphs.map(({ tokens }) => tokens));
  const bytes =
    its.bytesSpared === undefined ? "" : ` and ${(its.bytesSpared / MIB).toFixed(0)} MiB`;
  const unmeasured =
    its.graphsUnmeasured === 0
      ? ""
      : ` (${its.graphsUnmeasured} of them never captured: taken as their kind's median)`;
  const lines = [
    captureSizesFlag(its.sizes),
    "",
    `or, in a compilation config: --compilation-config '${configOf(its)}'`,
    "",
    `${its.sizes.length} of ${its.sizesPlanned} sizes, ${its.graphsKept} of ${its.graphsPlanned} graphs.`,
    `Spares ${(its.captureMsSpared / 1000).toFixed(2)} s of captures${bytes}${unmeasured}.`,
    `Costs ${percent(its.lossShare)} of step time, over ${its.requestSteps.toFixed(0)} request-steps ` +
      `of ${counted(plan.starts, "start")}; of ${percent(its.measuredShare)} of them the graph's own steps were ` +
      "timed, of the others a cost profile's word counts.",
    largest < planned
      ? `Steps of ${largest + 1} to ${planned} tokens then run ungraphed: this plan has seen none.`
      : `The largest size stays: steps of more than ${largest} tokens run ungraphed as before.`,
  ];
  if (plan.simulated !== undefined) {
    lines.push(
      `SIMULATED: learned on the cost profile ${printable(plan.simulated)}, not on a GPU.`,
    );
  }
  return lines.join("\n");
}

export function suggestionDocument(plan: Plan, its: Suggestion): object {
  return {
    ...(plan.simulated === undefined ? {} : { simulated: plan.simulated }),
    model: plan.fingerprint.model,
    vllmVersion: plan.fingerprint.vllmVersion,
    flag: captureSizesFlag(its.sizes),
    compilationConfig: configOf(its),
    ...its,
  };
}

function configOf({ sizes }: Suggestion): string {
  return JSON.stringify({ cudagraph_capture_sizes: sizes });
}

function rowText({ uniform, loras = 0 }: PlanTraffic): string {
  const shape = uniform === 0 ? "mixed" : "decode";
  return loras === 0 ? shape : `${shape}, adapters: ${loras}`;
}

function isWorthShowing({ captureMs, replays, regret }: PlanGraph): boolean {
  return captureMs !== undefined || replays > 0 || regret > 0;
}

function firstText(first: readonly string[]): string {
  if (first.length === 0) return "nothing but the tops";
  const more = first.length > FIRST_SHOWN ? `, and ${first.length - FIRST_SHOWN} more` : "";
  const names = first.slice(0, FIRST_SHOWN).map((id) => printable(id));
  const lines: string[] = [];
  for (let at = 0; at < names.length; at += 6) lines.push(names.slice(at, at + 6).join(", "));
  return `${lines.join(",\n")}${more}`;
}

function measured(seconds: number, timed: number): string {
  const ms = (seconds * 1000).toFixed(2);
  return timed > 0 ? ms : `(${ms})`;
}

function percent(share: number): string {
  return `${(100 * (Number.isFinite(share) ? share : 0)).toFixed(2)}%`;
}

function simulatedMark({ simulated }: Plan): string {
  return simulated === undefined ? "" : ` (simulated: ${printable(simulated, 60)})`;
}

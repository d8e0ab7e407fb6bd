/** What `simulate` tells of its runs: one JSON document, or a table. Pure: runs in, text out. */

import { basename } from "node:path";
import Table from "cli-table3";
import { counted } from "../base/counted.ts";
import { MIB, rounded } from "../base/units.ts";
import type { Profile } from "../profile/profile.ts";
import type { Spread } from "../sim/virtual/figures.ts";
import type { SimulatedRun } from "../sim/virtual/virtual.ts";
import { quote } from "./errors.ts";
import { secondsText } from "./table.ts";

const AZURE_TRACE = /^azure-llm-2023-conversation(\.json\.xz)?$/;
const AZURE_TITLE =
  "Azure Public Dataset, AzureLLMInferenceTrace_conv 2023 (Microsoft), licence CC-BY 4.0";

/** What the trace came to, the same for every policy. */
export interface TraceSeen {
  requests: number;
  seconds: number;
}

export interface Simulation {
  /** The trace's. */
  readonly file: string;
  readonly speed: number;
  readonly seen: Readonly<TraceSeen>;
  readonly profile: Profile;
  /** Of the policies that were named, in this order. */
  readonly runs: readonly SimulatedRun[];
  /** What they are compared with. */
  readonly oracle: SimulatedRun;
}

export function documentOf({ profile, seen, runs, oracle }: Simulation): object {
  return {
    simulated: true,
    trace: { requests: seen.requests, seconds: rounded(seen.seconds) },
    profile: profile.name,
    captureBeforeReadyEstimated: isBeforeReadyEstimated(profile),
    policies: runs.map((run) => ({
      name: run.policy,
      addedRequestSeconds: rounded(run.completionSecondsSum - oracle.completionSecondsSum),
      ttftSeconds: roundedSpread(run.ttftSeconds),
      tpotSeconds: roundedSpread(run.tpotSeconds),
      captureBeforeReadySeconds: rounded(run.captureBeforeReadySeconds),
      // Null: captures were still possible when the run ended.
      settledSeconds: run.settledSeconds === undefined ? null : rounded(run.settledSeconds),
      stallSecondsMax: rounded(run.stallSecondsMax),
      graphsCaptured: run.graphsCaptured,
      graphsPlanned: run.graphsPlanned,
      graphBytes: run.graphBytes,
    })),
  };
}

export function textOf({ file, profile, speed, seen, runs, oracle }: Simulation): string {
  const table = new Table({
    head: [
      "simulated",
      "added, request-seconds",
      "TTFT p50",
      "TTFT p99",
      "TTFT max",
      "TPOT p50",
      "before ready",
      "longest stall",
      "graphs",
      "MiB",
      "settled",
    ],
    style: { head: [], border: [], compact: true },
    colAligns: ["left", ...Array.from({ length: 10 }, () => "right" as const)],
  });
  for (const run of runs) {
    table.push([
      run.policy,
      (run.completionSecondsSum - oracle.completionSecondsSum).toFixed(2),
      secondsText(run.ttftSeconds.p50),
      secondsText(run.ttftSeconds.p99),
      secondsText(run.ttftSeconds.max),
      `${(run.tpotSeconds.p50 * 1000).toFixed(2)} ms`,
      secondsText(run.captureBeforeReadySeconds),
      run.stallSecondsMax === 0 ? "none" : `${(run.stallSecondsMax * 1000).toFixed(1)} ms`,
      `${run.graphsCaptured} of ${run.graphsPlanned}`,
      (run.graphBytes / MIB).toFixed(0),
      run.settledSeconds === undefined ? "never" : secondsText(run.settledSeconds),
    ]);
  }
  const source = AZURE_TRACE.test(basename(file)) ? AZURE_TITLE : quote(file);
  return [
    table.toString(),
    `SIMULATED in virtual time: no GPU was used. Profile ${profile.name}: ${profile.title}.`,
    ...(isBeforeReadyEstimated(profile)
      ? [
          "ESTIMATED in this profile, not measured: captures before ready, so the figures of stock " +
            "and eager.",
        ]
      : []),
    `${counted(seen.requests, "request")} over ${seen.seconds.toFixed(1)} s at speed ${speed} of ${source}.`,
  ].join("\n");
}

/** A calibration can't see most captures before ready: its engine starts with the tops alone. */
function isBeforeReadyEstimated({ provenance }: Profile): boolean {
  return ["captures.rows.captureMs", "captures.rows.warmMs"].some((field) => {
    const kind = provenance[field]?.kind;
    return kind === "estimated" || kind === "assumed";
  });
}

function roundedSpread(spread: Spread): Spread {
  return {
    p50: rounded(spread.p50),
    p90: rounded(spread.p90),
    p99: rounded(spread.p99),
    p999: rounded(spread.p999),
    max: rounded(spread.max),
    cv: rounded(spread.cv),
  };
}

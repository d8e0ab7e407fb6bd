/**
 * How far the simulator agrees with a real engine: the requests of each run of benchmark folders,
 * warm-up included, go through `simulate` at the very same times from ready on.
 *
 *   node --import tsx bench/agreement.ts FOLDER... [--profile NAME] [--seeds N] [--json FILE]
 *
 * A mode's policy in the simulator is its `mode` (`lazy`, `idle`, `eager`; `…-costed` where its
 * controller has that policy), `stock` without one, `none` where its command sets
 * cudagraph_mode=NONE. Hypothesis: medians of TTFT and of time per output token agree within 10%,
 * p99 within 25%, and modes under one load rank the same by their medians. Refuted if the last lines
 * say otherwise. With `--seeds`, each run is simulated N more times with step times that vary by 3%:
 * how far its figures hang on chance.
 *
 * TTFT of the real engine counts from when a request was sent, through HTTP and the API server; in
 * the simulator that is the profile's `frontEndSeconds`.
 */

import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import type { CellRun, RequestRecord } from "../src/bench/samples.ts";
import { readHeads, readRun } from "../src/bench/store.ts";
import { sentTtftMs } from "../src/bench/vllm-result.ts";
import { completedOf, outputTokensOf, readySecondsOf, tpotMs } from "../src/bench/windows.ts";
import { quantile } from "../src/measure/statistics.ts";
import { DEFAULT_PROFILE, loadProfile } from "../src/profile/load.ts";
import type { Profile } from "../src/profile/profile.ts";
import type { RequestSample } from "../src/sim/model/batcher.ts";
import { createSetup, type PolicyName } from "../src/sim/virtual/setups.ts";
import { simulate } from "../src/sim/virtual/virtual.ts";
import type { TraceRequest } from "../src/trace/trace.ts";
import { writeResult } from "./lib/result-file.ts";
import { type StepRatios, stepRatios } from "./step-ratios.ts";

/** Figures, and how far from 1 a ratio of them may be. */
const TOLERANCES = {
  ttftP50Ms: 0.1,
  ttftP95Ms: undefined,
  ttftP99Ms: 0.25,
  tpotP50Ms: 0.1,
  tpotP99Ms: 0.25,
} as const;

type FigureName = keyof typeof TOLERANCES;
type Figures = Readonly<Record<FigureName, number>>;

const TITLES: Readonly<Record<FigureName, string>> = {
  ttftP50Ms: "TTFT p50",
  ttftP95Ms: "TTFT p95",
  ttftP99Ms: "TTFT p99",
  tpotP50Ms: "TPOT p50",
  tpotP99Ms: "TPOT p99",
};
const NAMES = Object.keys(TOLERANCES) as FigureName[];
const RANKED = ["ttftP50Ms", "tpotP50Ms"] as const;
const JITTER = 0.03;
const SEEDS_MAX = 1000;

interface Agreement {
  readonly load: string;
  readonly mode: string;
  readonly run: number;
  readonly policy: PolicyName;
  readonly requests: number;
  /** What was measured is itself simulated: the two models of time, not the engine, are compared. */
  readonly measuredSimulated: boolean;
  readonly measured: Figures;
  readonly simulated: Figures;
  /** Simulated over measured. */
  readonly ratios: Figures;
  /** Least and most of each figure with step times that vary. */
  readonly varied?: Readonly<Record<FigureName, readonly [least: number, most: number]>>;
}

interface Ranking {
  readonly load: string;
  readonly by: FigureName;
  /** Modes, the best first. */
  readonly measured: readonly string[];
  readonly simulated: readonly string[];
}

function policyOf({ mode: spec }: CellRun): PolicyName {
  const text = JSON.stringify([spec.command, spec.env]);
  if (spec.simulated?.sizes?.length === 0 || /cudagraph_mode\W+NONE/i.test(text)) return "none";
  if (spec.mode === undefined) return "stock";
  if (spec.mode === "eager") return spec.mode;
  return `${spec.mode}-${spec.controller?.["policy"] === "costed" ? "costed" : "simple"}`;
}

/** Those that an engine really served: with the lengths it counted. */
function requestOf(request: RequestRecord, readySeconds: number): TraceRequest {
  return {
    atSeconds: request.sentSeconds - readySeconds,
    promptTokens: request.promptTokens ?? request.promptTokensWanted,
    outputTokens: outputTokensOf(request),
  };
}

async function agreementOf(run: CellRun, profile: Profile, seeds: number): Promise<Agreement> {
  const policy = policyOf(run);
  const completed = completedOf(run);
  const simulated = await simulatedFigures(run, profile, policy);
  const measured = figuresOf(
    completed.flatMap((request) => sentTtftMs(request) ?? []),
    completed.flatMap((request) => tpotMs(request) ?? []),
  );
  const varied: Figures[] = [];
  for (let seed = 1; seed <= seeds; seed++) {
    varied.push(await simulatedFigures(run, profile, policy, { jitter: JITTER, seed }));
  }
  return {
    load: run.cell.load,
    mode: run.cell.mode,
    run: run.cell.run,
    policy,
    requests: completed.length,
    measuredSimulated: run.simulated !== undefined,
    measured,
    simulated,
    ratios: eachFigure((name) => simulated[name] / measured[name]),
    ...(seeds === 0 ? {} : { varied: eachFigure((name) => rangeOf(varied, name)) }),
  };
}

/** What the run's requests come to in the simulator, those of its warm-up not counted. */
async function simulatedFigures(
  run: CellRun,
  profile: Profile,
  policy: PolicyName,
  noise: { readonly jitter?: number; readonly seed?: number } = {},
): Promise<Figures> {
  const ready = readySecondsOf(run);
  const served = run.requests
    .filter(({ firstSeconds }) => firstSeconds !== undefined)
    .map((request) => requestOf(request, ready))
    .sort((a, b) => a.atSeconds - b.atSeconds);
  const first = Math.min(...completedOf(run).map(({ sentSeconds }) => sentSeconds)) - ready;
  const [probe = { atSeconds: 0, promptTokens: 1, outputTokens: 1 }] = served;
  // Ready doesn't depend on traffic: it is learned by a run of one request, then times are shifted.
  const { readySeconds } = await simulate({
    profile,
    ...createSetup(policy, profile),
    ...noise,
    requests: [{ ...probe, atSeconds: 0 }],
  });
  const samples: RequestSample[] = [];
  await simulate({
    profile,
    ...createSetup(policy, profile),
    ...noise,
    requests: served.map((request) => {
      return { ...request, atSeconds: Math.max(0, request.atSeconds) + readySeconds };
    }),
    onRequest: (sample) => samples.push(sample),
  });
  const from = readySeconds + first - 1e-6;
  const counted = samples.filter(({ arrivalSeconds }) => arrivalSeconds >= from);
  return figuresOf(
    counted.map((s) => (s.firstTokenSeconds - s.arrivalSeconds) * 1000),
    counted
      .filter(({ outputTokens }) => outputTokens > 1)
      .map((s) => ((s.completionSeconds - s.firstTokenSeconds) * 1000) / (s.outputTokens - 1)),
  );
}

function figuresOf(ttft: readonly number[], tpot: readonly number[]): Figures {
  const of = (values: readonly number[], share: number): number =>
    values.length === 0 ? Number.NaN : quantile(values, share);
  return {
    ttftP50Ms: of(ttft, 0.5),
    ttftP95Ms: of(ttft, 0.95),
    ttftP99Ms: of(ttft, 0.99),
    tpotP50Ms: of(tpot, 0.5),
    tpotP99Ms: of(tpot, 0.99),
  };
}

function eachFigure<T>(of: (name: FigureName) => T): Record<FigureName, T> {
  return Object.fromEntries(NAMES.map((name) => [name, of(name)])) as Record<FigureName, T>;
}

function rangeOf(figures: readonly Figures[], name: FigureName): [number, number] {
  const values = figures.map((entry) => entry[name]);
  return [Math.min(...values), Math.max(...values)];
}

/** Of every load that several modes ran under. */
function rankingsOf(agreements: readonly Agreement[]): Ranking[] {
  const loads = [...new Set(agreements.map(({ load }) => load))];
  return loads.flatMap((load) => {
    const cells = agreements.filter((agreement) => agreement.load === load);
    if (cells.length < 2) return [];
    return RANKED.map((by) => {
      const order = (side: "measured" | "simulated"): string[] =>
        [...cells].sort((a, b) => a[side][by] - b[side][by]).map(({ mode }) => mode);
      return { load, by, measured: order("measured"), simulated: order("simulated") };
    });
  });
}

function outsideOf(agreements: readonly Agreement[]): string[] {
  return agreements.flatMap(({ load, mode, run, ratios }) =>
    NAMES.flatMap((name) => {
      const tolerance = TOLERANCES[name];
      if (tolerance === undefined || Math.abs(ratios[name] - 1) <= tolerance) return [];
      return [`${mode} ${load} ${run}: ${TITLES[name]} ${ratios[name].toFixed(2)}`];
    }),
  );
}

function print(agreements: readonly Agreement[], profile: Profile): void {
  const table = new Table({
    head: ["load", "mode", "run", "policy", "requests", ...NAMES.map((name) => TITLES[name])],
    style: { head: [], border: [], compact: true },
  });
  for (const { load, mode, run, policy, requests, ...figures } of agreements) {
    const { measured, simulated, ratios, varied } = figures;
    const cells = NAMES.map((name) => {
      const range = varied?.[name].map((value) => value.toFixed(1)).join("–");
      return (
        `${measured[name].toFixed(2)} → ${simulated[name].toFixed(2)} (${ratios[name].toFixed(2)})` +
        (range === undefined ? "" : ` ${range}`)
      );
    });
    table.push([load, mode, String(run), policy, String(requests), ...cells]);
  }
  console.log(table.toString());
  console.log("Milliseconds: measured → simulated (simulated over measured).");
  if (agreements.some(({ varied }) => varied !== undefined)) {
    console.log(`After it: least to most with step times that vary by ${JITTER * 100}%.`);
  }
  console.log(`Simulated by profile ${profile.name}: ${profile.title}.`);
  if (agreements.some(({ measuredSimulated }) => measuredSimulated)) {
    console.log("SIMULATED on both sides: the left one is a simulated engine in real time.");
  }
  for (const { load, by, measured, simulated } of rankingsOf(agreements)) {
    console.log(
      `${load} by ${TITLES[by]}: measured ${measured.join(" < ")}; simulated ${simulated.join(" < ")}`,
    );
  }
  console.log(`Outside 10% (medians) or 25% (p99): ${outsideOf(agreements).join("; ") || "none"}.`);
}

function printSteps(steps: readonly StepRatios[]): void {
  for (const { steps: which, count, q1, median, q3 } of steps) {
    const [low, middle, high] = [q1, median, q3].map((value) => value.toFixed(2));
    console.log(`${count} timed ${which}: ${middle} of the profile's time (${low} to ${high})`);
  }
}

const { values, positionals } = parseArgs({
  options: {
    profile: { type: "string" },
    seeds: { type: "string", default: "0" },
    json: { type: "string" },
  },
  allowPositionals: true,
});
const seeds = Number(values.seeds);
if (positionals.length === 0 || !Number.isInteger(seeds) || seeds < 0 || seeds > SEEDS_MAX) {
  console.error(
    "usage: bench/agreement.ts FOLDER... [--profile NAME] [--seeds 0..1000] [--json FILE]",
  );
  process.exit(2);
}
const profile = loadProfile(values.profile ?? DEFAULT_PROFILE);
const agreements: Agreement[] = [];
const runs: CellRun[] = [];
for (const folder of positionals) {
  for (const head of await readHeads(folder)) {
    const run = await readRun(folder, head);
    if (completedOf(run).length === 0) continue;
    agreements.push(await agreementOf(run, profile, seeds));
    runs.push(run);
  }
}
const steps = stepRatios(runs, profile);
print(agreements, profile);
printSteps(steps);
if (values.json !== undefined) {
  const document = {
    what: "agreement",
    profile: profile.name,
    agreements,
    rankings: rankingsOf(agreements),
    outside: outsideOf(agreements),
    steps,
  };
  writeResult(pathToFileURL(values.json), document);
}

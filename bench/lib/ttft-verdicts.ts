/** What a benchmark folder says of TTFT around captures: each claim with its interval and limit. */

import { type Estimate, estimate } from "../../src/bench/bootstrap.ts";
import { longestTokenGap } from "../../src/bench/gap.ts";
import { runFigures } from "../../src/bench/run-figures.ts";
import type { CellRun } from "../../src/bench/samples.ts";
import { difference, waitPerRequest } from "../../src/bench/summary.ts";
import {
  completedOf,
  hasCapture,
  holdMs,
  inWindow,
  readySecondsOf,
  ttftMs,
  type WindowName,
} from "../../src/bench/windows.ts";
import { bootstrapMean, mean } from "../../src/measure/statistics.ts";
import { type Matched, matched, ttftsOf } from "./matched.ts";

export interface Verdict {
  readonly load: string;
  readonly claim: string;
  /** Undefined where no run tells. */
  readonly estimate: Estimate | undefined;
  readonly unit: string;
  readonly least: number;
  readonly most: number;
  /** `unsure`: the value holds, and its interval reaches past the limit, or one run has none. */
  readonly verdict: "holds" | "unsure" | "fails" | "no data";
  readonly note: string;
}

export interface VerdictOptions {
  /** Complete runs only: a partial one has no claim to anything. */
  readonly runs: readonly CellRun[];
  readonly mode: string;
  readonly baseline: string;
  /** Loads that are judged around the fill. */
  readonly loads: readonly string[];
  readonly spawnLoad: string;
}

const FIRST_SECONDS = 120;
const CAPTURED_SHARE_LEAST = 0.8;
const REQUESTS_LEAST = 1000;
const FIRST_PERCENT = 5;
const LATER_PERCENT = 2;
const GAP_SLACK_MS = 5;
/** A load that ends with the two minutes has no later part worth a median. */
const LATER_SECONDS_LEAST = 20;

export function verdicts(options: VerdictOptions): Verdict[] {
  const { runs, mode, baseline, loads, spawnLoad } = options;
  const of = (name: string, load: string): CellRun[] =>
    runs.filter(({ cell }) => cell.mode === name && cell.load === load);
  return [
    ...loads.flatMap((load) => fillVerdicts(load, of(mode, load), of(baseline, load))),
    spawnVerdict(spawnLoad, of(mode, spawnLoad), of(baseline, spawnLoad)),
  ];
}

interface Judged {
  readonly load: string;
  readonly claim: string;
  readonly unit: string;
  readonly estimate: Estimate | undefined;
  readonly least?: number;
  readonly most?: number;
  readonly note?: string;
}

function judge(judged: Judged): Verdict {
  const { least = Number.NEGATIVE_INFINITY, most = Number.POSITIVE_INFINITY, note = "" } = judged;
  const within = (value: number): boolean => value >= least && value <= most;
  const { estimate: found } = judged;
  const verdict = (): Verdict["verdict"] => {
    if (found === undefined || Number.isNaN(found.value)) return "no data";
    if (!within(found.value)) return "fails";
    return within(found.low) && within(found.high) ? "holds" : "unsure";
  };
  return { ...judged, least, most, note, verdict: verdict() };
}

function fillVerdicts(load: string, ours: readonly CellRun[], theirs: CellRun[]): Verdict[] {
  const first = matchedIn("first120", ours, theirs);
  const captures = ours.flatMap(capturesMs);
  return [
    capturedVerdict(load, ours),
    requestsVerdict(load, ours),
    ratioVerdict(load, "median TTFT, first two minutes, same requests", first, FIRST_PERCENT),
    steadyVerdict(load, ours, theirs),
    judge({
      load,
      claim: "p99 TTFT, first two minutes, over the baseline's on the same requests",
      unit: "ms",
      estimate: first?.p99Difference,
      most: captures.length === 0 ? 0 : mean(captures),
      note:
        first === undefined
          ? ""
          : `${ms(first.ours.p99)} against ${ms(first.theirs.p99)}; the limit is one capture (mean)`,
    }),
    gapVerdict(load, ours, theirs),
    ...(endsEarly(ours) ? [] : [laterVerdict(load, ours, theirs)]),
    ratioVerdict(
      load,
      "median TTFT, due after the last capture, same requests",
      matchedIn("after", ours, theirs),
      LATER_PERCENT,
    ),
  ];
}

function endsEarly(runs: readonly CellRun[]): boolean {
  return runs.some(
    ({ load: { seconds } }) =>
      seconds !== undefined && seconds < FIRST_SECONDS + LATER_SECONDS_LEAST,
  );
}

function laterVerdict(load: string, ours: readonly CellRun[], theirs: readonly CellRun[]): Verdict {
  const found = matchedIn("later", ours, theirs);
  const claim = "median TTFT, later than two minutes, same requests";
  return ratioVerdict(load, claim, found, LATER_PERCENT);
}

/** The baseline's requests are those of the schedule that ours have in the window. */
function matchedIn(
  window: WindowName,
  ours: readonly CellRun[],
  theirs: readonly CellRun[],
): Matched | undefined {
  return matched(
    ours.map((run) => ttftsOf(inWindow(run, window, completedOf(run)))),
    theirs.map((run) => ttftsOf(completedOf(run))),
  );
}

function ratioVerdict(
  load: string,
  claim: string,
  found: Matched | undefined,
  percent: number,
): Verdict {
  return judge({
    load,
    claim,
    unit: "%",
    estimate: found && asPercent(found.medianRatio),
    least: -percent,
    most: percent,
    note:
      found === undefined
        ? ""
        : `${ms(found.ours.p50)} against ${ms(found.theirs.p50)}, ${found.requests} requests`,
  });
}

/** Percent above or below the baseline. */
function asPercent({ value, low, high }: Estimate): Estimate {
  return { value: (value - 1) * 100, low: (low - 1) * 100, high: (high - 1) * 100 };
}

function capturedVerdict(load: string, ours: readonly CellRun[]): Verdict {
  const shares = ours.flatMap((run) => runFigures(run).capturedShareAt120 ?? []);
  const found = shares.length === 0 ? undefined : asEstimate(bootstrapMean(shares));
  const least = Math.min(...shares);
  return judge({
    load,
    claim: "share of the plan captured two minutes after ready, least of the runs",
    unit: "",
    estimate: found && { ...found, value: least, low: least },
    least: CAPTURED_SHARE_LEAST,
    note: runsText(shares.length),
  });
}

function asEstimate({ mean: value, low, high }: ReturnType<typeof bootstrapMean>): Estimate {
  return { value, low, high };
}

function requestsVerdict(load: string, ours: readonly CellRun[]): Verdict {
  const counts = ours.map((run) => inWindow(run, "first120", completedOf(run)).length);
  const value = counts.reduce((sum, count) => sum + count, 0);
  return judge({
    load,
    claim: "requests of the first two minutes, pooled over runs",
    unit: "",
    estimate: counts.length === 0 ? undefined : { value, low: value, high: value },
    least: REQUESTS_LEAST,
    note: runsText(counts.length),
  });
}

/** The claim by its letter: against all that the baseline had later than two minutes after ready. */
function steadyVerdict(
  load: string,
  ours: readonly CellRun[],
  theirs: readonly CellRun[],
): Verdict {
  const values = (runs: readonly CellRun[], window: WindowName): number[][] =>
    runs.map((run) => inWindow(run, window, completedOf(run)).map(ttftMs));
  const later = values(theirs, "later");
  const some = later.some((run) => run.length > 0);
  const steady = some ? later : values(theirs, "all");
  const own = estimate(values(ours, "first120"), 1);
  const base = estimate(steady, 2);
  return judge({
    load,
    claim: "median TTFT, first two minutes, against the baseline's steady requests",
    unit: "%",
    estimate: own && base && asPercent(ratioOf(own.p50, base.p50)),
    least: -FIRST_PERCENT,
    most: FIRST_PERCENT,
    note:
      base === undefined
        ? ""
        : `steady: ${some ? "due later than two minutes after ready" : "all"}, ${base.samples} requests`,
  });
}

/** Of independent estimates, from their intervals on the scale of logarithms. */
function ratioOf(a: Estimate, b: Estimate): Estimate {
  const value = a.value / b.value;
  const below = Math.hypot(Math.log(a.value / a.low), Math.log(b.high / b.value));
  const above = Math.hypot(Math.log(a.high / a.value), Math.log(b.value / b.low));
  return { value, low: value * Math.exp(-below), high: value * Math.exp(above) };
}

interface RunGap {
  readonly gapMs: number;
  /** Whether a capture held the engine up in this gap. */
  readonly hasCapture: boolean;
  readonly captureMs: number;
  readonly stepMs: number;
}

function gapVerdict(load: string, ours: readonly CellRun[], theirs: readonly CellRun[]): Verdict {
  const gaps = ours.flatMap((run) => gapOf(run) ?? []);
  const over = gaps.map(({ gapMs, captureMs, stepMs }) => gapMs - captureMs - stepMs);
  const spread = over.length === 0 ? undefined : asEstimate(bootstrapMean(over));
  const worst = gaps[over.indexOf(Math.max(...over))];
  const base = theirs.flatMap((run) => gapOf(run)?.gapMs ?? []);
  return judge({
    load,
    claim: "longest gap with work waiting, over the longest capture + one step, worst run",
    unit: "ms",
    estimate: spread && { ...spread, value: Math.max(...over), high: Math.max(...over) },
    most: GAP_SLACK_MS,
    note:
      worst === undefined
        ? ""
        : `gap ${ms(worst.gapMs)}${worst.hasCapture ? "" : " with no capture in it"}, ` +
          `capture ${ms(worst.captureMs)}, step ${ms(worst.stepMs)}` +
          (base.length === 0 ? "" : `; the baseline's own longest gap ${ms(Math.max(...base))}`),
  });
}

/** In the first two minutes after ready; tokens bound the gap between two steps from above. */
function gapOf(run: CellRun): RunGap | undefined {
  const from = readySecondsOf(run);
  const gap = longestTokenGap(completedOf(run), { from, to: from + FIRST_SECONDS });
  if (gap === undefined) return undefined;
  const steps = run.steps.flatMap((report) =>
    report.steps.flatMap(({ seconds, count, timed = count }) => (timed > 0 ? seconds / timed : [])),
  );
  return {
    gapMs: gap.seconds * 1000,
    hasCapture: hasCapture(run.captures, gap.atSeconds - gap.seconds, gap.atSeconds),
    captureMs: Math.max(0, ...capturesMs(run)),
    stepMs: steps.reduce((longest, seconds) => Math.max(longest, seconds), 0) * 1000,
  };
}

function capturesMs({ captures }: CellRun): number[] {
  return captures.map(holdMs);
}

/** Started at once, two runs share what their host was like then, which sways a start most. */
const TOGETHER_MS = 10_000;

function firstMinuteWait(run: CellRun): number | undefined {
  return waitPerRequest(runFigures(run));
}

/** By how much ours waited less, seconds, for each pair of runs that started together. */
function savedTogether(ours: readonly CellRun[], theirs: readonly CellRun[]): number[] {
  const at = (run: CellRun): number => Date.parse(run.startedAt);
  const left = [...theirs];
  return ours.flatMap((run) => {
    const place = left.findIndex((other) => Math.abs(at(other) - at(run)) <= TOGETHER_MS);
    const [other] = place < 0 ? [] : left.splice(place, 1);
    const [own, base] = [firstMinuteWait(run), other && firstMinuteWait(other)];
    return own === undefined || base === undefined ? [] : base - own;
  });
}

function spawnVerdict(load: string, ours: readonly CellRun[], theirs: readonly CellRun[]): Verdict {
  const waits = (runs: readonly CellRun[]): number[] =>
    runs.flatMap((run) => firstMinuteWait(run) ?? []);
  const [own, base] = [waits(ours), waits(theirs)];
  const together = savedTogether(ours, theirs).map((seconds) => seconds.toFixed(2));
  return judge({
    load,
    claim: "a request of the first minute from spawn waits less, on average, by",
    unit: "s",
    // How long one start takes says little of the next: of a single one it has no interval.
    estimate: difference(base, own),
    least: 0,
    note:
      own.length === 0 || base.length === 0
        ? ""
        : `${mean(own).toFixed(3)} s against ${mean(base).toFixed(3)} s, ` +
          `${own.length} and ${base.length} runs` +
          (together.length === 0 ? "" : `; of runs started together: ${together.join(", ")} s`),
  });
}

function runsText(count: number): string {
  return `${count} ${count === 1 ? "run" : "runs"}`;
}

function ms(value: number): string {
  return `${value.toFixed(1)} ms`;
}

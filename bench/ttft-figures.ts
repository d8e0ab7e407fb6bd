/**
 * The claims about TTFT around captures, from a folder of `lazygraph bench` (bench/gpu/ttft.sh):
 * each with its 95% interval, its limit and whether it holds; the trade-off of the stall budget; and
 * all modes on the requests of the first minute.
 *
 *   node --import tsx bench/ttft-figures.ts FOLDER [--json FILE] [--mode idle] [--baseline stock]
 *
 * Hypothesis: every claim holds. Refuted by a line that says `fails`; a claim whose interval reaches
 * past its limit is `unsure`, and wants more runs. Exit code 1 unless every claim holds or is unsure.
 */

import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import type { Estimate } from "../src/bench/bootstrap.ts";
import { simulatedNote } from "../src/bench/cautions.ts";
import { hostsOf } from "../src/bench/host.ts";
import { numberText } from "../src/bench/rows.ts";
import type { CellRun } from "../src/bench/samples.ts";
import { readHeads, readRun } from "../src/bench/store.ts";
import type { Interval } from "../src/measure/statistics.ts";
import { type CaptureHolds, captureHolds } from "./lib/capture-holds.ts";
import { type FillCost, fillCost, type Stretch, stretches } from "./lib/fill-cost.ts";
import { writeResult } from "./lib/result-file.ts";
import {
  type FirstMinuteRow,
  firstMinute,
  type TradeOffPoint,
  tradeOff,
} from "./lib/ttft-tables.ts";
import { type Verdict, verdicts } from "./lib/ttft-verdicts.ts";

const { values, positionals } = parseArgs({
  options: {
    json: { type: "string" },
    mode: { type: "string", default: "idle" },
    baseline: { type: "string", default: "stock" },
  },
  allowPositionals: true,
});
const [folder] = positionals;
if (folder === undefined || positionals.length > 1) {
  console.error(
    "usage: bench/ttft-figures.ts FOLDER [--json FILE] [--mode idle] [--baseline stock]",
  );
  process.exit(2);
}

/** Loads by name, as bench/gpu/ttft.json has them. */
const AROUND_FILL = ["conversation", "poisson"];
const FROM_SPAWN = "from-spawn";
const BUSY = "busy";
const SAME_SCHEDULE = ["conversation", "first-minute"];
/** Seconds of the schedule. */
const STRETCHES = [0, 15, 30, 60];

function text(value: Estimate | Interval | undefined, unit = ""): string {
  if (value === undefined) return "–";
  const middle = "value" in value ? value.value : value.mean;
  const [own, low, high] = [middle, value.low, value.high].map(
    (number) => numberText(number) ?? "–",
  );
  return `${own}${unit === "" ? "" : ` ${unit}`}${low === high ? "" : ` (${low} to ${high})`}`;
}

function limitText({ least, most, unit }: Verdict): string {
  const parts = [
    Number.isFinite(least) ? `at least ${numberText(least)}` : undefined,
    Number.isFinite(most) ? `at most ${numberText(most)}` : undefined,
  ];
  return `${parts.filter((part) => part !== undefined).join(", ")} ${unit}`.trim();
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const made = new Table({ head: [...head], style: { head: [], border: [], compact: true } });
  for (const row of rows) made.push([...row]);
  console.log(made.toString());
}

function printVerdicts(found: readonly Verdict[]): void {
  const rows = found.map((one) => [
    one.load,
    one.claim,
    text(one.estimate, one.unit),
    limitText(one),
    one.verdict === "fails" ? "FAILS" : one.verdict,
    one.note,
  ]);
  table(["load", "claim", "value (95%)", "limit", "verdict", ""], rows);
}

function printTradeOff(points: readonly TradeOffPoint[]): void {
  if (points.length === 0) return;
  console.log("\nStall budget: how much fill may hold up an engine that has work");
  const rows = points.map((point) => [
    numberText(point.fillShare) ?? "–",
    `${point.runs} (${point.requests} requests)`,
    text(point.shareDelayed),
    text(point.shareMet),
    point.settledRuns === 0
      ? "not while requests came"
      : `${text(point.secondsToSettled, "s")}, ${point.settledRuns} of ${point.runs} runs`,
    text(point.capturedShare),
    text(point.ungraphedShare),
    text(point.ttftP50Ms),
    text(point.ttftP99Ms),
    text(point.tpotP50Ms),
    text(point.tpotP99Ms),
  ]);
  const head = [
    "fillShare",
    "runs",
    "first token delayed",
    "met a capture",
    "ready to settled",
    "captured at the end",
  ];
  const latencies = ["TTFT p50, ms", "p99", "time per output token p50, ms", "p99"];
  table([...head, "steps without a graph", ...latencies], rows);
}

function printFirstMinute(rows: readonly FirstMinuteRow[]): void {
  if (rows.length === 0) return;
  console.log("\nAll modes on the same first requests after ready");
  const cells = rows.map((row) => [
    row.mode,
    `${row.runs} (${row.requests} requests)`,
    text(row.ttftP50Ms),
    text(row.ttftRatio),
    text(row.ttftP99Ms),
    text(row.tpotP50Ms),
    text(row.tpotRatio),
  ]);
  const head = ["mode", "runs", "TTFT p50, ms", "ratio", "TTFT p99, ms"];
  table([...head, "time per output token p50, ms", "ratio"], cells);
}

function printFillCost(costs: readonly FillCost[]): void {
  if (costs.length === 0) return;
  console.log("\nRequests that were due during the fill, against the baseline's mean of the same");
  const rows = costs.map((cost) => [
    cost.load,
    String(cost.runs),
    String(cost.requests),
    String(cost.delayed),
    text(cost.extraMs),
    text(cost.delayedExtraMs),
    numberText(cost.longestExtraMs) ?? "–",
    String(cost.overCaptureMs.filter((ms) => ms > 0).length),
    numberText(cost.overCaptureMs[0]) ?? "–",
  ]);
  const head = ["load", "runs", "requests", "delayed by a capture", "TTFT, ms more (mean)"];
  const over = ["more than its capture", "by at most, ms"];
  table([...head, "of the delayed", "longest", ...over], rows);
}

function printHolds(holds: CaptureHolds | undefined): void {
  if (holds === undefined) return;
  const { captures, holdMs, besidesMs, besidesOver10 } = holds;
  const spread = ({ p50, p99, max }: CaptureHolds["holdMs"]): string[] =>
    [p50, p99, max].map((ms) => numberText(ms) ?? "–");
  console.log(`\n${captures} captures between steps, all modes and loads, ms`);
  table(
    ["", "p50", "p99", "longest"],
    [
      ["held the engine up", ...spread(holdMs)],
      ["of that besides the capture", ...spread(besidesMs)],
    ],
  );
  console.log(`more than 10 ms besides the capture: ${besidesOver10}`);
}

function printStretches(found: readonly Stretch[]): void {
  if (found.length === 0) return;
  console.log("\nMedian TTFT over the baseline's on the same requests, by seconds after ready");
  const modes = [...new Set(found.map(({ mode }) => mode))];
  const parts = STRETCHES.slice(1).map((to, index) => `${STRETCHES[index]} to ${to}`);
  const rows = modes.map((mode) => [
    mode,
    ...found.filter((one) => one.mode === mode).map(({ ratio }) => text(ratio)),
  ]);
  table(["mode", ...parts], rows);
}

const complete: CellRun[] = [];
const left: string[] = [];
for (const head of await readHeads(folder)) {
  const run = await readRun(folder, head);
  if (run.status === "complete") complete.push(run);
  else left.push(`${head.cell.mode}, ${head.cell.load}, run ${head.cell.run}: ${run.reason ?? ""}`);
}
const simulated = [...new Set(complete.flatMap((run) => run.simulated ?? []))];
const found = verdicts({
  runs: complete,
  mode: values.mode,
  baseline: values.baseline,
  loads: AROUND_FILL,
  spawnLoad: FROM_SPAWN,
});
const holds = captureHolds(complete);
const points = tradeOff(complete, BUSY);
const rows = firstMinute(complete, SAME_SCHEDULE, values.baseline);
const costs = AROUND_FILL.flatMap(
  (load) => fillCost(complete, load, values.mode, values.baseline) ?? [],
);
const parts = stretches(complete, SAME_SCHEDULE, values.baseline, STRETCHES);
const note = simulatedNote(complete.map(({ cell, simulated }) => ({ mode: cell.mode, simulated })));
if (note !== undefined) console.log(note);
for (const run of left) console.log(`PARTIAL, left out: ${run}`);
printVerdicts(found);
printFillCost(costs);
printHolds(holds);
printTradeOff(points);
printFirstMinute(rows);
printStretches(parts);
if (values.json !== undefined) {
  const document = {
    what: "ttft",
    simulated: simulated.length > 0,
    profiles: simulated,
    mode: values.mode,
    baseline: values.baseline,
    hosts: hostsOf(complete),
    partialLeftOut: left,
    verdicts: found,
    fillCost: costs,
    captureHolds: holds,
    tradeOff: points,
    firstMinute: rows,
    stretches: parts,
  };
  writeResult(pathToFileURL(values.json), document);
}
if (found.some(({ verdict }) => verdict === "fails" || verdict === "no data")) {
  process.exitCode = 1;
}

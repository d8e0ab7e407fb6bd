/**
 * How far the simulator agrees with a real engine: the requests of each run of a benchmark folder,
 * warm-up included, go through `simulate` at the very same times from ready on.
 *
 *   node --import tsx bench/agreement.ts FOLDER [--profile NAME] [--json FILE]
 *
 * A mode's policy in the simulator is its `mode` (`lazy`, `idle`, `eager`; `…-costed` where its
 * controller has that policy), `stock` without one, `none` where its command sets
 * cudagraph_mode=NONE. Hypothesis: medians of TTFT and of time per output token agree within 10%,
 * p99 within 20%. Refuted if the printed ratios of a load say otherwise.
 *
 * TTFT of the real engine counts from when a request was sent, through HTTP and the API server,
 * which the simulator has none of: on a small model that is a visible part of it.
 */

import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import type { CellRun, RequestRecord } from "../src/bench/samples.ts";
import { quantile } from "../src/bench/stats.ts";
import { readHeads, readRun } from "../src/bench/store.ts";
import { sentTtftMs } from "../src/bench/vllm-result.ts";
import { completedOf, outputTokensOf, readySecondsOf, tpotMs } from "../src/bench/windows.ts";
import { DEFAULT_PROFILE, loadProfile } from "../src/profile/load.ts";
import type { Profile } from "../src/profile/profile.ts";
import type { RequestSample } from "../src/sim/batcher.ts";
import { createSetup, type PolicyName } from "../src/sim/setups.ts";
import { simulate } from "../src/sim/virtual.ts";
import type { TraceRequest } from "../src/trace.ts";

interface Figures {
  readonly ttftP50Ms: number;
  readonly ttftP99Ms: number;
  readonly tpotP50Ms: number;
  readonly tpotP99Ms: number;
}

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
}

const NAMES = ["ttftP50Ms", "ttftP99Ms", "tpotP50Ms", "tpotP99Ms"] as const;

function policyOf({ mode: spec }: CellRun): PolicyName {
  const text = JSON.stringify([spec.command, spec.env]);
  if (spec.simulated?.sizes?.length === 0 || /cudagraph_mode\W+NONE/i.test(text)) return "none";
  if (spec.mode === undefined) return "stock";
  const costed = spec.controller?.["policy"] === "costed" && spec.mode !== "eager";
  return costed ? (`${spec.mode}-costed` as PolicyName) : spec.mode;
}

/** Those that an engine really served: with the lengths it counted. */
function requestOf(request: RequestRecord, readySeconds: number): TraceRequest {
  return {
    atSeconds: request.sentSeconds - readySeconds,
    promptTokens: request.promptTokens ?? request.promptTokensWanted,
    outputTokens: outputTokensOf(request),
  };
}

async function agreementOf(run: CellRun, profile: Profile): Promise<Agreement> {
  const policy = policyOf(run);
  const ready = readySecondsOf(run);
  const served = run.requests
    .filter(({ firstSeconds }) => firstSeconds !== undefined)
    .map((request) => requestOf(request, ready))
    .sort((a, b) => a.atSeconds - b.atSeconds);
  const completed = completedOf(run);
  const first = Math.min(...completed.map(({ sentSeconds }) => sentSeconds)) - ready;
  const [probe = { atSeconds: 0, promptTokens: 1, outputTokens: 1 }] = served;
  // Ready doesn't depend on traffic: it is learned by a run of one request, then times are shifted.
  const { readySeconds } = await simulate({
    profile,
    ...createSetup(policy, profile),
    requests: [{ ...probe, atSeconds: 0 }],
  });
  const samples: RequestSample[] = [];
  await simulate({
    profile,
    ...createSetup(policy, profile),
    requests: served.map((request) => {
      return { ...request, atSeconds: Math.max(0, request.atSeconds) + readySeconds };
    }),
    onRequest: (sample) => samples.push(sample),
  });
  const from = readySeconds + first - 1e-6;
  const counted = samples.filter(({ arrivalSeconds }) => arrivalSeconds >= from);
  return {
    load: run.cell.load,
    mode: run.cell.mode,
    run: run.cell.run,
    policy,
    requests: completed.length,
    measuredSimulated: run.simulated !== undefined,
    measured: figuresOf(
      completed.flatMap((request) => sentTtftMs(request) ?? []),
      completed.flatMap((request) => tpotMs(request) ?? []),
    ),
    simulated: figuresOf(
      counted.map((s) => (s.firstTokenSeconds - s.arrivalSeconds) * 1000),
      counted
        .filter(({ outputTokens }) => outputTokens > 1)
        .map((s) => ((s.completionSeconds - s.firstTokenSeconds) * 1000) / (s.outputTokens - 1)),
    ),
  };
}

function figuresOf(ttft: readonly number[], tpot: readonly number[]): Figures {
  const of = (values: readonly number[], share: number): number =>
    values.length === 0 ? Number.NaN : quantile(values, share);
  return {
    ttftP50Ms: of(ttft, 0.5),
    ttftP99Ms: of(ttft, 0.99),
    tpotP50Ms: of(tpot, 0.5),
    tpotP99Ms: of(tpot, 0.99),
  };
}

function print(agreements: readonly Agreement[], profile: Profile): void {
  const titles = ["TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99"];
  const table = new Table({
    head: ["load", "mode", "run", "policy", "requests", ...titles],
    style: { head: [], border: [], compact: true },
  });
  for (const { load, mode, run, policy, requests, measured, simulated } of agreements) {
    const cells = NAMES.map((name) => {
      const ratio = simulated[name] / measured[name];
      return `${measured[name].toFixed(2)} → ${simulated[name].toFixed(2)} (${ratio.toFixed(2)})`;
    });
    table.push([load, mode, String(run), policy, String(requests), ...cells]);
  }
  console.log(table.toString());
  console.log("Milliseconds: measured → simulated (simulated over measured).");
  console.log(`Simulated by profile ${profile.name}: ${profile.title}.`);
  if (agreements.some(({ measuredSimulated }) => measuredSimulated)) {
    console.log("SIMULATED on both sides: the left one is a simulated engine in real time.");
  }
}

const { values, positionals } = parseArgs({
  options: { profile: { type: "string" }, json: { type: "string" } },
  allowPositionals: true,
});
const [folder] = positionals;
if (folder === undefined || positionals.length > 1) {
  console.error("usage: bench/agreement.ts FOLDER [--profile NAME] [--json FILE]");
  process.exit(2);
}
const profile = loadProfile(values.profile ?? DEFAULT_PROFILE);
const agreements: Agreement[] = [];
for (const head of await readHeads(folder)) {
  const run = await readRun(folder, head);
  if (completedOf(run).length > 0) agreements.push(await agreementOf(run, profile));
}
print(agreements, profile);
if (values.json !== undefined) {
  const document = { what: "agreement", profile: profile.name, agreements };
  await writeFile(values.json, `${JSON.stringify(document, undefined, 1)}\n`);
}

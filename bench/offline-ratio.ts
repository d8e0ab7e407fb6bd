/**
 * `npm run bench:offline`: what lazy-costed pays against an offline optimum, with moving prices and
 * graphs that stand in for each other, which the bound of ski rental doesn't cover.
 * Instances are small (3 to 5 graphs, 20 to 60 steps) and seeded. Prints the distribution of the
 * ratio and writes it to bench/results/offline-ratio.json.
 */

import { writeFile } from "node:fs/promises";
import type { Graph } from "../src/base/graph.ts";
import { createRandom, type Random } from "../src/base/random.ts";
import { sortedQuantile } from "../src/measure/statistics.ts";
import { costSeedOf } from "../src/profile/cost-seed.ts";
import { loadProfile } from "../src/profile/load.ts";
import type { CostSeed } from "../src/schedule/costed/cost.ts";
import { createCostPolicy } from "../src/schedule/costed/costed.ts";
import type { Decision } from "../src/schedule/policy.ts";
import { createEngineState, type WritableState } from "../src/schedule/state.ts";
import { type OfflineStep, offlineOptimum } from "./lib/offline-optimum.ts";

const RESULTS = new URL("./results/offline-ratio.json", import.meta.url);
const INSTANCES = 2000;
const SIZES = [1, 4, 8, 16, 32, 64, 104, 160, 256];

type Walk = (random: Random, steps: number) => number[];
/** Requests of each step. */
const WALKS: Readonly<Record<string, Walk>> = {
  steady: (random, steps) => Array<number>(steps).fill(between(random, 1, 64)),
  rising: (random, steps) => {
    const last = between(random, 8, 256);
    return Array.from({ length: steps }, (_, step) => Math.ceil((last * (step + 1)) / steps));
  },
  walk: (random, steps) => {
    let requests = between(random, 1, 64);
    return Array.from({ length: steps }, () => {
      requests = Math.max(1, Math.min(256, Math.round(requests * 2 ** (random() - 0.5))));
      return requests;
    });
  },
  bursts: (random, steps) =>
    Array.from({ length: steps }, () =>
      random() < 0.2 ? between(random, 64, 256) : between(random, 1, 8),
    ),
};

function between(random: Random, from: number, to: number): number {
  return from + Math.floor(random() * (to - from + 1));
}

interface Instance {
  readonly planned: readonly Graph[];
  readonly requests: readonly number[];
  readonly seed: CostSeed;
}

/** Graphs of one kind, captures a tenth of the profile's to three times as long. */
function instanceOf(random: Random, walk: Walk, profile: CostSeed): Instance {
  const sizes = new Set<number>();
  const count = between(random, 3, 5);
  while (sizes.size < count) sizes.add(SIZES[between(random, 0, SIZES.length - 1)] ?? 1);
  const planned = [...sizes]
    .sort((a, b) => b - a)
    .map(
      (tokens): Graph => ({
        id: `FULL:${tokens}`,
        kind: "FULL",
        tokens,
        requests: tokens,
        uniform: 1,
      }),
    );
  const scale = 0.1 * 30 ** random();
  const captures = new Map(
    planned.map(({ id }) => [id, { seconds: 0.022 * scale, bytes: 2 ** 21 }]),
  );
  return {
    planned,
    requests: walk(random, between(random, 20, 60)),
    seed: { ...profile, captures },
  };
}

/** Seconds of a step in each graph, in the plan's order. */
function stepOf({ planned, seed }: Instance, requests: number): OfflineStep {
  const at = (rows: CostSeed["full"], tokens: number): number => {
    const up = rows.findIndex(([size]) => size >= tokens);
    const [upTokens, upSeconds] = rows[up] ?? [tokens, 0];
    const [downTokens, downSeconds] = rows[up - 1] ?? [upTokens, upSeconds];
    const share = upTokens === downTokens ? 0 : (tokens - downTokens) / (upTokens - downTokens);
    return downSeconds + share * (upSeconds - downSeconds);
  };
  return {
    requests,
    without: at(seed.ungraphed, requests),
    withGraph: planned.map(({ tokens }) =>
      tokens >= requests ? at(seed.full, tokens) : Number.POSITIVE_INFINITY,
    ),
  };
}

/** What the policy pays: its steps' regrets and its captures' prices, none before ready. */
function paidOnline(instance: Instance, steps: readonly OfflineStep[]): number {
  const { planned, seed } = instance;
  const state = createEngineState(planned);
  const policy = createCostPolicy({
    mode: "lazy",
    costs: seed,
    stallBudget: { burstSeconds: 1e6 },
  });
  policy.decide(state, { type: "inventory", atSeconds: 0 });
  state.ready = true;
  let paid = 0;
  let atSeconds = 0;
  const carryOut = (decisions: readonly Decision[], requests: number): void => {
    for (const decision of decisions) {
      if (decision.type !== "capture") continue;
      const stall = seed.captures.get(decision.graph.id)?.seconds ?? 0;
      paid += stall * requests;
      atSeconds += stall;
      capture(state, decision.graph.id, stall);
      const event = { type: "captured", graph: decision.graph.id, atSeconds } as const;
      carryOut(policy.decide(state, event), requests);
    }
  };
  for (const step of steps) {
    const { requests } = step;
    const served = planned
      .map(({ id }, index) => ({ id, seconds: step.withGraph[index] ?? Number.POSITIVE_INFINITY }))
      .filter(({ id }) => state.graphs.get(id)?.status === "captured")
      .reduce((a, b) => (b.seconds < a.seconds ? b : a), { id: "", seconds: step.without });
    paid += requests * (served.seconds - Math.min(step.without, ...step.withGraph));
    atSeconds += served.seconds;
    state.running = requests;
    const seen = { tokens: requests, requests, uniform: 1, count: 1, timed: 1, contextTokens: 0 };
    const seconds = served.seconds + requests * seed.secondsPerRequest;
    const steps = [{ ...seen, served: served.id, seconds }];
    carryOut(policy.decide(state, { type: "demand", atSeconds, steps }), requests);
  }
  return paid;
}

function capture(state: WritableState, id: string, stallSeconds: number): void {
  const entry = state.graphs.get(id);
  if (entry === undefined) return;
  entry.status = "captured";
  entry.captureMs = stallSeconds * 1000;
  entry.bytes = 2 ** 21;
}

const profile = costSeedOf(loadProfile());
console.log("SIMULATED. What lazy-costed pays over an offline optimum, by traffic.\n");
console.log(
  "| traffic | instances | mean | p50 | p95 | max | of the sums |\n|---|--:|--:|--:|--:|--:|--:|",
);
const results: object[] = [];
for (const [name, walk] of Object.entries(WALKS)) {
  const random = createRandom(20261121);
  const ratios: number[] = [];
  let online = 0;
  let offline = 0;
  for (let index = 0; index < INSTANCES; index++) {
    const instance = instanceOf(random, walk, profile);
    const steps = instance.requests.map((requests) => stepOf(instance, requests));
    const stalls = instance.planned.map(({ id }) => stallOf(instance, id));
    const optimum = offlineOptimum(steps, stalls);
    const paid = paidOnline(instance, steps);
    // Nothing to gain or pay: no ratio.
    if (optimum < 1e-9 && paid < 1e-9) continue;
    online += paid;
    offline += optimum;
    ratios.push(paid / Math.max(1e-9, optimum));
  }
  const sorted = Float64Array.from(ratios).sort();
  const mean = ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length;
  const [p50, p95, max] = [0.5, 0.95, 1].map((share) => sortedQuantile(sorted, share));
  const ofSums = online / offline;
  results.push({ traffic: name, instances: ratios.length, mean, p50, p95, max, ofSums });
  const cells = [mean, p50, p95, max, ofSums].map((value) => (value ?? 0).toFixed(2));
  console.log(`| ${name} | ${ratios.length} | ${cells.join(" | ")} |`);
}
const document = { simulated: true, policy: "lazy-costed", node: process.version, results };
await writeFile(RESULTS, `${JSON.stringify(document, null, 1)}\n`);

function stallOf({ seed }: Instance, id: string): number {
  return seed.captures.get(id)?.seconds ?? 0;
}

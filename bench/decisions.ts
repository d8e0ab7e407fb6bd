/**
 * `npm run bench:decisions`: what one decision of the costed policy takes, and how that grows to
 * 10,000 graphs. Prints a table and writes it to bench/results/decisions.json. Hypothesis: at most
 * 50 µs at p99 with 102 graphs, and 10 ms with 10,000.
 *
 * Each sequence of events is run three times, and of each decision the fastest counts: what other
 * processes (and this one's garbage collector) take away in between is not the decision's.
 */

import { writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import type { Graph } from "../src/base/graph.ts";
import { createRandom } from "../src/base/random.ts";
import { sortedQuantile } from "../src/measure/statistics.ts";
import { costSeedOf } from "../src/profile/cost-seed.ts";
import { loadProfile } from "../src/profile/load.ts";
import { createCostPolicy } from "../src/schedule/costed/costed.ts";
import { createEngineState } from "../src/schedule/state.ts";

const seed = costSeedOf(loadProfile());
const RESULTS = new URL("./results/decisions.json", import.meta.url);
const RUNS = 3;
/** Graphs and events; a plan of vLLM 0.26 has 102. */
const CASES = [
  [102, 20_000],
  [300, 20_000],
  [1000, 10_000],
  [3000, 4000],
  [10_000, 2000],
] as const;

/** FULL and PIECEWISE graphs at `count / 2` sizes, evenly spaced. */
function planOf(count: number): Graph[] {
  return Array.from({ length: count / 2 }, (_, index) => 8 * (index + 1)).flatMap((tokens) => [
    { id: `FULL:${tokens}`, kind: "FULL" as const, tokens, requests: tokens, uniform: 1 },
    { id: `PIECEWISE:${tokens}`, kind: "PIECEWISE" as const, tokens },
  ]);
}

/** Microseconds of each decision on demand; captures are answered at once, which isn't counted. */
function decisions(count: number, events: number): Float64Array {
  const planned = planOf(count);
  const state = createEngineState(planned);
  const policy = createCostPolicy({ mode: "idle", costs: seed });
  const random = createRandom(1);
  const micros = new Float64Array(events);
  policy.decide(state, { type: "inventory", atSeconds: 0 });
  state.ready = true;
  for (let event = 0; event < events; event++) {
    const atSeconds = event / 10;
    const tokens = 1 + Math.floor(random() ** 2 * 4 * count);
    const step = { tokens, requests: tokens, uniform: 1, served: "", count: 10, timed: 10 };
    const steps = [{ ...step, seconds: 0.1, contextTokens: 500 }];
    state.running = tokens;
    const started = performance.now();
    const [capture] = policy
      .decide(state, { type: "demand", atSeconds, steps })
      .flatMap((decision) => (decision.type === "capture" ? decision.graph : []));
    micros[event] = (performance.now() - started) * 1000;
    const entry = state.graphs.get(capture?.id ?? "");
    if (entry === undefined) continue;
    entry.status = "captured";
    entry.captureMs = 25;
    entry.bytes = 1 << 21;
    policy.decide(state, { type: "captured", graph: entry.graph.id, atSeconds });
  }
  return micros;
}

console.log("| graphs | p50 µs | p99 µs | max µs |\n|--:|--:|--:|--:|");
const results: object[] = [];
for (const [graphs, events] of CASES) {
  const runs = Array.from({ length: RUNS }, () => decisions(graphs, events));
  const fastest = Float64Array.from({ length: events }, (_, event) =>
    Math.min(...runs.map((micros) => micros[event] ?? Number.POSITIVE_INFINITY)),
  );
  // The first ones run before the compiler has had its turn.
  const micros = fastest.slice(events / 10).sort();
  const [p50 = 0, p99 = 0, max = 0] = [0.5, 0.99, 1].map((share) => sortedQuantile(micros, share));
  results.push({ graphs, events, p50Micros: p50, p99Micros: p99, maxMicros: max });
  console.log(`| ${graphs} | ${p50.toFixed(1)} | ${p99.toFixed(1)} | ${max.toFixed(0)} |`);
}
const [cpu] = cpus();
const document = {
  policy: "idle-costed",
  runs: RUNS,
  node: process.version,
  cpu: cpu?.model,
  results,
};
await writeFile(RESULTS, `${JSON.stringify(document, null, 1)}\n`);

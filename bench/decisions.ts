/**
 * `npm run bench:decisions`: what one decision of the costed policy takes, and how that grows with
 * the number of graphs. Hypothesis: at most 50 µs at p99 with 102 graphs.
 */

import type { Graph } from "../src/graph.ts";
import { createCostPolicy } from "../src/schedule/costed.ts";
import { createEngineState } from "../src/schedule/state.ts";
import { costSeedOf } from "../src/sim/cost-seed.ts";
import { quantile } from "../src/sim/figures.ts";
import { loadProfile } from "../src/sim/profile.ts";
import { createRandom } from "../src/sim/random.ts";

const seed = costSeedOf(loadProfile());
/** Graphs and events; a plan of vLLM 0.26 has 102. */
const CASES = [
  [102, 20_000],
  [300, 3000],
  [1000, 500],
] as const;

/** FULL and PIECEWISE graphs at `count / 2` sizes, evenly spaced. */
function planOf(count: number): Graph[] {
  return Array.from({ length: count / 2 }, (_, index) => 8 * (index + 1)).flatMap((tokens) => [
    { id: `FULL:${tokens}`, kind: "FULL" as const, tokens, requests: tokens, uniform: 1 },
    { id: `PIECEWISE:${tokens}`, kind: "PIECEWISE" as const, tokens },
  ]);
}

/** Microseconds of each decision on demand, captures answered at once. */
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
    const tokens = 1 + Math.floor(random() ** 2 * 256);
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
  // The first ones run before the compiler has had its turn.
  return micros.slice(events / 10).sort();
}

console.log("| graphs | p50 µs | p99 µs | max µs |\n|--:|--:|--:|--:|");
for (const [count, events] of CASES) {
  const micros = decisions(count, events);
  const cells = [0.5, 0.99, 1].map((share) => quantile(micros, share).toFixed(1));
  console.log(`| ${count} | ${cells.join(" | ")} |`);
}

/**
 * The example gateway's capture-aware routing against round robin, where it should matter: two
 * SIMULATED engines in virtual time that begin to fill as the requests come. Arrivals are Poisson,
 * answers exponential in length; both routings get the same ones. No host noise is in the figures,
 * and no network: the gateway knows of a capture the moment it is decided.
 *
 *   npm run bench:gateway-routing
 *
 * Prints the table and writes bench/results/gateway-routing-simulated.json.gz.
 */

import { type Choose, choose, GraphSizes } from "../examples/gateway/src/routing.ts";
import { createRandom } from "../src/base/random.ts";
import { compare, type Estimate, estimate } from "../src/bench/bootstrap.ts";
import type { GraphSnapshot } from "../src/engine/snapshot.ts";
import { DEFAULT_PROFILE, loadProfile } from "../src/profile/load.ts";
import { createIdlePolicy } from "../src/schedule/modes/idle.ts";
import { Drive, listArrivals } from "../src/sim/model/drive.ts";
import { EngineModel } from "../src/sim/model/engine.ts";
import { VirtualController } from "../src/sim/virtual/virtual-controller.ts";
import { writeResult } from "./lib/result-file.ts";

const RATES = [2, 5, 10, 20, 40];
const RUNS = 20;
/** From both engines' ready on. */
const SECONDS = 30;
const PROMPT_TOKENS_MEAN = 200;
const OUTPUT_TOKENS_MEAN = 100;

const ROUTINGS: Readonly<Record<string, Choose>> = {
  "round robin": (candidates, turn) => candidates[turn % candidates.length],
  aware: choose,
};

interface Request {
  readonly atSeconds: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
}

interface Run {
  readonly ttftMs: number[];
  /** Of each engine, at the end. */
  readonly graphsCaptured: number[];
}

const profile = loadProfile(DEFAULT_PROFILE);

class Engine {
  readonly model: EngineModel;
  readonly drive: Drive;
  readonly run: VirtualController;

  constructor(ttftMs: number[], seed: number) {
    this.model = new EngineModel({
      profile,
      seed,
      observer: {
        onLoaded: (at) => this.run.loaded(at),
        onReady: (at) => this.run.ready(at),
        onStep: (step, at) => this.run.stepped(step, at),
        onCaptureResult: (result, at) => this.run.answered(result, at),
        onDropResult: (result, at) => this.run.dropped(result, at),
        onEdge: (state, at) => this.run.edge(state, at),
        onRequest: ({ firstTokenSeconds, arrivalSeconds }) => {
          ttftMs.push((firstTokenSeconds - arrivalSeconds) * 1000);
        },
      },
    });
    this.drive = new Drive(this.model, listArrivals([]));
    this.run = new VirtualController({
      model: this.model,
      policy: () => createIdlePolicy(),
    });
  }

  get nextSeconds(): number {
    return this.run.nextSeconds(this.drive.nextSeconds);
  }

  advance(now: number): void {
    this.drive.advance(now);
    if (this.run.advance(now)) this.drive.poke(now);
  }

  /** What the gateway goes by. */
  candidate() {
    const { state } = this.run.record;
    const graphs = [...(state?.graphs.values() ?? [])].map(({ graph, status }) => ({
      ...graph,
      status,
    }));
    const inFlight = this.model.running + this.model.waiting;
    return {
      engine: this,
      inFlight,
      capturing: state?.capturing !== undefined,
      hasNextGraph: new GraphSizes(graphs as unknown as GraphSnapshot[]).has(inFlight + 1),
    };
  }
}

function requestsOf(rate: number, seed: number): Request[] {
  const random = createRandom(seed);
  const exponential = (mean: number): number => -Math.log(1 - random()) * mean;
  const requests: Request[] = [];
  for (let at = exponential(1 / rate); at < SECONDS; at += exponential(1 / rate)) {
    requests.push({
      atSeconds: at,
      promptTokens: 1 + Math.floor(exponential(PROMPT_TOKENS_MEAN)),
      outputTokens: 1 + Math.floor(exponential(OUTPUT_TOKENS_MEAN)),
    });
  }
  return requests;
}

function simulate(route: Choose, requests: readonly Request[], seed: number): Run {
  const ttftMs: number[] = [];
  const engines = [new Engine(ttftMs, seed), new Engine(ttftMs, seed + 1)];
  const next = (): number => Math.min(...engines.map(({ nextSeconds }) => nextSeconds));
  const advance = (now: number): void => {
    for (const engine of engines) engine.advance(now);
  };
  while (engines.some(({ run }) => Number.isNaN(run.readySeconds))) advance(next());
  const readySeconds = Math.max(...engines.map(({ run }) => run.readySeconds));
  requests.forEach(({ atSeconds, promptTokens, outputTokens }, turn) => {
    const at = readySeconds + atSeconds;
    for (let now = next(); now < at; now = next()) advance(now);
    advance(at);
    const chosen = route(
      engines.map((engine) => engine.candidate()),
      turn,
    )?.engine;
    chosen?.model.arrive(at, promptTokens, outputTokens);
    chosen?.drive.poke(at);
  });
  while (ttftMs.length < requests.length) advance(next());
  return { ttftMs, graphsCaptured: engines.map(({ model }) => model.captured.size) };
}

function shown({ value, low, high }: Estimate, digits = 1): string {
  return `${value.toFixed(digits)} (${low.toFixed(digits)}–${high.toFixed(digits)})`;
}

const rows: object[] = [];
console.log(
  "| requests/s (SIMULATED) | routing | TTFT p50, ms | p99, ms | max, ms | graphs at the end |",
);
console.log("|--:|---|--:|--:|--:|--:|");
for (const rate of RATES) {
  const runs = Object.fromEntries(
    Object.entries(ROUTINGS).map(([name, route]) => [
      name,
      Array.from({ length: RUNS }, (_, index) =>
        simulate(route, requestsOf(rate, index + 1), 2 * index + 1),
      ),
    ]),
  );
  const ttftOf = (name: string): number[][] => (runs[name] ?? []).map(({ ttftMs }) => ttftMs);
  const figures: Record<string, object> = {};
  for (const [name, its] of Object.entries(runs)) {
    const ttft = estimate(ttftOf(name));
    if (ttft === undefined) continue;
    const maxMs = Math.max(...ttftOf(name).flat());
    const graphs = its.flatMap(({ graphsCaptured }) => graphsCaptured);
    const graphsMean = graphs.reduce((sum, count) => sum + count, 0) / graphs.length;
    figures[name] = { ttft, maxMs, graphsMean };
    const cells = [shown(ttft.p50), shown(ttft.p99), maxMs.toFixed(0), graphsMean.toFixed(0)];
    console.log(`| ${rate} | ${name} | ${cells.join(" | ")} |`);
  }
  const ratio = compare(ttftOf("aware"), ttftOf("round robin"));
  if (ratio !== undefined) {
    console.log(`| ${rate} | ratio | ${shown(ratio.p50, 2)} | ${shown(ratio.p99, 2)} | | |`);
  }
  rows.push({ requestsPerSecond: rate, figures, ratio });
}
const load = { runs: RUNS, seconds: SECONDS, PROMPT_TOKENS_MEAN, OUTPUT_TOKENS_MEAN };
writeResult(new URL("results/gateway-routing-simulated.json.gz", import.meta.url), {
  simulated: true,
  profile: profile.name,
  policy: "idle",
  load,
  rows,
});

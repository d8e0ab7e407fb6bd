/** What the costed policy knows of one plan: costs, accounts, traffic, and where graphs stand. */

import type { Graph } from "../../base/graph.ts";
import type { EngineEvent, StepsSeen } from "../policy.ts";
import type { EngineState } from "../state.ts";
import { Accounts } from "./accounts.ts";
import { type CostSeed, type Costs, createCosts } from "./cost.ts";
import { stepOf } from "./earlier.ts";
import { EngineLoad } from "./load.ts";
import type { Prior } from "./prior.ts";
import { type LaneWeights, Savings } from "./savings.ts";
import { HELD, Held } from "./shapes.ts";
import { TrafficHistogram } from "./traffic.ts";

/** Request-steps that an octave of sizes is given for nothing, when fill looks ahead. */
const FILL_PRIOR = 4;
/** A forecast is worked out anew when traffic has come, or when it is as old as this. */
const FORECAST_SECONDS_MAX = 10;

/** Steps of earlier starts that count at most: two or three minutes of serving. */
const PRIOR_STEPS_MAX = 20_000;

/** Of the load, too, earlier starts tell little more than what is a cheap moment at first. */
const PRIOR_LOAD_SECONDS = 30;

export interface KnowledgeOptions {
  readonly costs: CostSeed;
  readonly halfLifeSeconds?: number;
  readonly prior?: Prior;
}

export class Knowledge {
  readonly planned: readonly Graph[];
  readonly costs: Costs;
  readonly savings: Savings;
  readonly accounts: Accounts;
  readonly traffic: TrafficHistogram;
  readonly decode: number;
  readonly held: Held;
  readonly load: EngineLoad;
  /** Whether earlier starts needed a graph, by its place in the plan. */
  readonly trusted: Uint8Array;
  readonly prior: Prior;
  #forecast: readonly LaneWeights[] = [];
  #forecastSteps = -1;
  #forecastAtSeconds = 0;

  constructor(planned: readonly Graph[], options: KnowledgeOptions, atSeconds: number) {
    this.planned = planned;
    this.prior = options.prior ?? { traffic: [], first: [] };
    this.costs = createCosts(planned, options.costs);
    this.decode = this.costs.shapes.decode;
    this.savings = new Savings(this.costs);
    this.accounts = new Accounts(this.savings);
    this.traffic = new TrafficHistogram(this.costs.shapes, options.halfLifeSeconds);
    this.held = new Held(planned.length);
    this.load = new EngineLoad(this.costs);
    this.trusted = new Uint8Array(planned.length);
    for (const { id } of this.first) this.trusted[this.costs.shapes.places.get(id) ?? -1] = 1;
    this.#expect(atSeconds);
  }

  /** Looks where the graphs stand: at the one an event names, at all when anything may have come. */
  look(state: EngineState, event: EngineEvent): void {
    // Neither changes where a graph stands, and they come often.
    if (event.type === "demand" || event.type === "busy") return;
    if ("graph" in event) this.#lookAt(state, event.graph);
    else for (const { id } of this.planned) this.#lookAt(state, id);
  }

  #lookAt(state: EngineState, id: string): void {
    const place = this.costs.shapes.places.get(id);
    if (place === undefined) return;
    const status = state.graphs.get(id)?.status;
    if (status === "captured") this.held.set(place, HELD.captured);
    else this.held.set(place, status === "planned" ? HELD.missing : HELD.never);
  }

  learn({ running, waiting }: EngineState, steps: readonly StepsSeen[], atSeconds: number): void {
    this.load.pass(atSeconds, running + waiting, steps);
    for (const seen of steps) {
      this.costs.observeSteps(seen);
      const requests = seen.requests + waiting;
      this.accounts.book(seen, seen.count, requests);
      this.traffic.add(seen, seen.count, requests, atSeconds);
    }
  }

  /** What earlier starts needed and this plan has, most needed first. */
  get first(): Graph[] {
    const { planned, places } = this.costs.shapes;
    return this.prior.first.flatMap((id) => planned[places.get(id) ?? -1] ?? []);
  }

  /** Traffic starts where earlier ones left it, but not with more than soon fades. */
  #expect(atSeconds: number): void {
    const { traffic } = this.prior;
    const known = traffic.reduce((sum, { steps }) => sum + steps, 0);
    const share = Math.min(1, PRIOR_STEPS_MAX / Math.max(1, known));
    for (const row of traffic) {
      const requests = row.steps > 0 ? row.requestSteps / row.steps : 0;
      this.traffic.add(stepOf(row), row.steps * share, requests, atSeconds);
      if (known > 0) this.load.expect((PRIOR_LOAD_SECONDS * row.steps) / known, requests);
    }
  }

  /** Decode steps to come, where nothing is known yet: a few of every size. */
  decodeForecast(atSeconds: number): LaneWeights[] {
    const lanes = this.traffic.forecast(atSeconds, this.decode, FILL_PRIOR);
    return lanes.filter(({ lane }) => lane.uniform === this.decode);
  }

  /** What fill expects; the same while nothing new is known. */
  fillForecast(atSeconds: number): readonly LaneWeights[] {
    const { steps } = this.traffic;
    const age = atSeconds - this.#forecastAtSeconds;
    if (this.#forecastSteps !== steps || age > FORECAST_SECONDS_MAX) {
      this.#forecast = this.traffic.forecast(atSeconds, this.decode, FILL_PRIOR);
      this.#forecastSteps = steps;
      this.#forecastAtSeconds = atSeconds;
    }
    return this.#forecast;
  }
}

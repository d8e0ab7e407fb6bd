/** What the costed policy knows of one plan: costs, accounts, traffic, and where graphs stand. */

import type { Graph } from "../../base/graph.ts";
import type { EngineEvent, StepsSeen } from "../policy.ts";
import type { EngineState } from "../state.ts";
import { Accounts } from "./accounts.ts";
import type { CostSeed, Costs } from "./cost.ts";
import type { Demand } from "./demand.ts";
import { EngineLoad } from "./load.ts";
import { StepObserver } from "./observer.ts";
import type { Prior } from "./prior.ts";
import { type LaneWeights, Savings } from "./savings.ts";
import { HELD, Held } from "./shapes.ts";

/** Request-steps that an octave of sizes is given for nothing, when fill looks ahead. */
const FILL_PRIOR = 4;
/** A forecast is worked out anew when traffic has come, or when it is as old as this. */
const FORECAST_SECONDS_MAX = 10;

/** Of the load, too, earlier starts tell little more than what is a cheap moment at first. */
const PRIOR_LOAD_SECONDS = 30;

export interface KnowledgeOptions {
  readonly costs: CostSeed;
  readonly halfLifeSeconds?: number;
  readonly prior?: Prior;
  /** What observes the engine already. @default an observer of its own, told by `learn` */
  readonly observer?: StepObserver;
}

export class Knowledge {
  readonly planned: readonly Graph[];
  readonly costs: Costs;
  readonly savings: Savings;
  readonly accounts: Accounts;
  readonly traffic: Demand;
  readonly decode: number;
  readonly held: Held;
  readonly load: EngineLoad;
  /** Whether earlier starts needed a graph, by its place in the plan. */
  readonly trusted: Uint8Array;
  readonly prior: Prior;
  readonly #observer: StepObserver;
  readonly #observes: boolean;
  #forecast: readonly LaneWeights[] = [];
  #forecastSteps = -1;
  #forecastAtSeconds = 0;

  constructor(planned: readonly Graph[], options: KnowledgeOptions, atSeconds: number) {
    this.planned = planned;
    this.prior = options.prior ?? { traffic: [], first: [] };
    const { observer, costs, halfLifeSeconds } = options;
    // One of another plan tells of other graphs.
    this.#observes = observer?.planned !== planned;
    this.#observer =
      observer !== undefined && !this.#observes
        ? observer
        : new StepObserver(planned, costs, halfLifeSeconds);
    this.costs = this.#observer.costs;
    this.decode = this.costs.shapes.decode;
    this.savings = new Savings(this.costs);
    this.traffic = this.#observer.demand;
    this.accounts = new Accounts(this.savings, this.traffic);
    this.held = new Held(planned.length);
    this.load = new EngineLoad();
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
    if (this.#observes) this.#observer.observe(steps, waiting, atSeconds);
    this.load.pass(atSeconds, running + waiting, this.#observer.latestWorkSeconds);
    this.accounts.ran(steps, waiting);
  }

  /** What earlier starts needed and this plan has, most needed first. */
  get first(): Graph[] {
    const { planned, places } = this.costs.shapes;
    return this.prior.first.flatMap((id) => planned[places.get(id) ?? -1] ?? []);
  }

  /** Traffic and load start where earlier ones left them. */
  #expect(atSeconds: number): void {
    this.#observer.expect(this.prior, atSeconds);
    const { traffic } = this.prior;
    const known = traffic.reduce((sum, { steps }) => sum + steps, 0);
    for (const row of traffic) {
      const requests = row.steps > 0 ? row.requestSteps / row.steps : 0;
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

/**
 * Lazy and idle mode by measured costs: dispatch by cost, captures that have earned their price,
 * and, in idle mode, fill by value per second of stall while the next arrival is not near.
 *
 *   demand ─▶ costs, accounts, traffic          idle, busy ─▶ gaps
 *   captured set or costs changed ─▶ dispatch table
 *   ready, nothing under way ─▶ earned capture, else fill, else wait with a reason
 */

import { type Graph, topGraphs } from "../graph.ts";
import { Accounts } from "./accounts.ts";
import { type CostSeed, type Costs, createCosts } from "./cost.ts";
import { costDispatchTable } from "./cost-dispatch.ts";
import { decodeLength } from "./dispatch.ts";
import { earnedChoice, type Load, priceOf } from "./earned.ts";
import { type FillChoice, fillChoice } from "./fill.ts";
import { Gaps } from "./gaps.ts";
import type { Decision, EngineEvent, Policy, StepsSeen } from "./policy.ts";
import { HELD, type Held } from "./shapes.ts";
import { StallAccount, type StallBudget } from "./stall-budget.ts";
import { capturedGraphs, type EngineState } from "./state.ts";
import { type Traffic, TrafficHistogram } from "./traffic.ts";

export interface CostPolicyOptions {
  readonly mode: "lazy" | "idle";
  /** Where the cost estimates start; the engine's own reports correct them. */
  readonly costs: CostSeed;
  readonly stallBudget?: StallBudget;
  /** Half-life of the traffic histogram, in seconds. @default 300 */
  readonly halfLifeSeconds?: number;
}

export interface CostPolicy extends Policy {
  /** The estimates so far; undefined until the engine has told its plan. */
  readonly costs: Costs | undefined;
  /** Why a graph is where it is, as a sentence. */
  explain(state: EngineState, id: string, atSeconds: number): string;
}

/** Seconds until an engine that deferred a capture is asked again, if nothing else comes first. */
const DEFERRED_RETRY_SECONDS = 1;
/** Decode steps expected of requests that wait at ready: fewer than nearly every answer has. */
const STEPS_AHEAD = 32;
/** With more of them prompts go on for long, and their steps are mixed ones. */
const WAITING_AHEAD_MAX = 48;
/** A graph without any value is captured only where an arrival is this unlikely. */
const REST_ARRIVAL_SHARE = 0.02;
/** Request-steps that an octave of sizes is given for nothing, when fill looks ahead. */
const FILL_PRIOR = 4;
/** A forecast is worked out anew when traffic has come, or when it is as old as this. */
const FORECAST_SECONDS_MAX = 10;
const WAIT_SECONDS_MIN = 0.1;
const WAIT_SECONDS_MAX = 600;

export function createCostPolicy(options: CostPolicyOptions): CostPolicy {
  return new CostedPolicy(options);
}

/** What is known of one plan: it starts over when the engine comes with another one. */
class Knowledge {
  readonly planned: readonly Graph[];
  readonly costs: Costs;
  readonly accounts: Accounts;
  readonly traffic: TrafficHistogram;
  readonly decode: number;
  #forecast: readonly Traffic[] = [];
  #forecastSteps = -1;
  #forecastAtSeconds = 0;

  constructor(planned: readonly Graph[], options: CostPolicyOptions) {
    this.planned = planned;
    this.decode = decodeLength(planned);
    this.costs = createCosts(planned, options.costs);
    this.accounts = new Accounts(this.costs);
    this.traffic = new TrafficHistogram(this.costs.shapes, options.halfLifeSeconds);
  }

  learn(steps: readonly StepsSeen[], waiting: number, atSeconds: number): void {
    for (const seen of steps) {
      this.costs.observeSteps(seen);
      const requests = seen.requests + waiting;
      this.accounts.book(seen, seen.count, requests);
      this.traffic.add(seen, seen.count, requests, atSeconds);
    }
  }

  /** Where each graph of the plan stands. */
  held(state: EngineState): Held {
    const held = new Uint8Array(this.planned.length);
    this.planned.forEach((graph, place) => {
      const status = state.graphs.get(graph.id)?.status;
      held[place] =
        status === "captured" ? HELD.captured : status === "planned" ? HELD.missing : HELD.never;
    });
    return held;
  }

  /** What fill expects; the same while nothing new is known. */
  fillForecast(atSeconds: number): readonly Traffic[] {
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

class CostedPolicy implements CostPolicy {
  readonly name: string;
  readonly #options: CostPolicyOptions;
  readonly #stalls: StallAccount;
  readonly #gaps = new Gaps();
  #known: Knowledge | undefined;
  #tableRevision = -1;
  #tableHeld: Held = new Uint8Array();
  #settled = false;

  constructor(options: CostPolicyOptions) {
    this.name = `${options.mode}-costed`;
    this.#options = options;
    this.#stalls = new StallAccount(options.stallBudget);
  }

  get costs(): Costs | undefined {
    return this.#known?.costs;
  }

  decide(state: EngineState, event: EngineEvent): readonly Decision[] {
    const known = this.#learn(state, event);
    const held = known.held(state);
    const decisions = this.#start(state, event);
    decisions.push(...this.#table(state, event, known, held));
    if (!state.ready || state.capturing !== undefined) return decisions;
    decisions.push(...this.#settle(state, held), ...this.#capture(state, event, known, held));
    return decisions;
  }

  explain(state: EngineState, id: string, atSeconds: number): string {
    const entry = state.graphs.get(id);
    if (entry === undefined) return `${id}: not in the plan`;
    const { graph, status, reason } = entry;
    if (status !== "planned") return `${id}: ${status}${reason === undefined ? "" : `, ${reason}`}`;
    if (state.capturing === id) return `${id}: its capture is under way`;
    if (state.settled || this.#settled) return `${id}: deferred, capturing has ended`;
    if (state.frozen) return `${id}: deferred, captures are frozen`;
    if (!state.ready || this.#known === undefined) return `${id}: deferred until ready`;
    const { accounts, costs, planned } = this.#known;
    const place = planned.findIndex((other) => other.id === id);
    const regret = accounts.balances(this.#known.held(state))[place] ?? 0;
    const price = priceOf(graph, costs, this.#load(state));
    if (regret < price)
      return `${id}: deferred, account ${figure(regret)} < price ${figure(price)}`;
    const objection = this.#stalls.objection(atSeconds, costs.captureSeconds(graph).value);
    return `${id}: deferred, ${objection ?? `another graph has earned more than its ${figure(regret)}`}`;
  }

  #learn(state: EngineState, event: EngineEvent): Knowledge {
    if (this.#known === undefined || !samePlan(this.#known.planned, state.planned)) {
      this.#known = new Knowledge(state.planned, this.#options);
    }
    const known = this.#known;
    if (event.type === "ready") this.#expectWaiting(state, known);
    else if (event.type === "demand")
      known.learn(event.steps ?? [], state.waiting, event.atSeconds);
    else if (event.type === "idle") this.#gaps.idle(event.atSeconds);
    else if (event.type === "busy") this.#gaps.busy(event.atSeconds);
    else if (event.type === "captured") this.#learnCapture(state, event.graph, event.atSeconds);
    return known;
  }

  /**
   * Who waits at ready will decode together as soon as the prompts are done: those steps are
   * booked ahead, so that the graph for them needn't be earned again by slow ones.
   */
  #expectWaiting({ waiting }: EngineState, { accounts, decode }: Knowledge): void {
    if (waiting === 0 || waiting > WAITING_AHEAD_MAX) return;
    const step = { tokens: waiting * decode, requests: waiting, uniform: decode };
    accounts.book(step, STEPS_AHEAD, waiting);
  }

  #learnCapture(state: EngineState, id: string, atSeconds: number): void {
    const entry = state.graphs.get(id);
    if (entry?.captureMs === undefined) return;
    const seconds = entry.captureMs / 1000;
    this.#known?.costs.observeCapture(entry.graph, seconds, entry.bytes ?? 0);
    this.#stalls.spend(atSeconds, seconds);
  }

  #start(state: EngineState, event: EngineEvent): Decision[] {
    if (event.type !== "inventory" || state.ready) return [];
    const graphs = topGraphs(state.planned);
    return [{ type: "start", graphs, reason: "the top graph of each kind" }];
  }

  #table(state: EngineState, event: EngineEvent, { costs }: Knowledge, held: Held): Decision[] {
    // Before ready an engine has its mode's own table; ours would be empty, and might be its last.
    if (!state.ready) return [];
    const same = this.#tableRevision === costs.revision && equal(this.#tableHeld, held);
    // After an inventory the engine may be another process, without any table.
    if (same && event.type !== "inventory") return [];
    this.#tableRevision = costs.revision;
    this.#tableHeld = held;
    const captured = capturedGraphs(state);
    const reason = `by cost over ${captured.length} of ${state.planned.length} graphs`;
    const table = costDispatchTable(state.planned, captured, costs);
    return [{ type: "dispatch", table, reason }];
  }

  #settle(state: EngineState, held: Held): Decision[] {
    if (this.#settled || state.settled) return [];
    let missing = 0;
    for (const place of held) if (place === HELD.missing) missing++;
    if (missing > 0 && !state.frozen) return [];
    this.#settled = true;
    const reason =
      missing === 0
        ? "no graph is left to capture"
        : `captures are frozen, ${missing} graphs stay uncaptured`;
    return [{ type: "settled", reason }];
  }

  #capture(state: EngineState, event: EngineEvent, known: Knowledge, held: Held): Decision[] {
    if (state.frozen || state.settled || this.#settled) return [];
    if (event.type === "deferred") {
      const reason = `${event.graph}: the engine deferred its capture`;
      return [{ type: "wait", seconds: DEFERRED_RETRY_SECONDS, reason }];
    }
    const earned = this.#earned(state, event, known, held);
    if (earned !== undefined) return earned;
    return this.#options.mode === "idle" && state.idle ? this.#fill(event, known, held) : [];
  }

  #earned(
    state: EngineState,
    { atSeconds }: EngineEvent,
    { costs, accounts, traffic, decode }: Knowledge,
    held: Held,
  ): Decision[] | undefined {
    const choice = earnedChoice({
      costs,
      accounts,
      held,
      load: this.#load(state),
      expected: () => traffic.forecast(atSeconds, decode, 0),
    });
    if (choice === undefined) return undefined;
    const { graph, regret, price, leader } = choice;
    const stallSeconds = costs.captureSeconds(graph).value;
    const objection = this.#stalls.objection(atSeconds, stallSeconds);
    if (objection !== undefined) {
      return this.#waitFor(graph, objection, this.#stalls.waitSeconds(atSeconds, stallSeconds));
    }
    const reason =
      leader === graph
        ? `${graph.id}: account ${figure(regret)} ≥ price ${figure(price)}`
        : `${graph.id}: serves what ${leader.id} has earned, and more of the traffic to come`;
    return [{ type: "capture", graph, reason, whenIdle: state.idle }];
  }

  #fill({ atSeconds }: EngineEvent, known: Knowledge, held: Held): Decision[] {
    const { costs, traffic } = known;
    const expected = known.fillForecast(atSeconds);
    const choice = fillChoice({ costs, held, expected, steps: traffic.steps });
    if (choice === undefined) return [];
    const { graph, stallSeconds } = choice;
    const share = this.#gaps.arrivalShare(atSeconds, stallSeconds);
    const objection =
      gapObjection(choice, share) ?? this.#stalls.objection(atSeconds, stallSeconds);
    if (objection !== undefined) {
      // The longer a gap lasts, the surer it is: ask again after as long again.
      return this.#waitFor(graph, objection, this.#gaps.lastedSeconds(atSeconds));
    }
    return [{ type: "capture", graph, reason: fillReason(choice, share), whenIdle: true }];
  }

  #waitFor(graph: Graph, objection: string, waitSeconds: number): Decision[] {
    const seconds = Math.min(WAIT_SECONDS_MAX, Math.max(WAIT_SECONDS_MIN, waitSeconds));
    return [{ type: "wait", seconds, reason: `${graph.id}: deferred, ${objection}` }];
  }

  #load(state: EngineState): Load {
    return {
      requests: state.running + state.waiting,
      arrivalsPerSecond: this.#gaps.arrivalsPerSecond(),
    };
  }
}

/** An arrival during a stall waits for half of it on average. */
function gapObjection(
  { value, stallSeconds, rule }: FillChoice,
  share: number,
): string | undefined {
  if (rule === "rest") {
    if (share <= REST_ARRIVAL_SHARE) return undefined;
    return `nothing wants it, and an arrival is ${percent(share)} likely`;
  }
  const delay = (share * stallSeconds) / 2;
  if (value >= delay) return undefined;
  return `its value of ${figure(value)} is below the expected delay of ${figure(delay)}`;
}

function fillReason({ graph, value, rule }: FillChoice, share: number): string {
  const near = `an arrival is ${percent(share)} likely`;
  if (rule === "rest") return `${graph.id}: the largest of the rest; ${near}`;
  const what = rule === "ladder" ? "rung of the sparse ladder" : "most value per second of stall";
  return `${graph.id}: ${what} (${figure(value)} request-seconds); ${near}`;
}

function equal(a: Held, b: Held): boolean {
  return a.length === b.length && a.every((value, place) => value === b[place]);
}

function samePlan(a: readonly Graph[], b: readonly Graph[]): boolean {
  return a === b || (a.length === b.length && a.every((graph, index) => graph.id === b[index]?.id));
}

function figure(value: number): string {
  return value.toPrecision(2);
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}

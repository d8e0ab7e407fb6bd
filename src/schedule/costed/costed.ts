/**
 * Lazy and idle mode by measured costs: dispatch by cost, captures that have earned their price or
 * that a rising load would need, and while idle by value per second of stall: in lazy mode what the
 * traffic so far makes likely, in idle mode all, while the next arrival is not near.
 *
 *   demand ─▶ costs, accounts, traffic, load          idle, busy ─▶ gaps
 *   captured set or costs changed ─▶ dispatch table
 *   ready, nothing under way ─▶ earned capture, else ahead, else likely or fill, else wait with a reason
 */

import type { Graph } from "../../base/graph.ts";
import { Announced } from "../announced.ts";
import { type Decision, type EngineEvent, type Policy, settledWith } from "../policy.ts";
import { StallAccount, type StallBudget } from "../stall-budget.ts";
import { type EngineState, waitingForMemory } from "../state.ts";
import { AHEAD_BUDGET, aheadChoice, isCheapMoment, loadAhead, WAITING_AHEAD_MAX } from "./ahead.ts";
import type { CostSeed, Costs } from "./cost.ts";
import { costDispatchTable } from "./cost-dispatch.ts";
import { expectedOf, firstSteps } from "./earlier.ts";
import { earnedChoice, type Load, priceOf } from "./earned.ts";
import { fillChoice, mostValuable } from "./fill.ts";
import { firstGraphs, learnedGraphs, unknownGraphs } from "./first.ts";
import { Gaps } from "./gaps.ts";
import { Knowledge } from "./knowledge.ts";
import type { StepObserver } from "./observer.ts";
import { ofUseTo } from "./of-use.ts";
import type { Prior } from "./prior.ts";
import {
  aheadReason,
  earnedReason,
  expectedDelay,
  figure,
  fillReason,
  gapObjection,
  likelyReason,
} from "./reasons.ts";
import { HELD } from "./shapes.ts";

export interface CostPolicyOptions {
  readonly mode: "lazy" | "idle";
  /** Where the cost estimates start; the engine's own reports correct them. */
  readonly costs: CostSeed;
  readonly stallBudget?: StallBudget;
  /** Half-life of the traffic histogram, in seconds. @default 300 */
  readonly halfLifeSeconds?: number;
  /** What earlier starts learned. @default nothing */
  readonly prior?: Prior;
  /** What observes the engine's steps already. @default the policy observes them itself */
  readonly observer?: StepObserver;
  /** Captures the learned graphs before ready and none after: settled at ready. @default false */
  readonly initOnly?: boolean;
  /**
   * With a prior its graphs come before ready instead of the tops: the most valuable one always, and
   * those that are dearer later, while they are expected to take at most this many seconds together.
   * `initOnly` takes all. @default 2
   */
  readonly firstSecondsMax?: number;
}

export interface CostPolicy extends Policy {
  /** The estimates so far; undefined until the engine has told its plan. */
  readonly costs: Costs | undefined;
  /** Why a graph is where it is, as a sentence. */
  explain(state: EngineState, id: string, atSeconds: number): string;
}

/** Seconds until an engine that deferred a capture is asked again, if nothing else comes first. */
const DEFERRED_RETRY_SECONDS = 1;
/** Seconds of captures before ready at most, where a plan says that they pay. */
const FIRST_SECONDS_MAX = 2;
/** Who is announced for so soon waits for the start as well. */
const ANNOUNCED_SECONDS = 2;
/** Decode steps expected of requests that wait at ready: fewer than nearly every answer has. */
const STEPS_AHEAD = 32;
/** Of the largest batch: within an octave of it. */
const CROWD_SHARE = 0.5;
const WAIT_SECONDS_MIN = 0.1;
/**
 * What fill may cost beyond what it is worth, as expected delay: it buys the end of captures, which
 * an engine whose gaps stay short would else never see.
 */
const PATIENCE = { burstSeconds: 0.02, share: 0.001 };
const WAIT_SECONDS_MAX = 600;
const NONE: readonly Decision[] = [];

export function createCostPolicy(options: CostPolicyOptions): CostPolicy {
  return new CostedPolicy(options);
}

class CostedPolicy implements CostPolicy {
  readonly name: string;
  readonly #options: CostPolicyOptions;
  readonly #stalls: StallAccount;
  readonly #aheadStalls = new StallAccount(AHEAD_BUDGET);
  readonly #patience = new StallAccount(PATIENCE);
  /** Whether anybody has come to the engine. */
  #used = false;
  /** The graph that was asked for last, where that was for an idle engine. */
  #askedWhenIdle: string | undefined;
  /** The capture under way that fill has begun, and the chance then that somebody meets it. */
  #filling: { readonly id: string; readonly share: number } | undefined;
  readonly #gaps = new Gaps();
  readonly #announced = new Announced();
  #known: Knowledge | undefined;
  #tableRevision = -1;
  #tableVersion = -1;
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
    const first = joined(this.#start(state, event, known), this.#table(state, event, known));
    if (!state.ready || state.capturing !== undefined) return first;
    const settled = this.#settle(state, known);
    // None is under way: what was asked for has ended, or comes to nothing.
    this.#filling = undefined;
    const captures = this.#capture(state, event, known);
    for (const capture of captures) {
      if (capture.type !== "capture") continue;
      this.#askedWhenIdle = capture.whenIdle ? capture.graph.id : undefined;
    }
    return joined(first, joined(settled, captures));
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
    const { accounts, costs, held } = this.#known;
    const regret = accounts.balances(held)[costs.shapes.places.get(id) ?? -1] ?? 0;
    const price = priceOf(costs.captureSeconds(graph).value, this.#load(state, atSeconds));
    if (regret < price)
      return `${id}: deferred, account ${figure(regret)} < price ${figure(price)}`;
    const objection = this.#stalls.objection(atSeconds, costs.captureSeconds(graph).value);
    return `${id}: deferred, ${objection ?? `another graph has earned more than its ${figure(regret)}`}`;
  }

  #learn(state: EngineState, event: EngineEvent): Knowledge {
    if (this.#known === undefined || !samePlan(this.#known.planned, state.planned)) {
      this.#known = new Knowledge(state.planned, this.#options, event.atSeconds);
    }
    const known = this.#known;
    known.look(state, event);
    // Who takes over an engine that is idle already, or settled once, hears of no new edge.
    if (state.idle) this.#gaps.idle(event.atSeconds);
    // An engine tells who waits once it is ready, with the edge to its first step at the latest.
    if (event.type === "ready" || event.type === "busy") this.#expectWaiting(state, known);
    this.#used ||= event.type === "busy" || hasWorked(state);
    if (event.type === "demand") known.learn(state, event.steps ?? [], event.atSeconds);
    else if (event.type === "busy") {
      this.#gaps.busy(event.atSeconds);
      this.#announced.came(event.atSeconds, state.running + state.waiting);
      known.load.pass(event.atSeconds, 0, 0);
    } else if (event.type === "announce") {
      this.#announced.add(event.atSeconds, event.inSeconds, event.requests);
    } else if (event.type === "captured") this.#learnCapture(state, event.graph, event.atSeconds);
    return known;
  }

  /**
   * Who waits at ready will decode together as soon as the prompts are done: those steps are
   * booked ahead, so that the graph for them needn't be earned again by slow ones.
   */
  #expectWaiting({ waiting }: EngineState, { accounts, decode }: Knowledge): void {
    if (this.#used || waiting === 0) return;
    this.#used = true;
    if (waiting > WAITING_AHEAD_MAX) return;
    const step = { tokens: waiting * decode, requests: waiting, uniform: decode };
    accounts.book(step, STEPS_AHEAD, waiting);
  }

  #learnCapture(state: EngineState, id: string, atSeconds: number): void {
    const entry = state.graphs.get(id);
    if (entry?.captureMs === undefined) return;
    const seconds = entry.captureMs / 1000;
    this.#known?.costs.observeCapture(entry.graph, seconds);
    const filling = this.#filling?.id === id && state.idle ? this.#filling : undefined;
    this.#stalls.spend(atSeconds, (filling?.share ?? 1) * seconds);
  }

  #start(
    state: EngineState,
    { type, atSeconds }: EngineEvent,
    known: Knowledge,
  ): readonly Decision[] {
    if (type !== "inventory" || state.ready) return NONE;
    const { initOnly, mode, costs, firstSecondsMax = FIRST_SECONDS_MAX } = this.#options;
    const { first, savings, planned } = known;
    if (initOnly === true) return [{ type: "start", ...learnedGraphs(planned, first) }];
    const announced = this.#announced.during(atSeconds, ANNOUNCED_SECONDS);
    const requests = this.#load(state, atSeconds).requests + announced;
    const { decode, prior } = known;
    const waiting = firstSteps(requests, decode, STEPS_AHEAD, known.costs.shapes);
    const { beforeReadyShare: share = 1, warmUpShare = 0, foreign = false } = costs;
    if (first.length === 0) {
      // The top graph serves them nearly as well, and prompts go on for long: a graph of their own
      // would only hold them up, and whoever comes until the queue is gone.
      const crowd = requests * decode > CROWD_SHARE * known.costs.shapes.tokensMax;
      const soon = crowd ? [] : waiting;
      const steps = [...known.decodeForecast(atSeconds), ...soon];
      const input = { savings, expected: steps, requests, decode, share, warmUpShare, foreign };
      return [{ type: "start", ...unknownGraphs(input) }];
    }
    const expected = expectedOf(prior, known.costs, mode === "idle");
    const shares = { share, warmUpShare, secondsMax: firstSecondsMax };
    const input = { savings, learned: first, expected, waiting, requests, decode, ...shares };
    return [{ type: "start", ...firstGraphs(input) }];
  }

  #table(
    state: EngineState,
    event: EngineEvent,
    { costs, held, planned }: Knowledge,
  ): readonly Decision[] {
    // Before ready an engine has its mode's own table; ours would be empty, and might be its last.
    if (!state.ready) return NONE;
    const same = this.#tableRevision === costs.revision && this.#tableVersion === held.version;
    // After an inventory the engine may be another process, without any table.
    if (same && event.type !== "inventory") return NONE;
    this.#tableRevision = costs.revision;
    this.#tableVersion = held.version;
    const captured = planned.filter((_, place) => held.at[place] === HELD.captured);
    const reason = `by cost over ${captured.length} of ${planned.length} graphs`;
    const table = costDispatchTable(captured, costs);
    return [{ type: "dispatch", table, reason }];
  }

  #settle(state: EngineState, { held: { missing } }: Knowledge): readonly Decision[] {
    if (this.#settled || state.settled) return NONE;
    const initOnly = this.#options.initOnly === true;
    const open = missing > 0 || waitingForMemory(state) > 0;
    if (open && !state.frozen && !initOnly) return NONE;
    this.#settled = true;
    const why = state.frozen ? "captures are frozen" : "captures were for before ready only";
    return [settledWith(missing, why)];
  }

  #capture(state: EngineState, event: EngineEvent, known: Knowledge): readonly Decision[] {
    if (state.frozen || state.settled || this.#settled) return NONE;
    const deferred = event.type === "deferred" ? event.graph : undefined;
    // What was meant for an idle engine, and came to one with work, keeps nothing else waiting.
    const only = deferred !== undefined && (state.idle || deferred !== this.#askedWhenIdle);
    const load = this.#load(state, event.atSeconds);
    const earned = only
      ? undefined
      : (this.#earned(state, event, known, load) ?? this.#ahead(state, event, known, load));
    if (earned !== undefined) return earned;
    if (deferred !== undefined) {
      const reason = `${deferred}: the engine deferred its capture`;
      return [{ type: "wait", seconds: DEFERRED_RETRY_SECONDS, reason }];
    }
    if (!state.idle) return NONE;
    return this.#options.mode === "idle"
      ? this.#fill(event, known)
      : this.#likely(state, event, known);
  }

  #earned(
    state: EngineState,
    { atSeconds }: EngineEvent,
    known: Knowledge,
    load: Load,
  ): Decision[] | undefined {
    const { costs, savings, accounts, traffic, decode, held, trusted } = known;
    const falling = known.load.isFalling(load.requests);
    const isOfUse = falling ? ofUseTo(state.running, known) : undefined;
    const choice = earnedChoice({
      savings,
      accounts,
      held,
      load,
      trusted,
      ...(isOfUse === undefined ? {} : { waits: (place) => !isOfUse(place) }),
      expected: () => traffic.forecast(atSeconds, decode, 0),
    });
    if (choice === undefined) return undefined;
    const { graph } = choice;
    const stallSeconds = costs.captureSeconds(graph).value;
    const objection = this.#stalls.objection(atSeconds, stallSeconds);
    if (objection !== undefined) {
      return this.#waitFor(graph, objection, this.#stalls.waitSeconds(atSeconds, stallSeconds));
    }
    return [{ type: "capture", graph, reason: earnedReason(choice), whenIdle: state.idle }];
  }

  /** What a rising load would need, at a cheap moment: unless something speaks against it. */
  #ahead(
    state: EngineState,
    { atSeconds }: EngineEvent,
    known: Knowledge,
    now: Load,
  ): Decision[] | undefined {
    if (state.idle) return undefined;
    const { savings, held, load, decode } = known;
    if (!isCheapMoment(load, now.requests)) return undefined;
    const engine = loadAhead(now.requests, known);
    // More than on average, and yet the fewest of late: a backlog that goes, and no rise to come.
    if (engine.utilisation !== undefined && now.requests > engine.requests) return undefined;
    const price = (stallSeconds: number): number => priceOf(stallSeconds, now);
    const choice = aheadChoice({ savings, held, engine, decode, priceOf: price });
    if (choice === undefined) return undefined;
    const { graph } = choice;
    const stallSeconds = savings.costs.captureSeconds(graph).value;
    if (this.#announced.during(atSeconds, stallSeconds) > 0) return undefined;
    if (this.#stalls.objection(atSeconds, stallSeconds) !== undefined) return undefined;
    if (engine.utilisation !== undefined) {
      if (this.#aheadStalls.objection(atSeconds, stallSeconds) !== undefined) return undefined;
      this.#aheadStalls.spend(atSeconds, stallSeconds);
    }
    return [{ type: "capture", graph, reason: aheadReason(choice), whenIdle: false }];
  }

  /**
   * Lazy mode's idle moments: what the traffic so far makes likely, a batch somewhat larger say,
   * before its first steps have to earn it while all wait. Within the budget of captures ahead.
   */
  #likely(state: EngineState, { atSeconds }: EngineEvent, known: Knowledge): Decision[] {
    const { savings, held, traffic, decode } = known;
    const choice = mostValuable({
      savings,
      held,
      expected: traffic.forecast(atSeconds, decode, 0),
    });
    if (choice === undefined) return [];
    const { graph, value, stallSeconds } = choice;
    const price = priceOf(stallSeconds, this.#load(state, atSeconds));
    if (value < price || this.#announced.during(atSeconds, stallSeconds) > 0) return [];
    if (this.#stalls.objection(atSeconds, stallSeconds) !== undefined) return [];
    if (this.#aheadStalls.objection(atSeconds, stallSeconds) !== undefined) return [];
    this.#aheadStalls.spend(atSeconds, stallSeconds);
    return [{ type: "capture", graph, reason: likelyReason(choice, price), whenIdle: true }];
  }

  #fill({ atSeconds }: EngineEvent, known: Knowledge): Decision[] {
    const { savings, held, traffic } = known;
    const expected = known.fillForecast(atSeconds);
    const choice = fillChoice({ savings, held, expected, steps: traffic.steps });
    if (choice === undefined) return [];
    const { graph, stallSeconds } = choice;
    const requests = this.#announced.during(atSeconds, stallSeconds);
    if (requests > 0) {
      const seconds = this.#announced.waitSeconds(atSeconds, stallSeconds);
      return this.#waitFor(graph, `requests announced: ${requests}`, seconds);
    }
    // Before anybody came, whoever comes first meets one of all these captures at most.
    const share = this.#used ? this.#gaps.arrivalShare(atSeconds, stallSeconds) : 0;
    const expectedSeconds = share * stallSeconds;
    const tooLong = this.#stalls.objection(atSeconds, stallSeconds, expectedSeconds);
    if (tooLong !== undefined) {
      const seconds = this.#stalls.waitSeconds(atSeconds, stallSeconds, expectedSeconds);
      return this.#waitFor(graph, tooLong, seconds);
    }
    if (this.#used) {
      const tooDear = gapObjection(choice, share);
      const delay = tooDear === undefined ? 0 : expectedDelay(choice, share);
      const wait = this.#patience.waitSeconds(atSeconds, delay);
      // The longer a gap lasts, the surer it is: ask again after as long again.
      const lasted = this.#gaps.lastedSeconds(atSeconds);
      if (tooDear !== undefined && wait > 0) {
        return this.#waitFor(graph, tooDear, Math.min(wait, lasted));
      }
      this.#patience.spend(atSeconds, delay);
    }
    this.#filling = { id: graph.id, share };
    return [{ type: "capture", graph, reason: fillReason(choice, share), whenIdle: true }];
  }

  #waitFor(graph: Graph, objection: string, waitSeconds: number): Decision[] {
    const seconds = Math.min(WAIT_SECONDS_MAX, Math.max(WAIT_SECONDS_MIN, waitSeconds));
    return [{ type: "wait", seconds, reason: `${graph.id}: deferred, ${objection}` }];
  }

  #load(state: EngineState, atSeconds: number): Load {
    return {
      requests: state.running + state.waiting,
      arrivalsPerSecond: this.#gaps.arrivalsPerSecond,
      announced: (stallSeconds) => this.#announced.during(atSeconds, stallSeconds),
    };
  }
}

/** Without a copy where there is nothing to join, as with most reports. */
function joined(one: readonly Decision[], other: readonly Decision[]): readonly Decision[] {
  if (other.length === 0) return one;
  return one.length === 0 ? other : [...one, ...other];
}

function hasWorked(state: EngineState): boolean {
  const { running, waiting, stepsExact, stepsPadded, stepsUngraphed } = state;
  return running + waiting + stepsExact + stepsPadded + stepsUngraphed > 0;
}

function samePlan(a: readonly Graph[], b: readonly Graph[]): boolean {
  return a === b || (a.length === b.length && a.every((graph, index) => graph.id === b[index]?.id));
}

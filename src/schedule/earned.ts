/** Earned captures: which account has reached its price, and which graph serves it best. */

import type { Graph } from "../graph.ts";
import type { Accounts } from "./accounts.ts";
import type { Costs } from "./cost.ts";
import { valuesOf } from "./fill.ts";
import type { Held } from "./shapes.ts";
import type { Traffic } from "./traffic.ts";

export interface EarnedChoice {
  readonly graph: Graph;
  /** Request-seconds that it would have spared. */
  readonly regret: number;
  /** Request-seconds that its capture costs now. */
  readonly price: number;
  /** The graph whose account reached its price, where another one is captured instead. */
  readonly leader: Graph;
}

/** Whom a stall would hold up now. */
export interface Load {
  /** Running and waiting. */
  readonly requests: number;
  readonly arrivalsPerSecond: number;
}

export interface EarnedInput {
  readonly costs: Costs;
  readonly accounts: Accounts;
  readonly held: Held;
  readonly load: Load;
  /** The steps to come; asked only when an account has reached its price. */
  readonly expected: () => readonly Traffic[];
}

/** Another graph may take the leader's place if it removes this share of the leader's regret. */
const STAND_IN_SHARE = 0.75;

/** The price of a capture now: its stall times whom it holds up, at least one. */
export function priceOf(graph: Graph, costs: Costs, load: Load): number {
  const stallSeconds = costs.captureSeconds(graph).value;
  return stallSeconds * Math.max(1, load.requests, load.arrivalsPerSecond * stallSeconds);
}

/**
 * The account that is furthest over its price leads. A graph that would remove most of the same
 * regret is captured in its place if it is worth more for the steps to come: a batch of 7 that
 * grows is better served by a graph of 16 than by one of 8. Independent graphs never stand in for
 * each other, so that the bound of ski rental holds as it is.
 */
export function earnedChoice(input: EarnedInput): EarnedChoice | undefined {
  const { accounts, costs, held, load } = input;
  const { planned } = costs.shapes;
  const regrets = accounts.balances(held);
  let leader = -1;
  let leaderRatio = 1;
  for (let place = 0; place < regrets.length; place++) {
    const regret = regrets[place] ?? 0;
    const graph = planned[place];
    if (regret === 0 || graph === undefined) continue;
    const ratio = regret / priceOf(graph, costs, load);
    if (ratio < leaderRatio || (ratio === leaderRatio && leader !== -1)) continue;
    leader = place;
    leaderRatio = ratio;
  }
  const leading = planned[leader];
  if (leading === undefined) return undefined;
  const best = planned[standIn(leader, regrets, input)] ?? leading;
  const regret = regrets[planned.indexOf(best)] ?? 0;
  return { graph: best, regret, price: priceOf(best, costs, load), leader: leading };
}

/** Who is captured for the leader: itself, or somebody of more value per second of stall. */
function standIn(leader: number, regrets: Float64Array, input: EarnedInput): number {
  const { accounts, costs, held } = input;
  const values = valuesOf(costs, held, input.expected());
  const enough = STAND_IN_SHARE * (regrets[leader] ?? 0);
  let best = leader;
  let bestRate = rateOf(leader, values, costs);
  for (let place = 0; place < regrets.length; place++) {
    if ((regrets[place] ?? 0) < enough) continue;
    const rate = rateOf(place, values, costs);
    if (rate <= bestRate || accounts.shared(leader, place, held) < enough) continue;
    best = place;
    bestRate = rate;
  }
  return best;
}

function rateOf(place: number, values: Float64Array, costs: Costs): number {
  const graph = costs.shapes.planned[place];
  return graph === undefined ? 0 : (values[place] ?? 0) / costs.captureSeconds(graph).value;
}

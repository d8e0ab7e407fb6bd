/** Earned captures: which account has reached its price, and which graph serves it best. */

import type { Graph } from "../../base/graph.ts";
import type { Accounts } from "./accounts.ts";
import type { LaneWeights, Savings } from "./savings.ts";
import type { Held } from "./shapes.ts";

export interface EarnedChoice {
  readonly graph: Graph;
  /** Request-seconds that it would have spared. */
  readonly regret: number;
  /** Request-seconds that its account had to reach. */
  readonly price: number;
  /** Whether that is a share of the price only, since earlier starts needed the graph. */
  readonly trusted: boolean;
  /** The graph whose account reached its price, where another one is captured instead. */
  readonly leader: Graph;
}

/** Whom a stall would hold up now. */
export interface Load {
  /** Running and waiting. */
  readonly requests: number;
  readonly arrivalsPerSecond: number;
  /** Announced requests that a stall of so many seconds would reach. @default none */
  readonly announced?: (stallSeconds: number) => number;
}

export interface EarnedInput {
  readonly savings: Savings;
  readonly accounts: Accounts;
  readonly held: Held;
  readonly load: Load;
  /** Whether earlier starts needed a graph, by its place in the plan. */
  readonly trusted?: Uint8Array;
  /** Whether a graph, by its place in the plan, is better captured later. @default none is */
  readonly waits?: (place: number) => boolean;
  /** The steps to come; asked only when an account has reached its price. */
  readonly expected: () => readonly LaneWeights[];
}

/**
 * A graph that earlier starts needed is captured at this share of its price. Ski rental with advice
 * (Purohit, Svitkina, Kumar, "Improving online algorithms via ML predictions", NeurIPS 2018): where
 * the advice is good that costs at most 1.5 times what a clairvoyant pays instead of 2, and where it
 * is bad at most 3 times.
 */
export const TRUSTED_SHARE = 0.5;
/**
 * Whom a stall of an idle engine holds up: half of it on average, if anybody comes meanwhile, which
 * is as likely as not where nothing is known.
 */
export const IDLE_REQUESTS = 0.25;
/** Another graph may take the leader's place if it removes this share of the leader's regret. */
const STAND_IN_SHARE = 0.75;

/** The price of a capture now: its stall times whom it holds up. */
export function priceOf(stallSeconds: number, load: Load): number {
  const requests = load.requests + (load.announced?.(stallSeconds) ?? 0);
  const least = requests > 0 ? 1 : IDLE_REQUESTS;
  return stallSeconds * Math.max(least, requests, load.arrivalsPerSecond * stallSeconds);
}

/**
 * The account that is furthest over its price leads. A graph that would remove most of the same
 * regret is captured in its place if it is worth more for the steps to come: a batch of 7 that
 * grows is better served by a graph of 16 than by one of 8. Independent graphs never stand in for
 * each other, so that the bound of ski rental holds as it is.
 */
export function earnedChoice(input: EarnedInput): EarnedChoice | undefined {
  const { accounts, savings, held } = input;
  const { shapes } = savings.costs;
  const regrets = accounts.balances(held);
  let leader = -1;
  let leaderRatio = 1;
  for (let place = 0; place < regrets.length; place++) {
    const regret = regrets[place] ?? 0;
    if (regret === 0) continue;
    const ratio = regret / thresholdOf(place, input);
    if (ratio < leaderRatio || (ratio === leaderRatio && leader !== -1)) continue;
    if (input.waits?.(place) === true) continue;
    leader = place;
    leaderRatio = ratio;
  }
  const leading = shapes.planned[leader];
  if (leading === undefined) return undefined;
  const place = standIn(leader, regrets, input);
  return {
    graph: shapes.planned[place] ?? leading,
    regret: regrets[place] ?? 0,
    price: thresholdOf(place, input),
    trusted: input.trusted?.[place] === 1,
    leader: leading,
  };
}

/** What a graph's account has to reach. */
function thresholdOf(place: number, { savings, load, trusted }: EarnedInput): number {
  const price = priceOf(savings.costs.captureSecondsByPlace[place] ?? 0, load);
  return trusted?.[place] === 1 ? TRUSTED_SHARE * price : price;
}

/** Who is captured for the leader: itself, or somebody of more value per second of stall. */
function standIn(leader: number, regrets: Float64Array, input: EarnedInput): number {
  const { accounts, savings, held } = input;
  const { captureSecondsByPlace } = savings.costs;
  const values = savings.of(held, input.expected());
  const rate = (place: number): number =>
    (values[place] ?? 0) / (captureSecondsByPlace[place] ?? 1);
  const enough = STAND_IN_SHARE * (regrets[leader] ?? 0);
  const leaderRate = rate(leader);
  const better: number[] = [];
  for (let place = 0; place < regrets.length; place++) {
    const enters = (regrets[place] ?? 0) >= enough && rate(place) > leaderRate;
    if (enters && input.waits?.(place) !== true) better.push(place);
  }
  better.sort((a, b) => rate(b) - rate(a));
  return better.find((place) => accounts.shared(leader, place, held) >= enough) ?? leader;
}

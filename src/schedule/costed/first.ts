/**
 * What comes before ready. Where nothing is known of the traffic: the tops, and beside them what a
 * budget of a share of stock's seconds holds, by value. Once that is known: what earlier starts
 * needed.
 *
 * A capture before ready holds up all who wait for the start, but takes less time than one between
 * two steps. So a graph comes before ready if that costs less than to do without it: less than the
 * regret it would spare, and less than what it is captured for later, its stall times the requests
 * that are at hand when it is of use.
 */

import { type Graph, topGraphs } from "../../base/graph.ts";
import { firstSetShare } from "../first-budget.ts";
import { firstLadder } from "../first-ladder.ts";
import { aheadChoice, CHEAP_SHARE } from "./ahead.ts";
import { type Expected, expectedRunning } from "./earlier.ts";
import { TRUSTED_SHARE } from "./earned.ts";
import type { LaneWeights, Savings } from "./savings.ts";
import { HELD, Held } from "./shapes.ts";

export interface FirstInput {
  readonly savings: Savings;
  /** What earlier starts needed, most needed first. */
  readonly learned: readonly Graph[];
  readonly expected: Expected;
  /** Request-steps of those who wait for the start: the first ones after ready. */
  readonly waiting: readonly LaneWeights[];
  /** Requests that wait for the start; 0: nobody knows. */
  readonly requests: number;
  /** Tokens of each request in a decode step. */
  readonly decode: number;
  /** What a capture before ready takes, as a share of a later one's seconds. */
  readonly share: number;
  /** The same for what a kind's first capture takes more, wherever it comes. */
  readonly warmUpShare: number;
  /** Seconds of captures; the first graph comes whatever it takes. */
  readonly secondsMax: number;
}

export interface First {
  readonly graphs: readonly Graph[];
  /** Then these, as many as a budget holds that the engine reckons by itself. */
  readonly more?: readonly Graph[];
  readonly reason: string;
}

export interface UnknownInput
  extends Pick<FirstInput, "savings" | "requests" | "decode" | "share" | "warmUpShare"> {
  /** Request-steps of those who wait, and a few of every size. */
  readonly expected: readonly LaneWeights[];
  /** The costs are another engine's: only this one can say what fits. */
  readonly foreign: boolean;
}

/** More of the ladder fits no budget. */
const LADDER_MAX = 64;
/** A lull takes at least about this long. */
const LULL_SECONDS = 1;
/** Looks at graphs, lane by lane, in each of two rounds: an engine waits for the answer. */
const LOOKS_MAX = 500_000;

/** All the graphs that earlier starts needed; the tops where there were none. */
export function learnedGraphs(planned: readonly Graph[], learned: readonly Graph[]): First {
  if (learned.length > 0) return { graphs: learned, reason: reasonFor(learned) };
  return { graphs: topGraphs(planned), reason: "the top graph of each kind" };
}

/** Nothing is known of the traffic but who waits. */
export function unknownGraphs(input: UnknownInput): First {
  const { planned } = input.savings.costs.shapes;
  const tops = topGraphs(planned);
  const reason = "the top graph of each kind";
  if (input.foreign) {
    const more = ladderFor(planned, input).filter((graph) => !tops.includes(graph));
    return { graphs: tops, more, reason: `${reason}, and small ones while there is time` };
  }
  // Who waits pays for a capture now or right after ready: what is cheaper then comes then.
  const cheaperLater = input.requests > 0 && input.share > 1;
  const small = cheaperLater ? [] : withinBudget(tops, input);
  if (small.length === 0) return { graphs: tops, reason };
  return { graphs: [...tops, ...small], reason: `${reason}, and the most useful of the others` };
}

/** The ladder, with the graph that those who wait will need at its head, unless its first one serves them. */
function ladderFor(planned: readonly Graph[], { requests, decode }: UnknownInput): Graph[] {
  const ladder = firstLadder(planned).slice(0, LADDER_MAX);
  if (requests === 0) return ladder;
  const uniform = decode;
  const step = { tokens: expectedRunning(requests) * decode, requests: 1, uniform };
  if ((ladder[0]?.tokens ?? 0) >= step.tokens) return ladder;
  const needed = ladder
    .filter(({ tokens }) => tokens >= step.tokens)
    .sort((a, b) => a.tokens - b.tokens)
    .slice(0, 1);
  return [...new Set([...needed, ...ladder])];
}

/** By value per second, each given those before it, while they fit the budget beside the tops. */
function withinBudget(
  tops: readonly Graph[],
  { savings, expected, requests, share, warmUpShare }: UnknownInput,
): Graph[] {
  const { captureSecondsByPlace, shapes } = savings.costs;
  const { planned, places } = shapes;
  const held = new Held(planned.length);
  let left = 0;
  for (const seconds of captureSecondsByPlace) left += seconds * (share + warmUpShare);
  left *= firstSetShare(planned);
  for (const { id } of tops) {
    const place = places.get(id) ?? -1;
    held.set(place, HELD.captured);
    left -= (captureSecondsByPlace[place] ?? 0) * (share + warmUpShare);
  }
  const graphs: Graph[] = [];
  const looksEach = planned.length * Math.max(1, expected.length);
  for (let looks = 0; looks < LOOKS_MAX && left > 0; looks += looksEach) {
    const values = savings.of(held, expected);
    const place = mostPerSecond(values, captureSecondsByPlace, held);
    const graph = planned[place];
    if (graph === undefined) break;
    const seconds = share * (captureSecondsByPlace[place] ?? 0);
    // Who waits is held up by it: then it has to be worth that.
    const taken = seconds <= left && (values[place] ?? 0) >= seconds * requests;
    held.set(place, taken ? HELD.captured : HELD.never);
    if (!taken) continue;
    graphs.push(graph);
    left -= seconds;
  }
  return graphs;
}

export function firstGraphs(input: FirstInput): First {
  const { savings, learned } = input;
  const { planned } = savings.costs.shapes;
  if (learned.length === 0) return learnedGraphs(planned, learned);
  const graphs = ahead(input, worthwhile(input));
  const first = graphs.length > 0 ? graphs : learned.slice(0, 1);
  return { graphs: first, reason: reasonFor(first) };
}

function reasonFor(graphs: readonly Graph[]): string {
  const names = graphs.length === 1 ? `${graphs[0]?.id}, which` : `${graphs.length} graphs that`;
  return `${names} earlier starts needed most`;
}

interface Chosen {
  /** What is captured by then; `never`: not worth it. */
  readonly held: Held;
  readonly graphs: readonly Graph[];
  readonly seconds: number;
}

/** By value per second, each given those before it; neighbours don't count twice. */
function worthwhile(input: FirstInput): Chosen {
  const { savings, expected, waiting, share, warmUpShare, secondsMax } = input;
  const { captureSecondsByPlace, shapes } = savings.costs;
  const held = new Held(shapes.planned.length);
  const graphs: Graph[] = [];
  const warmed = new Set<Graph["kind"]>();
  let seconds = 0;
  // Where FULL graphs serve mixed steps there is a lane for each limit of requests.
  const lanes = expected.requestSteps.length + expected.steps.length + waiting.length;
  const looksEach = shapes.planned.length * Math.max(1, lanes);
  for (let looks = 0; looks < LOOKS_MAX; looks += looksEach) {
    const values = savings.of(held, [...expected.requestSteps, ...waiting]);
    const place = mostPerSecond(values, captureSecondsByPlace, held);
    const graph = shapes.planned[place];
    if (graph === undefined) break;
    const own = captureSecondsByPlace[place] ?? 0;
    const warmUp = warmed.has(graph.kind) ? 0 : warmUpShare * own;
    const before = share * own + warmUp;
    const price = before * heldUp(input);
    const dearer = (): boolean => laterPrice(place, own + warmUp, held, input) >= price;
    const wanted = graphs.length === 0 || (seconds + before <= secondsMax && dearer());
    if ((values[place] ?? 0) < price || !wanted) {
      held.set(place, HELD.never);
      continue;
    }
    graphs.push(graph);
    held.set(place, HELD.captured);
    warmed.add(graph.kind);
    seconds += before;
  }
  return { held, graphs, seconds };
}

/** Also what a load higher than today's would need, where the moments to come are no cheaper. */
function ahead(input: FirstInput, { held, graphs, seconds }: Chosen): Graph[] {
  const { savings, expected, share, decode, secondsMax } = input;
  const { captureSecondsByPlace, shapes } = savings.costs;
  const perSecond = share * heldUp(input);
  const lull = expected.requests.find((row) => row.share >= CHEAP_SHARE);
  const engine = expected.load;
  if (engine === undefined || expected.rests || perSecond > (lull?.requests ?? 0)) {
    return [...graphs];
  }
  const priceOf = (stallSeconds: number): number => perSecond * stallSeconds;
  // What this load doesn't need may well be what a higher one does.
  for (let place = 0; place < held.at.length; place++) {
    if (held.at[place] === HELD.never) held.set(place, HELD.missing);
  }
  const all = [...graphs];
  let total = seconds;
  for (let looks = 0; looks < LOOKS_MAX; looks += shapes.planned.length) {
    const choice = aheadChoice({ savings, held, engine, decode, priceOf });
    if (choice === undefined) break;
    const place = shapes.places.get(choice.graph.id) ?? -1;
    total += share * (captureSecondsByPlace[place] ?? 0);
    if (total > secondsMax) break;
    all.push(choice.graph);
    held.set(place, HELD.captured);
  }
  return all;
}

/** Request-seconds that doing without the graph at first comes to. */
function laterPrice(place: number, seconds: number, held: Held, input: FirstInput): number {
  const { savings, expected, waiting, requests } = input;
  // Who waits for the start needs it at once: then it is captured while they are held up.
  const atOnce = Math.min(savings.of(held, waiting)[place] ?? 0, seconds * requests);
  const steps = savings.of(held, expected.steps)[place] ?? 0;
  if (expected.rests || steps === 0) return atOnce;
  const regret = savings.of(held, expected.requestSteps)[place] ?? 0;
  // Otherwise in the first lull of so few requests that it has earned its price by then.
  const earned = (regret * LULL_SECONDS) / (TRUSTED_SHARE * seconds * expected.seconds);
  const lull = expected.requests.find((row) => row.share * row.requests >= earned);
  const whenOfUse = regret / steps;
  const inLull = seconds * Math.min(whenOfUse, lull?.requests ?? whenOfUse);
  return Math.max(atOnce, Math.min(regret, inLull));
}

/** Requests that a capture before ready holds up. */
function heldUp({ requests, expected }: FirstInput): number {
  if (requests > 0) return requests;
  const half = expected.requests.find(({ share }) => share >= 0.5);
  return Math.max(1, half?.requests ?? 1);
}

/** The missing graph that spares the most for each second of its capture; -1: none spares any. */
function mostPerSecond(values: Float64Array, seconds: Float64Array, held: Held): number {
  let best = -1;
  let bestRate = 0;
  for (let place = 0; place < values.length; place++) {
    const rate = (values[place] ?? 0) / (seconds[place] ?? 1);
    if (rate <= bestRate || held.at[place] !== HELD.missing) continue;
    best = place;
    bestRate = rate;
  }
  return best;
}

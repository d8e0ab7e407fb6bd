/**
 * Which graphs are captured before ready where not all of the plan fits: pure.
 *
 * The pool's size is set by the largest graph, so the first question is how large that may be:
 * of the candidates the one with which the most graphs fit, the larger one of equals.
 */

import { type Graph, topGraphs } from "../base/graph.ts";
import type { MemoryForecast } from "./forecast.ts";
import { upperBytes } from "./forecast.ts";
import { DEFAULT_POOL, tiersOf } from "./tiers.ts";

export interface FitInput {
  readonly planned: readonly Graph[];
  /** What the policy would capture before ready. */
  readonly wanted: readonly Graph[];
  readonly forecast: MemoryForecast;
  readonly headroomBytes: number;
}

export interface Fit {
  /** To be captured before ready, in the policy's order, a smaller top first. */
  readonly graphs: readonly Graph[];
  /** Upper end of what they take. */
  readonly needBytes: number;
  /** What does not fit, and is not to be asked for until there is room. */
  readonly blocked: readonly Graph[];
  /** The pool of each graph; undefined where one pool for all is fine. */
  readonly tiers: ReadonlyMap<string, number> | undefined;
}

export function fitStart(input: FitInput): Fit {
  const { planned, wanted, forecast, headroomBytes } = input;
  const onePool = new Map<string, number>();
  if (needOf(forecast, planned, onePool) <= headroomBytes) {
    const needBytes = needOf(forecast, wanted, onePool);
    return { graphs: wanted, needBytes, blocked: [], tiers: undefined };
  }
  const tiers = tiersOf(planned);
  let best: readonly Graph[] = [];
  for (const tokens of candidateTops(planned)) {
    const kept = fitting(input, tokens, tiers);
    if (kept.length > best.length) best = kept;
  }
  return startSet(input, best, tiers);
}

/** Upper end of what these graphs take from nothing. */
function needOf(
  forecast: MemoryForecast,
  graphs: readonly Graph[],
  tiers: ReadonlyMap<string, number>,
): number {
  const entries = graphs.map((graph) => ({ graph, pool: tiers.get(graph.id) ?? DEFAULT_POOL }));
  return upperBytes(forecast.rest(entries, new Map()));
}

/** The largest size, and the largest ones up to each power of two below it, descending. */
function candidateTops(planned: readonly Graph[]): number[] {
  const sizes = [...new Set(planned.map((graph) => graph.tokens))].sort((a, b) => a - b);
  const tops = new Set<number>();
  const largest = sizes.at(-1) ?? 0;
  tops.add(largest);
  for (let end = 2 ** Math.floor(Math.log2(Math.max(1, largest))); end >= 1; end /= 2) {
    const top = sizes.findLast((size) => size <= end);
    if (top !== undefined) tops.add(top);
  }
  return [...tops].sort((a, b) => b - a);
}

/** The graphs that fit with this largest size: its tops, what the policy wants, then the rest. */
function fitting(
  { planned, wanted, forecast, headroomBytes }: FitInput,
  tokens: number,
  tiers: ReadonlyMap<string, number>,
): readonly Graph[] {
  const small = planned.filter((graph) => graph.tokens <= tokens);
  const tops = topGraphs(small).filter((graph) => graph.tokens === tokens);
  const chosen = wanted.length < planned.length ? wanted : [];
  const ranked = [
    ...new Set([
      ...tops,
      ...chosen.filter((graph) => graph.tokens <= tokens),
      ...small.filter(isRung),
      ...small,
    ]),
  ];
  let fits = 0;
  let none = ranked.length + 1;
  while (none - fits > 1) {
    const middle = (fits + none) >> 1;
    if (needOf(forecast, ranked.slice(0, middle), tiers) <= headroomBytes) fits = middle;
    else none = middle;
  }
  return ranked.slice(0, fits);
}

/** Powers of two serve every size with at most twice the tokens. */
function isRung({ tokens }: Graph): boolean {
  return Number.isInteger(Math.log2(tokens));
}

function startSet(
  { planned, wanted, forecast }: FitInput,
  kept: readonly Graph[],
  tiers: ReadonlyMap<string, number>,
): Fit {
  const held = new Set(kept);
  const largest = Math.max(0, ...kept.map((graph) => graph.tokens));
  const tops = topGraphs(kept).filter((graph) => graph.tokens === largest);
  const policys = wanted.filter((graph) => held.has(graph));
  // Each top takes the place of one that is too large, so that no limit of the user's is broken.
  const gone = wanted.filter((graph) => !held.has(graph));
  const missing = tops.filter(
    (graph) => !policys.includes(graph) && gone.some((other) => other.kind === graph.kind),
  );
  const graphs = [...missing.slice(0, gone.length), ...policys];
  // A policy that wants everything before ready asks for nothing later.
  const all = wanted.length === planned.length;
  const blocked = planned.filter((graph) => (all ? !held.has(graph) : graph.tokens > largest));
  return { graphs, needBytes: needOf(forecast, graphs, tiers), blocked, tiers };
}

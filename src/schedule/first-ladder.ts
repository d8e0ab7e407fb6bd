/**
 * Which graphs an engine captures first while nothing is known of its traffic or its costs: orders,
 * of which a start takes as many graphs as its budget holds, and fill the rest. The plugin's
 * `local_fill.py` has the same rules, and both are held to test/golden/first-set.json.gz.
 *
 * Steps are taken to be as likely in every octave of sizes, and each octave of padding as dear as
 * the next. So a graph of `s` tokens between captured ones of `r` and `t` spares
 * `log2(s / r) × log2(t / s)`.
 */

import { bySizeDescending, caseKey, type Graph } from "../base/graph.ts";
import { decodeLength, PAD_LIMIT } from "./dispatch.ts";

/**
 * Graphs for decode steps, the most useful one first, without the largest, which comes anyway.
 *
 * Without measured costs every step up to the pad limit may take a graph of that size, and none
 * that is larger: the sizes up to there come first, and the largest of them before all. Where steps
 * are of several cases (with LoRA adapters and without), each has its own order, and they come in
 * turn: one case's graph serves no step of another.
 */
export function firstLadder(planned: readonly Graph[]): Graph[] {
  return inTurnOf(byCase(planned).map(ladderOf));
}

function ladderOf(planned: readonly Graph[]): Graph[] {
  const graphs = bySize(decodeGraphs(planned));
  const top = graphs.pop();
  if (top === undefined) return [];
  const small = graphs.filter(({ tokens }) => tokens <= PAD_LIMIT.tokens);
  const large = graphs.slice(small.length);
  const least = (graphs[0] ?? top).tokens / 2;
  const widest = small.pop();
  if (widest === undefined) return byUse(large, least, top.tokens);
  return [
    widest,
    ...byUse(small, least, widest.tokens),
    ...byUse(large, widest.tokens, top.tokens),
  ];
}

/**
 * The order in which an engine without a controller fills up: small graphs for decode steps, then
 * larger ones and PIECEWISE ones in turn, then what is left. Tops are not in it twice: whoever
 * fills leaves out what is captured. Cases come in turn, as in the ladder.
 */
export function fillOrder(planned: readonly Graph[]): Graph[] {
  return inTurnOf(byCase(planned).map(fillOf));
}

function fillOf(planned: readonly Graph[]): Graph[] {
  const ladder = ladderOf(planned);
  const large = ladder.filter(({ tokens }) => tokens > PAD_LIMIT.tokens);
  const small = ladder.filter(({ tokens }) => tokens <= PAD_LIMIT.tokens);
  const piecewise = bySize(planned.filter(({ kind }) => kind === "PIECEWISE"));
  const top = piecewise.pop();
  const least = (piecewise[0]?.tokens ?? 1) / 2;
  const mixed = top === undefined ? [] : byUse(piecewise, least, top.tokens);
  const inTurn: Graph[] = [];
  for (let index = 0; index < Math.max(large.length, mixed.length); index++) {
    inTurn.push(...mixed.slice(index, index + 1), ...large.slice(index, index + 1));
  }
  return [...new Set([...small, ...inTurn, ...[...planned].sort(bySizeDescending)])];
}

/** The plan of each case, the case with fewer adapters first. */
function byCase(planned: readonly Graph[]): Graph[][] {
  const cases = new Map<string, Graph[]>();
  for (const graph of planned) {
    const key = caseKey(graph);
    const graphs = cases.get(key);
    if (graphs === undefined) cases.set(key, [graph]);
    else graphs.push(graph);
  }
  const first = (graphs: readonly Graph[]): readonly number[] => {
    const { loras = 0, queryLength = 0, microbatches = 1 } = graphs[0] ?? {};
    return [loras, queryLength, microbatches];
  };
  return [...cases.values()].sort((a, b) => {
    const [one, other] = [first(a), first(b)];
    const differs = one.findIndex((value, index) => value !== other[index]);
    return differs < 0 ? 0 : (one[differs] ?? 0) - (other[differs] ?? 0);
  });
}

function inTurnOf(orders: readonly (readonly Graph[])[]): Graph[] {
  const [only, ...others] = orders;
  if (others.length === 0) return [...(only ?? [])];
  const longest = Math.max(...orders.map(({ length }) => length));
  const turns = Array.from({ length: longest }, (_, at) => at);
  return turns.flatMap((at) => orders.flatMap((order) => order.slice(at, at + 1)));
}

/** FULL graphs for uniform decode steps; where there are none, others that serve these. */
function decodeGraphs(planned: readonly Graph[]): Graph[] {
  const decode = decodeLength(planned);
  const full = planned.filter(({ kind }) => kind === "FULL");
  const uniform = full.filter((graph) => graph.uniform === decode);
  if (uniform.length > 0) return uniform;
  const mixed = full.filter((graph) => graph.uniform === undefined);
  return mixed.length > 0 ? mixed : planned.filter(({ kind }) => kind === "PIECEWISE");
}

function bySize(graphs: readonly Graph[]): Graph[] {
  return [...graphs].sort((a, b) => a.tokens - b.tokens);
}

/** Graphs between two captured sizes, and which of them spares the most. */
interface Gap {
  /** Places among the graphs, from the first to before the last. */
  readonly from: number;
  readonly to: number;
  readonly below: number;
  readonly above: number;
  readonly best: number;
  readonly spared: number;
}

/** Two graphs that spare as much but for rounding: then the larger one leads. */
const TIE = 1e-9;

/**
 * Each next one by what it spares given those before it.
 *
 * @param graphs by rising size, all between `below` and `above`
 */
function byUse(graphs: readonly Graph[], below: number, above: number): Graph[] {
  const ordered: Graph[] = [];
  const gaps = openGap(graphs, 0, graphs.length, below, above);
  while (gaps.length > 0) {
    let widest = 0;
    for (const [index, { spared, best }] of gaps.entries()) {
      const leader = gaps[widest];
      if (leader === undefined || spared < leader.spared - TIE) continue;
      if (spared > leader.spared + TIE || best > leader.best) widest = index;
    }
    const [gap] = gaps.splice(widest, 1);
    const graph = graphs[gap?.best ?? -1];
    if (gap === undefined || graph === undefined) break;
    ordered.push(graph);
    gaps.push(...openGap(graphs, gap.from, gap.best, gap.below, graph.tokens));
    gaps.push(...openGap(graphs, gap.best + 1, gap.to, graph.tokens, gap.above));
  }
  return ordered;
}

/** What is spared is the most at the mean in octaves: the best graph is next to it. */
function openGap(
  graphs: readonly Graph[],
  from: number,
  to: number,
  below: number,
  above: number,
): Gap[] {
  if (from >= to) return [];
  const sparedBy = (place: number): number => {
    const tokens = graphs[place]?.tokens ?? below;
    return Math.log2(tokens / below) * Math.log2(above / tokens);
  };
  const mean = Math.sqrt(below * above);
  let low = from;
  let high = to;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((graphs[middle]?.tokens ?? 0) < mean) low = middle + 1;
    else high = middle;
  }
  const larger = Math.min(low, to - 1);
  const smaller = Math.max(low - 1, from);
  const best = sparedBy(larger) >= sparedBy(smaller) - TIE ? larger : smaller;
  return [{ from, to, below, above, best, spared: sparedBy(best) }];
}

/**
 * Tiers: sizes that share a memory pool, so that they can be given up together.
 *
 * A pool returns its memory only when its last graph is gone, and its size is set by its largest
 * graph: on a Llama-3.1-8B all graphs up to 64 tokens take 62 MiB, up to 128 122, up to 256 about
 * 210 and up to 512 about 930. So the tiers end where sizes double.
 */

import { bySizeDescending, type Graph } from "../base/graph.ts";
import type { EngineState } from "../schedule/state.ts";

/** Also the graphs that no engine should be without, which the plugin keeps memory for. */
export const FIRST_TIER_TOKENS = 64;
/** The pool of graphs in no tier. */
export const DEFAULT_POOL = -1;
const NONE: ReadonlySet<string> = new Set();

/** The number of each graph's tier, from the smallest sizes up; sizes without graphs have none. */
export function tiersOf(planned: readonly Graph[]): ReadonlyMap<string, number> {
  const ends = [...new Set(planned.map((graph) => tierEnd(graph.tokens)))].sort((a, b) => a - b);
  return new Map(planned.map((graph) => [graph.id, ends.indexOf(tierEnd(graph.tokens))]));
}

function tierEnd(tokens: number): number {
  let end = FIRST_TIER_TOKENS;
  while (end < tokens) end *= 2;
  return end;
}

/** As the start message lists them: the largest graph of each tier first. */
export function tierLists(
  planned: readonly Graph[],
  tiers: ReadonlyMap<string, number>,
): readonly (readonly string[])[] {
  const lists: Graph[][] = [];
  for (const graph of planned) {
    const tier = tiers.get(graph.id);
    if (tier === undefined) continue;
    lists[tier] ??= [];
    lists[tier]?.push(graph);
  }
  return lists.map((list) => list.sort(bySizeDescending).map((graph) => graph.id));
}

/**
 * Tokens of the largest captured graph in each pool.
 *
 * @param except graphs that don't count. @default none
 */
export function poolTops(
  state: EngineState,
  tiers: ReadonlyMap<string, number>,
  except: ReadonlySet<string> = NONE,
): Map<number, number> {
  const tops = new Map<number, number>();
  /** Of the pool of nearly all engines, put down in the end: they are asked for every capture. */
  let top = 0;
  for (const { graph, status } of state.graphs.values()) {
    if (status !== "captured" || except.has(graph.id)) continue;
    const pool = tiers.size === 0 ? DEFAULT_POOL : (tiers.get(graph.id) ?? DEFAULT_POOL);
    if (pool === DEFAULT_POOL) top = Math.max(top, graph.tokens);
    else tops.set(pool, Math.max(tops.get(pool) ?? 0, graph.tokens));
  }
  if (top > 0) tops.set(DEFAULT_POOL, top);
  return tops;
}

/**
 * The captured tier that served and was wanted least, all of its captured graphs; of equals the
 * one with the largest sizes, which gives the most back.
 */
export function leastValuable(
  state: EngineState,
  tiers: ReadonlyMap<string, number>,
): readonly Graph[] {
  const captured = new Map<number, { graphs: Graph[]; value: number }>();
  for (const { graph, status, replays, wanted } of state.graphs.values()) {
    if (status !== "captured") continue;
    const tier = tiers.get(graph.id);
    if (tier === undefined) continue;
    const entry = captured.get(tier) ?? { graphs: [], value: 0 };
    entry.graphs.push(graph);
    entry.value += replays + wanted;
    captured.set(tier, entry);
  }
  const [least] = [...captured].sort(([a, one], [b, other]) => one.value - other.value || b - a);
  return least?.[1].graphs ?? [];
}

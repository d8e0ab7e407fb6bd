/**
 * The dispatch table: which captured graph serves a step of n tokens.
 *
 * A step may be padded to a larger graph, but not too far: on an 8B a step padded up to 64 tokens
 * is still far cheaper than an ungraphed one, while 1 token padded to 512 costs 2.7 times as much.
 * The size that stock would take is always allowed: whoever planned sizes far apart wanted that, and
 * a graph that traffic earned must be able to serve it.
 */

import { covers, type Graph, type StepShape } from "../base/graph.ts";
import type { DispatchTable, TableRow } from "./policy.ts";

export interface PadLimit {
  /** A step of any size may be padded up to this many tokens. */
  readonly tokens: number;
  /** Above, a step of n tokens may be padded up to this multiple of n. */
  readonly factor: number;
}

export const PAD_LIMIT: PadLimit = { tokens: 64, factor: 1.25 };

/** Candidates a row may hold; the engine takes the first that covers the step. */
export const ROW_GRAPHS_MAX = 64;
/** Rows of one table, as the protocol allows. */
const ROWS_MAX = 4096;

/** The largest graph that may serve a step of `tokens` tokens. */
export function paddedTokensMax(tokens: number, limit: PadLimit): number {
  return Math.max(limit.tokens, Math.floor(tokens * limit.factor));
}

/**
 * @param planned all graphs of the engine: they tell what a uniform decode step looks like
 * @param captured the only graphs the table may name
 */
export function dispatchTable(
  planned: readonly Graph[],
  captured: readonly Graph[],
  limit: PadLimit = PAD_LIMIT,
): DispatchTable {
  const decode = decodeLength(planned);
  const sizes = [...new Set(planned.map((graph) => graph.tokens))].sort((a, b) => a - b);
  const uniform = captured.filter((g) => g.uniform === undefined || g.uniform === decode);
  const mixed = captured.filter((graph) => graph.uniform === undefined);
  const reach: Reach = { limit, sizes };
  return { uniform: rowsOf(uniform, reach, decode), mixed: rowsOf(mixed, reach, 0) };
}

/** How far a step may be padded: as the limit says, and always to the size stock would take. */
interface Reach {
  readonly limit: PadLimit;
  /** All planned sizes, ascending. */
  readonly sizes: readonly number[];
}

/** The graph the engine will replay by this table; the same rule as in the plugin. */
export function dispatch(
  table: DispatchTable,
  graphs: ReadonlyMap<string, Graph>,
  step: StepShape,
): Graph | undefined {
  const isDecode = step.uniform === decodeLength(graphs.values());
  const rows = isDecode ? table.uniform : table.mixed;
  const row = rows.find((entry) => entry.upTo >= step.tokens);
  for (const id of row?.graphs ?? []) {
    const graph = graphs.get(id);
    if (graph !== undefined && covers(graph, step)) return graph;
  }
  return undefined;
}

/** Tokens per request of a uniform decode step: 1, or more with speculative decoding. */
export function decodeLength(planned: Iterable<Graph>): number {
  let length = Number.POSITIVE_INFINITY;
  for (const graph of planned) length = Math.min(length, graph.uniform ?? length);
  return Number.isFinite(length) ? length : 1;
}

function rowsOf(graphs: readonly Graph[], reach: Reach, uniform: number): TableRow[] {
  const sorted = [...graphs].sort(bySizeThenFull);
  const points = breakpoints(sorted, reach);
  const listed = sorted.map((graph) => ({ graph, group: candidateGroup(graph) }));
  const groups = new Set(listed.map(({ group }) => group)).size;
  return joinRows(
    points.map((upTo) => ({ upTo, graphs: candidates({ listed, groups }, upTo, reach, uniform) })),
  );
}

/** Graphs in order of preference, and how many groups they are of. */
interface Listed {
  readonly listed: readonly { readonly graph: Graph; readonly group: string }[];
  readonly groups: number;
}

/** No step may be served by graphs of two groups, so that each has candidates of its own. */
export function candidateGroup({ loras = 0, microbatches = 1 }: Graph): string {
  return `${loras}/${microbatches}`;
}

/** Joins neighbours with the same candidates, and keeps to the protocol's limit. */
export function joinRows(rows: readonly TableRow[]): TableRow[] {
  const joined: TableRow[] = [];
  for (const row of rows) {
    const last = joined.at(-1);
    if (last !== undefined && sameIds(last.graphs, row.graphs)) joined[joined.length - 1] = row;
    else joined.push(row);
  }
  // A row too many is dropped at the large end, where a missing row costs least: those steps run
  // ungraphed, and an ungraphed step of many tokens is hardly slower than a graphed one.
  return joined.slice(0, ROWS_MAX);
}

/** Token counts after which the list of candidates changes, ascending. */
function breakpoints(sorted: readonly Graph[], reach: Reach): number[] {
  const points = new Set<number>();
  for (const { tokens } of sorted) {
    points.add(tokens);
    const first = firstServed(tokens, reach);
    if (first > 1) points.add(first - 1);
  }
  return [...points].sort((a, b) => a - b);
}

/** The smallest step that may be padded up to `tokens`. */
function firstServed(tokens: number, { limit, sizes }: Reach): number {
  if (tokens <= limit.tokens) return 1;
  const below = sizes.findLast((size) => size < tokens) ?? 0;
  let first = Math.max(1, Math.floor(tokens / limit.factor) - 1);
  while (paddedTokensMax(first, limit) < tokens) first += 1;
  return Math.min(first, below + 1);
}

function candidates(
  { listed, groups }: Listed,
  tokens: number,
  { limit, sizes }: Reach,
  uniform: number,
): string[] {
  const stock = sizes.find((size) => size >= tokens) ?? tokens;
  const max = Math.max(paddedTokensMax(tokens, limit), stock);
  const ids: string[] = [];
  const complete = new Set<string>();
  for (const { graph, group } of listed) {
    if (graph.tokens < tokens || complete.has(group)) continue;
    if (graph.tokens > max || ids.length === ROW_GRAPHS_MAX) break;
    ids.push(graph.id);
    if (coversAll(graph, tokens, uniform)) complete.add(group);
    if (complete.size === groups) break;
  }
  return ids;
}

/** Whether it serves every step of the row, so that none after it in its group has its turn. */
function coversAll(graph: Graph, tokens: number, uniform: number): boolean {
  const requestsMax = Math.ceil(tokens / Math.max(1, uniform));
  const anyLength = graph.queryLength === undefined;
  return anyLength && (graph.requests === undefined || graph.requests >= requestsMax);
}

function bySizeThenFull(a: Graph, b: Graph): number {
  if (a.tokens !== b.tokens) return a.tokens - b.tokens;
  if (a.kind !== b.kind) return a.kind === "FULL" ? -1 : 1;
  // Of two FULL graphs of a size the one for fewer shapes of steps is the faster one.
  const any = Number.POSITIVE_INFINITY;
  const narrower = (b.uniform ?? 0) - (a.uniform ?? 0);
  if (narrower !== 0 || a.queryLength === b.queryLength) return narrower;
  return (a.queryLength ?? any) - (b.queryLength ?? any);
}

function sameIds(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((id, index) => id === b[index]);
}

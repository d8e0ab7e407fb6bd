/**
 * The dispatch table by measured cost: for each planned size the captured graphs that beat an
 * ungraphed step, cheapest first. Neither "always pad up" nor "never" is right: on an 8B one size
 * up is free, and 1 token in a graph of 512 takes 2.7 times its own graph's time.
 */

import type { Graph, StepShape } from "../graph.ts";
import type { Costs } from "./cost.ts";
import { decodeLength } from "./dispatch.ts";
import type { DispatchTable, TableRow } from "./policy.ts";

/** Candidates a row may hold. */
const ROW_GRAPHS_MAX = 64;
/** Rows of one table, as the protocol allows. */
const ROWS_MAX = 4096;

export function costDispatchTable(
  planned: readonly Graph[],
  captured: readonly Graph[],
  costs: Costs,
): DispatchTable {
  const uniform = decodeLength(planned);
  return {
    uniform: rows(captured, costs, uniform),
    mixed: rows(captured, costs, 0),
  };
}

function rows(captured: readonly Graph[], costs: Costs, uniform: number): TableRow[] {
  const cheapest = captured
    .filter((graph) => graph.uniform === undefined || graph.uniform === uniform)
    .map((graph) => ({ graph, seconds: costs.graphSeconds(graph).value }))
    .sort((a, b) => a.seconds - b.seconds || a.graph.tokens - b.graph.tokens);
  const table: TableRow[] = [];
  for (const tokens of costs.shapes.sizes) {
    const step = { tokens, requests: Math.ceil(tokens / Math.max(1, uniform)), uniform };
    const graphs = candidates(cheapest, costs.ungraphedSeconds(step).value, step);
    const last = table.at(-1);
    if (last !== undefined && same(last.graphs, graphs)) {
      table[table.length - 1] = { upTo: tokens, graphs };
    } else if (table.length < ROWS_MAX) {
      table.push({ upTo: tokens, graphs });
    }
  }
  // Steps beyond the last row run ungraphed anyway.
  if (table.at(-1)?.graphs.length === 0) table.pop();
  return table;
}

function candidates(
  cheapest: readonly { graph: Graph; seconds: number }[],
  ungraphedSeconds: number,
  step: StepShape,
): string[] {
  const ids: string[] = [];
  for (const { graph, seconds } of cheapest) {
    if (seconds >= ungraphedSeconds || ids.length === ROW_GRAPHS_MAX) break;
    if (graph.tokens < step.tokens) continue;
    ids.push(graph.id);
    // It serves every step of the row, so that no later candidate can have its turn.
    if (graph.requests === undefined || graph.requests >= step.requests) break;
  }
  return ids;
}

function same(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((id, index) => id === b[index]);
}

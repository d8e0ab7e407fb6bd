/**
 * The dispatch table by measured cost: for each planned size the captured graphs that beat an
 * ungraphed step, cheapest first. Neither "always pad up" nor "never" is right: on an 8B one size
 * up is free, and 1 token in a graph of 512 takes 2.7 times its own graph's time.
 */

import type { Graph, StepShape } from "../graph.ts";
import type { Costs } from "./cost.ts";
import { decodeLength, joinRows, ROW_GRAPHS_MAX } from "./dispatch.ts";
import type { DispatchTable, TableRow } from "./policy.ts";

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
  const table = joinRows(
    costs.shapes.sizes.map((tokens) => {
      const step = { tokens, requests: Math.ceil(tokens / Math.max(1, uniform)), uniform };
      return {
        upTo: tokens,
        graphs: candidates(cheapest, costs.ungraphedSeconds(step).value, step),
      };
    }),
  );
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

/** Stock's dispatch: the ideal graph of a step if it is captured, else ungraphed. */

import { type Graph, idealGraph, type StepCase } from "../../../base/graph.ts";
import { distinctCases } from "../../../schedule/cases.ts";
import { decodeLength, ROW_GRAPHS_MAX } from "../../../schedule/dispatch.ts";
import type { DispatchTable, TableRow } from "../../../schedule/policy.ts";

export function exactTable(planned: readonly Graph[], captured: readonly Graph[]): DispatchTable {
  const held = new Set(captured.map((graph) => graph.id));
  const decode = decodeLength(planned);
  const cases = distinctCases(planned);
  const rowsOf = (uniform: number): TableRow[] => rows(planned, cases, held, uniform);
  return { uniform: rowsOf(decode), mixed: rowsOf(0) };
}

function rows(
  planned: readonly Graph[],
  cases: readonly StepCase[],
  held: ReadonlySet<string>,
  uniform: number,
): TableRow[] {
  const sizes = [...new Set(planned.map((graph) => graph.tokens))].sort((a, b) => a - b);
  return sizes.map((tokens) => {
    const requests = uniform > 0 ? Math.ceil(tokens / uniform) : 1;
    const ideals = cases.flatMap(
      (stepCase) => idealGraph(planned, { tokens, requests, uniform, ...stepCase })?.id ?? [],
    );
    const graphs = [...new Set(ideals)].filter((id) => held.has(id)).slice(0, ROW_GRAPHS_MAX);
    return { upTo: tokens, graphs };
  });
}

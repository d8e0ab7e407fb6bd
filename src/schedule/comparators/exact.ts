/** Stock's dispatch: the ideal graph of a step if it is captured, else ungraphed. */

import { type Graph, idealGraph } from "../../graph.ts";
import { decodeLength } from "../dispatch.ts";
import type { DispatchTable, TableRow } from "../policy.ts";

export function exactTable(planned: readonly Graph[], captured: readonly Graph[]): DispatchTable {
  const held = new Set(captured.map((graph) => graph.id));
  const decode = decodeLength(planned);
  return { uniform: rows(planned, held, decode), mixed: rows(planned, held, 0) };
}

function rows(planned: readonly Graph[], held: ReadonlySet<string>, uniform: number): TableRow[] {
  const sizes = [...new Set(planned.map((graph) => graph.tokens))].sort((a, b) => a - b);
  return sizes.map((tokens) => {
    const requests = uniform > 0 ? Math.ceil(tokens / uniform) : 1;
    const ideal = idealGraph(planned, { tokens, requests, uniform });
    return { upTo: tokens, graphs: ideal !== undefined && held.has(ideal.id) ? [ideal.id] : [] };
  });
}

/** The engine's side of the dispatch table: the rule of `Dispatch` in src/wire/protocol.ts. */

import { covers, type Graph, type StepShape } from "../../base/graph.ts";
import { decodeLength } from "../../schedule/dispatch.ts";
import type { DispatchTable, TableRow } from "../../schedule/policy.ts";

const NONE: readonly Graph[] = [];

/**
 * For every number of tokens the captured graphs of its row, in order of preference. Compiled when
 * the table or the captured set changes, so that a step costs one look-up.
 */
export class CompiledDispatch {
  #uniform: readonly (readonly Graph[])[] = [];
  #mixed: readonly (readonly Graph[])[] = [];
  #decode = 1;

  compile(table: DispatchTable, captured: ReadonlyMap<string, Graph>): void {
    this.#uniform = compileRows(table.uniform, captured);
    this.#mixed = compileRows(table.mixed, captured);
    this.#decode = decodeLength([...captured.values()]);
  }

  /** The graph that serves this step; undefined: ungraphed. */
  pick(step: StepShape): Graph | undefined {
    const rows = step.uniform === this.#decode ? this.#uniform : this.#mixed;
    const candidates = step.tokens < rows.length ? (rows[step.tokens] ?? NONE) : NONE;
    for (const graph of candidates) {
      if (covers(graph, step)) return graph;
    }
    return undefined;
  }
}

function compileRows(
  rows: readonly TableRow[],
  captured: ReadonlyMap<string, Graph>,
): (readonly Graph[])[] {
  const compiled: (readonly Graph[])[] = [];
  for (const row of [...rows].sort((a, b) => a.upTo - b.upTo)) {
    const graphs = row.graphs.flatMap((id) => captured.get(id) ?? []);
    while (compiled.length <= row.upTo) compiled.push(graphs);
  }
  return compiled;
}

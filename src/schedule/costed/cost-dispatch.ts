/**
 * The dispatch table by measured cost: for each planned size the captured graphs that beat an
 * ungraphed step, cheapest first. Neither "always pad up" nor "never" is right: on an 8B one size
 * up is free, and 1 token in a graph of 512 takes 2.7 times its own graph's time.
 */

import type { Graph } from "../../base/graph.ts";
import { candidateGroup, joinRows, ROW_GRAPHS_MAX } from "../dispatch.ts";
import type { DispatchTable, TableRow } from "../policy.ts";
import type { Costs } from "./cost.ts";

interface Priced {
  readonly graph: Graph;
  readonly seconds: number;
}

export function costDispatchTable(captured: readonly Graph[], costs: Costs): DispatchTable {
  return { uniform: rows(captured, costs, costs.shapes.decode), mixed: rows(captured, costs, 0) };
}

/**
 * From the largest size down: a graph comes in with its own size, and pushes out all of its group
 * that are neither cheaper nor serve more steps. So the candidates of each row are at hand.
 */
function rows(captured: readonly Graph[], costs: Costs, uniform: number): TableRow[] {
  const { sizes, places } = costs.shapes;
  const priced = captured
    .filter((graph) => graph.uniform === undefined || graph.uniform === uniform)
    .map((graph) => ({
      graph,
      seconds: costs.graphSecondsByPlace[places.get(graph.id) ?? -1] ?? Number.POSITIVE_INFINITY,
    }))
    .sort((a, b) => b.graph.tokens - a.graph.tokens);
  const ungraphed = costs.ungraphedBySize(uniform > 0);
  const table: TableRow[] = [];
  const fronts = new Map<string, readonly Priced[]>();
  let next = 0;
  for (let size = sizes.length - 1; size >= 0; size--) {
    const tokens = sizes[size] ?? 0;
    for (; (priced[next]?.graph.tokens ?? 0) >= tokens; next++) {
      const entering = priced[next];
      if (entering === undefined) continue;
      const group = candidateGroup(entering.graph);
      fronts.set(group, enter(fronts.get(group) ?? [], entering));
    }
    const requests = Math.ceil(tokens / Math.max(1, uniform));
    const graphs: string[] = [];
    for (const [group, front] of fronts) {
      const reached = front.slice(0, reach(front, requests));
      addCandidates(reached, ungraphed[size] ?? 0, graphs);
      fronts.set(group, reached);
    }
    table.push({ upTo: tokens, graphs });
  }
  const joined = joinRows(table.reverse());
  // Steps beyond the last row run ungraphed anyway.
  if (joined.at(-1)?.graphs.length === 0) joined.pop();
  return joined;
}

/** The front with one graph more, cheapest first; of two as cheap the later, smaller one leads. */
function enter(front: readonly Priced[], entering: Priced): readonly Priced[] {
  const kept: Priced[] = [];
  let at = 0;
  for (; at < front.length; at++) {
    const other = front[at] as Priced;
    if (other.seconds >= entering.seconds) break;
    if (servesAsMuch(other, entering)) return front;
    kept.push(other);
  }
  kept.push(entering);
  for (; at < front.length; at++) {
    const other = front[at] as Priced;
    if (!servesAsMuch(entering, other)) kept.push(other);
  }
  return kept;
}

/**
 * How many of a front can have their turn in rows up to this one: the first that serves every step
 * of the row serves those of smaller ones, too.
 */
function reach(front: readonly Priced[], requests: number): number {
  const last = front.findIndex(
    (priced) => priced.graph.queryLength === undefined && requestsMax(priced) >= requests,
  );
  return last === -1 ? front.length : last + 1;
}

/** Those that beat an ungraphed step, as far as the row has room for them. */
function addCandidates(front: readonly Priced[], ungraphed: number, graphs: string[]): void {
  for (const { graph, seconds } of front) {
    if (seconds >= ungraphed || graphs.length === ROW_GRAPHS_MAX) return;
    graphs.push(graph.id);
  }
}

/** Whether one graph serves all requests and lengths of them that another of its group does. */
function servesAsMuch(one: Priced, other: Priced): boolean {
  const lengthMax = ({ graph }: Priced): number => graph.queryLength ?? Number.POSITIVE_INFINITY;
  return requestsMax(one) >= requestsMax(other) && lengthMax(one) >= lengthMax(other);
}

function requestsMax({ graph }: Priced): number {
  return graph.requests ?? Number.POSITIVE_INFINITY;
}

/**
 * The dispatch table by measured cost: for each planned size the captured graphs that beat an
 * ungraphed step, cheapest first. Neither "always pad up" nor "never" is right: on an 8B one size
 * up is free, and 1 token in a graph of 512 takes 2.7 times its own graph's time.
 */

import type { Graph } from "../../base/graph.ts";
import { candidateGroup, joinRows, ROW_GRAPHS_MAX } from "../dispatch.ts";
import type { DispatchTable, TableRow } from "../policy.ts";
import type { Costs } from "./cost.ts";
import type { Shapes } from "./shapes.ts";

/** What of a plan holds for each of its tables: a filling engine has a new one for every graph. */
interface Order {
  /** Places in the plan, those of the largest graphs first. */
  readonly places: Int32Array;
  /** The group of each place. */
  readonly groups: Int32Array;
}

/** Captured graphs of one group that may have their turn, cheapest first, by their places. */
interface Front {
  readonly group: number;
  readonly places: number[];
}

const orders = new WeakMap<Shapes, Order>();

/** @param captured graphs of the plan that the costs are of */
export function costDispatchTable(captured: readonly Graph[], costs: Costs): DispatchTable {
  const { planned, places, decode } = costs.shapes;
  const isCaptured = new Uint8Array(planned.length);
  for (const { id } of captured) isCaptured[places.get(id) ?? -1] = 1;
  return { uniform: rows(isCaptured, costs, decode), mixed: rows(isCaptured, costs, 0) };
}

function orderOf(shapes: Shapes): Order {
  let order = orders.get(shapes);
  if (order === undefined) {
    const { planned } = shapes;
    const sorted = planned.map((_, place) => place);
    sorted.sort((a, b) => (planned[b]?.tokens ?? 0) - (planned[a]?.tokens ?? 0));
    const names = planned.map(candidateGroup);
    const known = [...new Set(names)];
    order = {
      places: Int32Array.from(sorted),
      groups: Int32Array.from(names, (name) => known.indexOf(name)),
    };
    orders.set(shapes, order);
  }
  return order;
}

/**
 * From the largest size down: a graph comes in with its own size, and pushes out all of its group
 * that are neither cheaper nor serve more steps. So the candidates of each row are at hand.
 */
function rows(isCaptured: Uint8Array, costs: Costs, uniform: number): TableRow[] {
  const { shapes } = costs;
  const { sizes, planned } = shapes;
  const { places, groups } = orderOf(shapes);
  const ungraphed = costs.ungraphedBySize(uniform > 0);
  const table: TableRow[] = [];
  /** In the order in which their first graphs came. */
  const fronts: Front[] = [];
  const ids: string[] = [];
  let next = 0;
  for (let size = sizes.length - 1; size >= 0; size--) {
    const tokens = sizes[size] ?? 0;
    for (; next < places.length; next++) {
      const place = places[next] ?? 0;
      const graph = planned[place] as Graph;
      if (graph.tokens < tokens) break;
      const serves = graph.uniform === undefined || graph.uniform === uniform;
      if (serves && isCaptured[place] === 1)
        enter(frontOf(fronts, groups[place] ?? 0), place, costs);
    }
    const requests = Math.ceil(tokens / Math.max(1, uniform));
    cut(ids, 0);
    for (const front of fronts) {
      cut(front.places, reach(front.places, planned, requests));
      addCandidates(front.places, costs, ungraphed[size] ?? 0, ids);
    }
    // The larger row stands for this one as well where both have the same.
    if (!sameIds(table.at(-1)?.graphs, ids)) table.push({ upTo: tokens, graphs: [...ids] });
  }
  const joined = joinRows(table.reverse());
  // Steps beyond the last row run ungraphed anyway.
  if (joined.at(-1)?.graphs.length === 0) joined.pop();
  return joined;
}

function frontOf(fronts: Front[], group: number): number[] {
  for (const front of fronts) if (front.group === group) return front.places;
  const places: number[] = [];
  fronts.push({ group, places });
  return places;
}

/** Takes in one graph more, cheapest first; of two as cheap the later, smaller one leads. */
function enter(front: number[], entering: number, costs: Costs): void {
  const { planned } = costs.shapes;
  const seconds = costs.graphSecondsByPlace;
  const graph = planned[entering] as Graph;
  let at = 0;
  for (; at < front.length; at++) {
    const other = front[at] as number;
    if ((seconds[other] ?? 0) >= (seconds[entering] ?? 0)) break;
    if (servesAsMuch(planned[other] as Graph, graph)) return;
  }
  let kept = at;
  for (let index = at; index < front.length; index++) {
    const other = front[index] as number;
    if (!servesAsMuch(graph, planned[other] as Graph)) front[kept++] = other;
  }
  cut(front, kept);
  front.splice(at, 0, entering);
}

/**
 * How many of a front can have their turn in rows up to this one: the first that serves every step
 * of the row serves those of smaller ones, too.
 */
function reach(front: readonly number[], planned: readonly Graph[], requests: number): number {
  for (let index = 0; index < front.length; index++) {
    const graph = planned[front[index] as number] as Graph;
    if (graph.queryLength === undefined && requestsMax(graph) >= requests) return index + 1;
  }
  return front.length;
}

/** Those that beat an ungraphed step, as far as the row has room for them. */
function addCandidates(
  front: readonly number[],
  { graphSecondsByPlace, shapes }: Costs,
  ungraphed: number,
  ids: string[],
): void {
  for (const place of front) {
    const beats = (graphSecondsByPlace[place] ?? 0) < ungraphed;
    if (!beats || ids.length === ROW_GRAPHS_MAX) return;
    ids.push((shapes.planned[place] as Graph).id);
  }
}

/** Its first entries; a list of a few is popped sooner than its length is set. */
function cut(list: unknown[], length: number): void {
  while (list.length > length) list.pop();
}

function sameIds(one: readonly string[] | undefined, other: readonly string[]): boolean {
  if (one === undefined || one.length !== other.length) return false;
  for (let index = 0; index < one.length; index++) if (one[index] !== other[index]) return false;
  return true;
}

/** Whether one graph serves all requests and lengths of them that another of its group does. */
function servesAsMuch(one: Graph, other: Graph): boolean {
  return requestsMax(one) >= requestsMax(other) && lengthMax(one) >= lengthMax(other);
}

function requestsMax({ requests = Number.POSITIVE_INFINITY }: Graph): number {
  return requests;
}

function lengthMax({ queryLength = Number.POSITIVE_INFINITY }: Graph): number {
  return queryLength;
}

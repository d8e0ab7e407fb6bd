/**
 * Which decode graphs are of use to the batch that runs now.
 *
 * While a backlog goes, the batch falls through one size after the other. What it has left behind
 * has earned its price by then, and the falling price makes it look due; but nothing is lost by
 * waiting, since no step that comes next would take it, and a stall is the cheaper the fewer are
 * left.
 */

import type { Savings } from "./savings.ts";
import type { Held } from "./shapes.ts";

/**
 * Of decode graphs only: prompts of any length may come at any time.
 *
 * @param running requests in the batch
 * @param decode tokens of each in a decode step
 * @returns whether a missing graph, by its place in the plan, is faster for it than what it has
 */
export function ofUseTo(
  running: number,
  { savings, held, decode }: { savings: Savings; held: Held; decode: number },
): (place: number) => boolean {
  const { shapes } = savings.costs;
  let faster: ReadonlySet<number> | undefined;
  return (place) => {
    if (shapes.planned[place]?.uniform === undefined) return true;
    // Most decisions ask of none.
    faster ??= fasterFor(Math.max(1, running), savings, held, decode);
    return faster.has(place);
  };
}

function fasterFor(running: number, savings: Savings, held: Held, decode: number): Set<number> {
  const { shapes, graphSecondsByPlace } = savings.costs;
  const tokens = running * decode;
  const lane = shapes.laneOf({ tokens, requests: running, uniform: decode });
  const size = shapes.sizeOf(tokens);
  const available = savings.lane(lane, held).available[size] ?? 0;
  const faster = new Set<number>();
  for (const [at, place] of lane.places.entries()) {
    const serves = (lane.reach[at] ?? -1) >= size;
    if (serves && (graphSecondsByPlace[place] ?? available) < available) faster.add(place);
  }
  return faster;
}

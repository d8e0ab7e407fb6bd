/**
 * How far the heap of a process of ours grows between full collections of garbage.
 *
 * V8 lets a heap that it takes for a quiet one's grow by 30% only. A controller that fills many
 * engines then collects all of it every four seconds, and while that lasts, on a single core for a
 * tenth of a second, frames wait. This lets it grow by as much as V8 lets a busy one's.
 */

import { setFlagsFromString } from "node:v8";

/** Of what was alive after the last full collection: up to three times of that in all. */
export const HEAP_GROWTH_PERCENT = 200;
const FLAG = "--heap-growing-percent";

/**
 * The flags of V8 to set; none where the process was started with one for it.
 *
 * @param given options that Node was started with, as `process.execArgv`
 */
export function heapGrowthFlags(given: readonly string[]): readonly string[] {
  // V8 takes either spelling.
  const isGiven = given.some((flag) => flag.replaceAll("_", "-").startsWith(FLAG));
  return isGiven ? [] : [`${FLAG}=${HEAP_GROWTH_PERCENT}`];
}

/**
 * For a process that is a controller and nothing else: a gateway's heap is the gateway's business.
 * Of V8's flags for this it is the one that may be set in a running process, being read anew each
 * time a limit is computed; others, of the collector's threads above all, end it with a fault.
 */
export function growHeap(): void {
  for (const flag of heapGrowthFlags(process.execArgv)) setFlagsFromString(flag);
}

/**
 * What reports of many engines will be about, read before the first is handled. Of that many
 * engines nobody's cache holds any, and most of a report's time is waiting for memory, one place
 * after the other, since each tells where the next is. Several engines' places are waited for at
 * once: so all engines' first ones are read, then all engines' second ones. Nothing is changed, and
 * what was not read ahead is read when its turn comes.
 */

import type { WritableState } from "../schedule/state.ts";
import type { EngineRecord } from "./record.ts";

/** What was read comes to a number of no meaning: a reading of which nothing comes is left out. */
const read = new Float64Array(1);

export function prefetch(records: readonly EngineRecord[]): void {
  let sum = 0;
  for (const { state, course } of records) {
    if (state?.ready === true) sum += state.running;
    if (course.closed) sum += 1;
  }
  for (const { course } of records) sum += course.plan?.prefetch() ?? 0;
  for (const { state, course } of records) {
    const { plan } = course;
    if (plan === undefined || state === undefined) continue;
    sum += plan.prefetchGraphs((state as WritableState).entries);
  }
  read[0] = sum;
}

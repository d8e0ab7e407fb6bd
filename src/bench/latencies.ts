/** Inter-token latencies: millions, each kept for exact figures. */

import type { RequestRecord } from "./samples.ts";

/** Milliseconds between all events with content. */
export function itlMs(requests: readonly RequestRecord[]): Float64Array {
  const count = requests.reduce((sum, { itlMicros }) => sum + itlMicros.length, 0);
  const all = new Float64Array(count);
  let at = 0;
  for (const { itlMicros } of requests) {
    for (const micros of itlMicros) all[at++] = micros / 1000;
  }
  return all;
}

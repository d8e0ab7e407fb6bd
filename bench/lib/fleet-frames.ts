/** Frames of the simulated engines of `npm run bench:fleet` and `npm run bench:frame`. */

import { Packr } from "msgpackr";
import type { Graph } from "../../src/base/graph.ts";
import type { FromEngine, StepCount } from "../../src/wire/protocol.ts";

// As the wire has it; `at` is what the fleet's probe reads.
const packr = new Packr({ useRecords: false, variableMapSize: true });

/** vLLM's default on a large GPU: 51 sizes up to 512, of both kinds. */
export const SIZES: readonly number[] = [
  ...[1, 2, 4],
  ...Array.from({ length: 31 }, (_, n) => 8 * (n + 1)),
  ...Array.from({ length: 17 }, (_, n) => 16 * (n + 16)),
];
export const GRAPHS: readonly Graph[] = SIZES.flatMap((tokens) => [
  { id: `FULL:${tokens}`, kind: "FULL" as const, tokens, requests: tokens, uniform: 1 },
  { id: `PIECEWISE:${tokens}`, kind: "PIECEWISE" as const, tokens },
]);

/** A frame whose last eight bytes are for the time at which it is sent. */
export function packed(message: FromEngine): Buffer {
  // A float64 in the last place: 0.5 has no shorter form, and is written over before each sending.
  return Buffer.from(packr.pack({ ...message, at: 0.5 }));
}

/** Steps of one tenth of a second: three shapes of decode steps, and a mixed one. */
const STEPS: readonly StepCount[] = [
  [7, 7, 1, 9],
  [8, 8, 1, 6],
  [9, 9, 1, 3],
  [300, 9, 0, 1],
].map(([tokens = 0, requests = 0, uniform = 0, count = 0]) => ({
  tokens,
  requests,
  uniform,
  served: `${uniform === 1 ? "FULL" : "PIECEWISE"}:${SIZES.find((size) => size >= tokens)}`,
  count,
  seconds: 0.0055 * count,
  timed: count,
  contextTokens: 800,
}));

/** One tenth of a second: no two batches take the same time, so that costs are learned all along. */
export function telemetry(sequence: number): Buffer {
  const noise = 0.95 + 0.1 * Math.random();
  const steps = STEPS.map((step) => ({ ...step, seconds: step.seconds * noise }));
  return packed({ type: "telemetry", sequence, dropped: 0, steps, running: 9, waiting: 0 });
}

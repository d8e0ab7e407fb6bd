/**
 * What a request takes outside the engine, out of what a client saw and what the steps took. Pure.
 *
 * A prompt that is sent alone and answered by one token takes one step: what its client waits
 * longer is HTTP, the tokenizer, messages between processes and the way back.
 */

import { quantile } from "../measure/statistics.ts";
import { promptPairs, type StepEstimates } from "./estimate.ts";
import type { TimedWave } from "./waves.ts";

/** Median over the sizes whose step is known; undefined where none is. */
export function frontEndSeconds(
  waves: readonly TimedWave[],
  steps: StepEstimates,
): number | undefined {
  const outside = waves.flatMap(({ wave, seconds }) => {
    const { table, requests, promptTokens, outputTokens } = wave;
    if (table !== "exact" || requests !== 1 || outputTokens !== 1) return [];
    const cell = steps.piecewise.find(({ tokens }) => tokens === promptTokens);
    if (cell === undefined || seconds.length === 0) return [];
    const pairs = promptPairs({ tokens: promptTokens, contextTokens: promptTokens });
    const step =
      cell.median + (steps.secondsPerRequest ?? 0) + (steps.secondsPerPromptPair ?? 0) * pairs;
    return [quantile(seconds, 0.5) - step];
  });
  return outside.length === 0 ? undefined : Math.max(0, quantile(outside, 0.5));
}

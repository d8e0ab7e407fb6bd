/** A profile's measurements as the policy's first estimates. */

import type { CostSeed } from "../schedule/cost.ts";
import type { Profile } from "./profile.ts";

export function costSeedOf({ steps, captures }: Profile): CostSeed {
  const [lastTokens, lastSeconds] = steps.ungraphed.at(-1) ?? [0, 0];
  const largest = Math.max(0, ...captures.costs.map(({ graph }) => graph.tokens));
  // The policy knows rows only: one more row stands for the slope beyond the table.
  const beyond = Math.max(largest, lastTokens + 1);
  const beyondSeconds = lastSeconds + (beyond - lastTokens) * steps.secondsPerTokenBeyond;
  return {
    full: steps.full,
    piecewise: steps.piecewise,
    ungraphed: [...steps.ungraphed, [beyond, beyondSeconds]],
    secondsPerRequest: steps.secondsPerRequest,
    secondsPerContextToken: steps.secondsPerContextToken,
    captures: new Map(
      captures.costs.map(({ graph, laterMs, bytes }) => [
        graph.id,
        { seconds: laterMs / 1000, bytes },
      ]),
    ),
  };
}

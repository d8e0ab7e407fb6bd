/** A profile's measurements as the policy's first estimates. */

import type { CostSeed } from "../schedule/costed/cost.ts";
import type { Profile } from "./profile.ts";

export function costSeedOf({ steps, captures }: Profile): CostSeed {
  const [lastTokens, lastSeconds] = steps.ungraphed.at(-1) ?? [0, 0];
  const largest = Math.max(0, ...captures.costs.map(({ graph }) => graph.tokens));
  // The policy knows rows only: one more row stands for the slope beyond the table.
  const beyond = Math.max(largest, lastTokens + 1);
  const beyondSeconds = lastSeconds + (beyond - lastTokens) * steps.secondsPerTokenBeyond;
  // Before ready the warm-up runs of all but the first graph are left out.
  const beforeMs = captures.costs.reduce((sum, cost) => sum + cost.warmMs + cost.captureMs, 0);
  const laterMs = captures.costs.reduce((sum, cost) => sum + cost.laterMs, 0);
  const share = laterMs > 0 ? beforeMs / laterMs : 1;
  return {
    full: steps.full,
    piecewise: steps.piecewise,
    ungraphed: [...steps.ungraphed, [beyond, beyondSeconds]],
    secondsPerRequest: steps.secondsPerRequest,
    secondsPerContextToken: steps.secondsPerContextToken,
    beforeReadyShare: share * captures.withoutWarmUp,
    warmUpShare: share * (1 - captures.withoutWarmUp),
    captures: new Map(
      captures.costs.map(({ graph, laterMs }) => [graph.id, { seconds: laterMs / 1000 }]),
    ),
  };
}

/**
 * What an engine's timed steps took, over what a profile says of them. Attention is left out on the
 * profile's side, because a report tells no prompt's length: true ratios are a little lower.
 */

import type { CellRun } from "../src/bench/samples.ts";
import { quantile } from "../src/measure/statistics.ts";
import type { Profile } from "../src/profile/profile.ts";
import { createCostModel } from "../src/sim/model/cost.ts";

export interface StepRatios {
  readonly steps: string;
  readonly count: number;
  readonly q1: number;
  readonly median: number;
  readonly q3: number;
}

/** Fewer steps of a kind tell nothing. */
const STEPS_MIN = 20;
const TOKENS_BETWEEN = [512, 1400, 3000] as const;

export function stepRatios(runs: readonly CellRun[], profile: Profile): StepRatios[] {
  const costs = createCostModel(profile);
  const graphs = new Map(profile.captures.costs.map(({ graph }) => [graph.id, graph]));
  const ratios = new Map<string, number[]>();
  for (const { served, tokens, requests, count, seconds } of runs.flatMap(stepsOf)) {
    const graph = graphs.get(served);
    // Seconds of one step alone: of several that a report adds up, some may be of another report.
    if (count !== 1 || !(seconds > 0) || (served !== "" && graph === undefined)) continue;
    const work = { tokens, requests, contextTokens: 0, promptPairs: 0 };
    const kind = kindOf(graph?.kind, tokens);
    if (kind === undefined) continue;
    const list = ratios.get(kind) ?? [];
    list.push(seconds / costs.stepSeconds(graph, work));
    ratios.set(kind, list);
  }
  return [...ratios]
    .filter(([, values]) => values.length >= STEPS_MIN)
    .map(([steps, values]) => {
      const at = (share: number): number => quantile(values, share);
      return { steps, count: values.length, q1: at(0.25), median: at(0.5), q3: at(0.75) };
    })
    .sort((a, b) => a.steps.localeCompare(b.steps));
}

function stepsOf({ steps }: CellRun): CellRun["steps"][number]["steps"] {
  return steps.flatMap((batch) => batch.steps);
}

/** Undefined of a step that decodes without a graph, or whose cost hangs on its context alone. */
function kindOf(kind: "FULL" | "PIECEWISE" | undefined, tokens: number): string | undefined {
  if (kind === "FULL") return undefined;
  if (kind === "PIECEWISE") return "prompts in a PIECEWISE graph";
  const [top, middle, long] = TOKENS_BETWEEN;
  if (tokens <= top) return undefined;
  if (tokens <= middle) return `prompts without a graph, above ${top} to ${middle} tokens`;
  if (tokens <= long) return `prompts without a graph, above ${middle} to ${long} tokens`;
  return `prompts without a graph, above ${long} tokens`;
}

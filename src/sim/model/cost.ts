/** What a step takes, from a profile: tables once per profile, additions per step. */

import type { Graph } from "../../base/graph.ts";
import type { CaptureCost, CostRow, Profile } from "../../profile/profile.ts";

/** One step's work, as far as its cost depends on it. */
export interface StepWork {
  tokens: number;
  requests: number;
  /** Sum over decoding requests of the tokens each attends to. */
  contextTokens: number;
  /** Sum over prompts of (new tokens × tokens each attends to). */
  promptPairs: number;
}

export interface CostModel {
  /** Seconds of a step served by `graph`, or ungraphed. */
  stepSeconds(graph: Graph | undefined, work: StepWork): number;
  /**
   * Seconds for which the engine launches a step served by `graph`, or ungraphed, and does nothing
   * else. A graph of the whole step is one launch, and counts as none.
   */
  launchSeconds(graph: Graph | undefined): number;
  /** Seconds of capturing `graph` before ready, with or without its warm-up run. */
  startSeconds(graph: Graph, warmUp: boolean): number;
  /** Seconds of capturing `graph` between two steps. */
  laterSeconds(graph: Graph): number;
}

export function createCostModel(profile: Profile): CostModel {
  const { steps, captures } = profile;
  const full = tabulate(steps.full);
  const piecewise = tabulate(steps.piecewise);
  const ungraphed = tabulate(steps.ungraphed);
  const ungraphedMax = ungraphed.length - 1;
  // Launches bound a small step that is not one graph: the smallest row is what they take.
  const launch = {
    FULL: 0,
    PIECEWISE: Math.min(...steps.piecewise.map(([, seconds]) => seconds)),
    ungraphed: Math.min(...steps.ungraphed.map(([, seconds]) => seconds)),
  };
  const { tensorParallel, pipelineParallel } = profile.engine;
  const inOneProcess = tensorParallel * pipelineParallel === 1;
  const costs = new Map(captures.costs.map((cost) => [cost.graph.id, cost]));
  const costOf = (graph: Graph): CaptureCost => {
    const cost = costs.get(graph.id);
    if (cost === undefined) throw new RangeError(`The profile has no graph ${graph.id}.`);
    return cost;
  };
  return {
    stepSeconds(graph, work) {
      let base: number;
      if (graph === undefined) {
        const beyond = Math.max(0, work.tokens - ungraphedMax);
        base = (ungraphed[work.tokens - beyond] ?? 0) + beyond * steps.secondsPerTokenBeyond;
      } else {
        base = (graph.kind === "FULL" ? full : piecewise)[graph.tokens] ?? 0;
      }
      return (
        base +
        work.requests * steps.secondsPerRequest +
        work.contextTokens * steps.secondsPerContextToken +
        work.promptPairs * steps.secondsPerPromptPair
      );
    },
    // Several ranks are processes of their own, which launch while the engine schedules on.
    launchSeconds: (graph) => (inOneProcess ? launch[graph?.kind ?? "ungraphed"] : 0),
    startSeconds(graph, warmUp) {
      const cost = costOf(graph);
      const ms = cost.warmMs + cost.captureMs;
      return (warmUp ? ms : ms * captures.withoutWarmUp) / 1000;
    },
    laterSeconds: (graph) => costOf(graph).laterMs / 1000,
  };
}

/** Seconds for every number of tokens from 0 to the last row's, interpolated between rows. */
function tabulate(rows: readonly CostRow[]): Float64Array {
  const last = rows.at(-1)?.[0] ?? 0;
  const table = new Float64Array(last + 1);
  let index = 0;
  for (let tokens = 0; tokens <= last; tokens++) {
    while ((rows[index]?.[0] ?? last) < tokens) index++;
    const [upTokens, upSeconds] = rows[index] ?? [last, 0];
    const [downTokens, downSeconds] = rows[index - 1] ?? [upTokens, upSeconds];
    const span = upTokens - downTokens;
    const share = span === 0 ? 0 : (tokens - downTokens) / span;
    table[tokens] = downSeconds + share * (upSeconds - downSeconds);
  }
  return table;
}

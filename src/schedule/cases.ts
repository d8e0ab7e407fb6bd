/**
 * Cases of steps as far as an engine's graphs tell them apart: two steps of one rounded case may
 * be served by the same graphs. So demand has no more cases than the plan, whatever is reported.
 */

import { caseKey, caseOf, type Graph, type StepCase } from "../base/graph.ts";

const PLAIN: StepCase = {};
/** Of steps that no planned graph was made for: no graph has so few adapters. */
const NONE: StepCase = { loras: -1 };

/** The rounding of an engine with these graphs. */
export function caseRounding(planned: readonly Graph[]): (step: StepCase) => StepCase {
  const loras = new Set(planned.map((graph) => graph.loras ?? 0));
  const microbatches = new Set(planned.map((graph) => graph.microbatches ?? 1));
  const lengths = distinct(planned.flatMap(({ queryLength }) => queryLength ?? []));
  const isPlain = loras.has(0) && microbatches.has(1) && lengths.length === 0;
  return (step) => {
    const noAdapters = step.loras === undefined || step.loras === 0;
    // The usual case, in every step that is reported: nothing is made for it.
    if (isPlain && noAdapters && (step.microbatches ?? 1) === 1) return PLAIN;
    if (!loras.has(step.loras ?? 0) || !microbatches.has(step.microbatches ?? 1)) return NONE;
    const { queryLength: longest, ...rest } = caseOf(step);
    const queryLength = lengths.find((length) => longest !== undefined && length >= longest);
    return queryLength === undefined ? rest : { ...rest, queryLength };
  };
}

/**
 * The distinct cases that graphs were captured for, each as a step of it. Shorter queries come
 * first: a graph that bounds them is the better one where it fits.
 */
export function distinctCases(planned: readonly Graph[]): StepCase[] {
  const seen = new Map(planned.map((graph) => [caseKey(graph), caseOf(graph)]));
  const any = Number.MAX_SAFE_INTEGER;
  return [...seen.values()].sort((a, b) => (a.queryLength ?? any) - (b.queryLength ?? any));
}

function distinct(numbers: readonly number[]): number[] {
  return [...new Set(numbers)].sort((a, b) => a - b);
}

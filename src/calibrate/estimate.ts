/**
 * Step costs out of timed steps. Pure.
 *
 *   step = base(what served it) + requests × a + context × b + prompt pairs × c
 *
 * `b` is the slope within steps that differ in their context only; `a` that of steps in one graph
 * that differ in their requests; `c`, with the cost of a token beyond the largest graph, comes from
 * prompts that ran alone. What is left of each step is its base, and a cell's base the median.
 */

import type { Graph } from "../base/graph.ts";
import type { Observation } from "./cells.ts";
import {
  type CellFigures,
  cellFigures,
  type PlanePoint,
  planeSlopes,
  planeThroughOrigin,
  slopeWithin,
  type Weighted,
} from "./robust-fit.ts";

/** The base of one choice at one size. */
export interface CellEstimate extends CellFigures {
  /** A graph's id, or `ungraphed:TOKENS`. */
  readonly cell: string;
  readonly tokens: number;
}

export interface StepEstimates {
  readonly full: readonly CellEstimate[];
  readonly piecewise: readonly CellEstimate[];
  readonly ungraphed: readonly CellEstimate[];
  /** Undefined where no steps tell it. */
  readonly secondsPerRequest: number | undefined;
  readonly secondsPerContextToken: number | undefined;
  readonly secondsPerTokenBeyond: number | undefined;
  readonly secondsPerPromptPair: number | undefined;
}

/** Timed steps below which a cell counts as not measured. */
export const SAMPLES_MIN = 8;
/** Three lengths fit any two slopes and constant: only a further one tells. */
const LENGTHS_MIN = 3;

/** @param decode tokens of each request in a decode step */
export function estimateSteps(
  observations: readonly Observation[],
  planned: readonly Graph[],
  decode: number,
): StepEstimates {
  const graphs = new Map(planned.map((graph) => [graph.id, graph]));
  const tokensMax = Math.max(0, ...planned.map(({ tokens }) => tokens));
  const decodes = observations.filter(({ uniform }) => uniform === decode);
  const prompts = observations.filter((seen) => seen.uniform !== decode && seen.requests === 1);
  const perContext = slopeWithin(
    decodes.map((seen) => ({
      group: `${seen.served} ${seen.tokens}`,
      x: seen.contextTokens * seen.requests,
      y: seen.seconds,
      weight: seen.weight,
    })),
  );
  const withoutContext = (seen: Observation): number =>
    seen.seconds - (perContext ?? 0) * seen.contextTokens * seen.requests;
  const perRequest = slopeWithin(
    decodes
      .filter(({ served }) => served !== "")
      .map((seen) => ({
        group: seen.served,
        x: seen.requests,
        y: withoutContext(seen),
        weight: seen.weight,
      })),
  );
  const decodeBase = (seen: Observation): number =>
    withoutContext(seen) - (perRequest ?? 0) * seen.requests;
  const beyond = beyondOf(decodes, prompts, { tokensMax, decodeBase, perRequest: perRequest ?? 0 });
  const promptBase = (seen: Observation): number =>
    seen.seconds - (perRequest ?? 0) - (beyond?.perPair ?? 0) * promptPairs(seen);
  const decoded = decodes.map((seen) => ({ seen, value: decodeBase(seen) }));
  const prompted = prompts.map((seen) => ({ seen, value: promptBase(seen) }));
  const ofKind = (kind: Graph["kind"]): CellEstimate[] =>
    cellsOf([...decoded, ...prompted], ({ served }) => {
      const graph = graphs.get(served);
      return graph?.kind === kind ? { cell: graph.id, tokens: graph.tokens } : undefined;
    });
  return {
    full: ofKind("FULL"),
    piecewise: ofKind("PIECEWISE"),
    ungraphed: cellsOf([...decoded, ...prompted], ({ served, tokens }) =>
      served === "" && tokens <= tokensMax ? { cell: `ungraphed:${tokens}`, tokens } : undefined,
    ),
    secondsPerRequest: perRequest,
    secondsPerContextToken: perContext,
    secondsPerTokenBeyond: beyond?.perToken,
    secondsPerPromptPair: beyond?.perPair,
  };
}

/** Pairs of a prompt's new tokens and the tokens each attends to, of a step with one prompt. */
export function promptPairs({
  tokens,
  contextTokens,
}: Pick<Observation, "tokens" | "contextTokens">): number {
  const computed = Math.max(0, contextTokens - tokens);
  return tokens * computed + (tokens * (tokens + 1)) / 2;
}

interface BeyondInput {
  readonly tokensMax: number;
  readonly decodeBase: (seen: Observation) => number;
  readonly perRequest: number;
}

/** What a prompt's tokens cost above the largest graph, and its attention. */
function beyondOf(
  decodes: readonly Observation[],
  prompts: readonly Observation[],
  { tokensMax, decodeBase, perRequest }: BeyondInput,
): { perToken: number; perPair: number } | undefined {
  const long = prompts.filter(({ served, tokens }) => served === "" && tokens > tokensMax);
  if (long.length < 2) return undefined;
  // Prompts that run alone meet an idle engine, which prepares their step before the GPU has any
  // work; a busy one does that beside the step before. So they have a constant of their own, which
  // is left out, where there are lengths enough to tell it from the slopes.
  if (new Set(long.map(promptPairs)).size > LENGTHS_MIN) {
    const slopes = planeSlopes(
      long.map((seen) => ({
        x: [seen.tokens, promptPairs(seen)],
        y: seen.seconds,
        weight: seen.weight,
      })),
    );
    if (slopes !== undefined) return { perToken: slopes[0], perPair: slopes[1] };
  }
  // The table's last row is where the slope starts: best known from decode steps, else from the
  // prompts of that size, less what their few pairs take.
  let fit: [number, number] = [0, 0];
  for (let round = 0; round < 3; round++) {
    const last = cellFigures([
      ...atLast(decodes, tokensMax, decodeBase),
      ...atLast(prompts, tokensMax, (p) => p.seconds - perRequest - fit[1] * promptPairs(p)),
    ]);
    if (last === undefined) return undefined;
    const points = long.map((seen): PlanePoint => {
      const x = [seen.tokens - tokensMax, promptPairs(seen)] as const;
      return { x, y: seen.seconds - perRequest - last.median, weight: seen.weight };
    });
    const next = planeThroughOrigin(points);
    if (next === undefined) return undefined;
    fit = next;
  }
  return { perToken: fit[0], perPair: fit[1] };
}

function atLast(
  seen: readonly Observation[],
  tokensMax: number,
  base: (seen: Observation) => number,
): Weighted[] {
  return seen
    .filter(({ served, tokens }) => served === "" && tokens === tokensMax)
    .map((step) => ({ value: base(step), weight: step.weight }));
}

function cellsOf(
  steps: readonly { readonly seen: Observation; readonly value: number }[],
  cellOf: (seen: Observation) => { cell: string; tokens: number } | undefined,
): CellEstimate[] {
  const cells = new Map<string, { tokens: number; values: Weighted[] }>();
  for (const { seen, value } of steps) {
    const at = cellOf(seen);
    if (at === undefined) continue;
    const cell = cells.get(at.cell) ?? { tokens: at.tokens, values: [] };
    cell.values.push({ value, weight: seen.weight });
    cells.set(at.cell, cell);
  }
  const estimates = [...cells].flatMap(([cell, { tokens, values }]) => {
    const figures = cellFigures(values);
    const enough = figures !== undefined && figures.samples >= SAMPLES_MIN && figures.median > 0;
    return enough ? [{ cell, tokens, ...figures }] : [];
  });
  return estimates.sort((a, b) => a.tokens - b.tokens);
}

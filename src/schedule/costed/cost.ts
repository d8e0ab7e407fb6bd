/**
 * What a step takes and what a capture takes, on this engine: seeded from a profile, corrected by
 * what the engine reports, each with an error bar.
 *
 * Every estimate is `seed × exp(correction)`. A correction is learned for each cell (one graph, or
 * ungraphed steps of one planned size) and for each group of cells (FULL, PIECEWISE, ungraphed
 * uniform, ungraphed mixed): a cell that was seen little follows its group, so that a profile of
 * another GPU is set right by the first few steps. The attention over the context and the work per
 * request are taken off first: they cost the same in every graph, and steps early in an engine's
 * life, when contexts are short, would otherwise look cheap.
 */

import type { Graph, StepShape } from "../../base/graph.ts";
import { median } from "../../base/median.ts";
import type { StepsSeen } from "../policy.ts";
import { type CellSeed, Cells, type Estimate, Group } from "./cost-cells.ts";
import { RobustMean } from "./robust.ts";
import { createShapes, type Shapes } from "./shapes.ts";

/** `[tokens, seconds]`, tokens rising; linear between two rows. */
export type SeedRows = readonly (readonly [tokens: number, seconds: number])[];

/** Where the estimates start. */
export interface CostSeed {
  readonly full: SeedRows;
  readonly piecewise: SeedRows;
  readonly ungraphed: SeedRows;
  readonly secondsPerRequest: number;
  readonly secondsPerContextToken: number;
  /** Seconds of one later capture; graphs that are not named take their kind's median. */
  readonly captures: ReadonlyMap<string, { readonly seconds: number }>;
  /** What a capture before ready takes, as a share of a later one's seconds. @default 1 */
  readonly beforeReadyShare?: number;
  /** What a kind's first capture takes more, likewise. @default 0 */
  readonly warmUpShare?: number;
  /** How far off, as a share, the seed may be: small for a profile of this engine. @default 0.15 */
  readonly errorShare?: number;
  /**
   * Of another engine: good for the shape of a cost, and no figure of it before it was measured
   * here. @default false
   */
  readonly foreign?: boolean;
}

export type { Estimate } from "./cost-cells.ts";

export interface Costs {
  readonly shapes: Shapes;
  /** Grows whenever a published estimate of a step moved noticeably. */
  readonly revision: number;
  /** Seconds in `graph`, without the terms that every choice pays alike. */
  graphSeconds(graph: Graph): Estimate;
  /** Seconds of an ungraphed step, likewise. */
  ungraphedSeconds(step: StepShape): Estimate;
  /** The values of both, by place in the plan and by place among the sizes: to be read only. */
  readonly graphSecondsByPlace: Float64Array;
  ungraphedBySize(uniform: boolean): Float64Array;
  captureSeconds(graph: Graph): Estimate;
  /** The values of `captureSeconds` by place in the plan: to be read only. */
  readonly captureSecondsByPlace: Float64Array;
  /** Seconds for each token of context that a request attends to. */
  readonly secondsPerContextToken: number;
  /** Reads what steps are learned by; the number has no meaning (engine/prefetch.ts). */
  prefetch(): number;
  /** @param place of a graph in the plan */
  prefetchGraph(place: number): number;
  /** @param server place in the plan of the graph that served them, where it is known already */
  observeSteps(steps: StepsSeen, server?: number): void;
  observeCapture(graph: Graph, seconds: number): void;
}

const ERROR_SHARE = 0.15;
/** One report counts as at most this many measurements: its steps share their circumstances. */
export const REPORT_WEIGHT_MAX = 8;
/** Steps of up to so many times the largest graph's tokens tell of smaller ones without a graph. */
const BEYOND_FACTOR = 2;
/** What one graph of an 8B took, where the seed knows none of its kind. */
const CAPTURE_SECONDS = 0.03;

export function createCosts(planned: readonly Graph[], seed: CostSeed): Costs {
  return new LearnedCosts(planned, seed);
}

class LearnedCosts implements Costs {
  readonly shapes: Shapes;
  readonly graphSecondsByPlace: Float64Array;
  readonly captureSecondsByPlace: Float64Array;
  revision = 0;
  readonly #seed: CostSeed;
  readonly #share: number;
  /** Those of graphs by place in the plan, then ungraphed ones by size: uniform, then mixed. */
  readonly #cells: Cells;
  readonly #ungraphed: Record<"uniform" | "mixed", Float64Array>;
  readonly #captureGroups: Record<Graph["kind"], RobustMean>;
  readonly #captureMedians: Record<Graph["kind"], number>;
  /** By place in the plan: seconds of each capture that was seen, and those of the seed. */
  readonly #captured: Float64Array;
  /** Of the smallest step beyond the largest graph that was timed. */
  #beyondTokens = Number.POSITIVE_INFINITY;
  readonly #captureSeeds: Float64Array;

  constructor(planned: readonly Graph[], seed: CostSeed) {
    const share = seed.errorShare ?? ERROR_SHARE;
    this.#share = share;
    const mean = (): RobustMean => new RobustMean(share);
    this.shapes = createShapes(planned);
    const { sizes } = this.shapes;
    this.#seed = seed;
    this.#cells = createCells(planned, sizes, seed, share);
    const { published } = this.#cells;
    const [uniform, mixed] = [planned.length, planned.length + sizes.length];
    this.graphSecondsByPlace = published.subarray(0, uniform);
    this.#ungraphed = {
      uniform: published.subarray(uniform, mixed),
      mixed: published.subarray(mixed),
    };
    this.#captureGroups = { FULL: mean(), PIECEWISE: mean() };
    this.#captureMedians = {
      FULL: medianCapture(planned, "FULL", seed),
      PIECEWISE: medianCapture(planned, "PIECEWISE", seed),
    };
    this.#captureSeeds = Float64Array.from(planned, (graph) => this.#captureSeed(graph));
    this.#captured = new Float64Array(planned.length);
    this.captureSecondsByPlace = Float64Array.from(
      planned,
      (graph) => this.captureSeconds(graph).value,
    );
  }

  get secondsPerContextToken(): number {
    return this.#cells.secondsPerContextToken;
  }

  prefetch(): number {
    const { uniform, mixed } = this.#ungraphed;
    return this.revision + this.secondsPerContextToken + (uniform[0] ?? 0) + (mixed[0] ?? 0);
  }

  prefetchGraph(place: number): number {
    return this.#cells.prefetch(place) + (this.graphSecondsByPlace[place] ?? 0);
  }

  graphSeconds(graph: Graph): Estimate {
    const place = this.shapes.places.get(graph.id);
    if (place === undefined) throw new RangeError(`Expected a planned graph, got ${graph.id}.`);
    return this.#cells.estimate(place);
  }

  ungraphedSeconds(step: StepShape): Estimate {
    const cell = this.#ungraphedCell(step);
    if (cell !== undefined) return this.#cells.estimate(cell);
    // Beyond the largest graph nothing is chosen, so nothing is learned or kept.
    const value = Math.max(1e-9, interpolate(this.#seed.ungraphed, step.tokens));
    return { value, error: value * new RobustMean(this.#share).deviation };
  }

  ungraphedBySize(uniform: boolean): Float64Array {
    return uniform ? this.#ungraphed.uniform : this.#ungraphed.mixed;
  }

  captureSeconds(graph: Graph): Estimate {
    const known = this.#captured[this.shapes.places.get(graph.id) ?? -1] ?? 0;
    const group = this.#captureGroups[graph.kind];
    if (known > 0) return { value: known, error: known * group.error };
    const value = this.#captureSeed(graph) * Math.exp(group.mean);
    return { value, error: value * group.deviation };
  }

  observeSteps(steps: StepsSeen, server = this.shapes.places.get(steps.served) ?? -1): void {
    if (!(steps.timed > 0)) return;
    if (steps.tokens > this.shapes.tokensMax) {
      this.#observeBeyond(steps);
      return;
    }
    // Undefined for a graph that is not in the plan.
    const graph = server === -1 ? undefined : server;
    const cell = steps.served === "" ? this.#ungraphedCell(steps) : graph;
    if (cell === undefined) return;
    const { perStep, context } = this.#perStep(steps);
    const weight = Math.min(REPORT_WEIGHT_MAX, steps.timed);
    // Of uniform steps alone: prompts cost otherwise.
    if (steps.uniform > 0) this.#cells.observeContext(cell, weight, context, perStep);
    const base = perStep - context * this.secondsPerContextToken;
    // A step that took less than its context alone was not timed right.
    if (!(base > 0)) return;
    if (this.#cells.observe(cell, Math.log(base / this.#cells.seed(cell)), weight)) this.revision++;
  }

  /**
   * Nothing can be chosen for steps beyond the largest graph, and they would only blur the rest. But
   * on an engine that nobody knows the smallest of them are the first to run without a graph, and
   * maybe the only ones: others are never tried while they are taken to be slow.
   */
  #observeBeyond(steps: StepsSeen): void {
    const { planned, sizes, tokensMax } = this.shapes;
    const least = Math.min(this.#beyondTokens, BEYOND_FACTOR * tokensMax + 1);
    if (this.#seed.foreign !== true || steps.tokens >= least) return;
    const { perStep, context } = this.#perStep(steps);
    const base = perStep - context * this.secondsPerContextToken;
    if (!(base > 0)) return;
    this.#beyondTokens = steps.tokens;
    const off = Math.log(base / interpolate(this.#seed.ungraphed, steps.tokens));
    for (const cell of [planned.length, planned.length + sizes.length]) {
      if (this.#cells.hint(cell, off)) this.revision++;
    }
  }

  /** Seconds without the work per request, and the tokens of context in all. */
  #perStep(steps: StepsSeen): { readonly perStep: number; readonly context: number } {
    const perStep = steps.seconds / steps.timed - steps.requests * this.#seed.secondsPerRequest;
    return { perStep, context: steps.contextTokens * steps.requests };
  }

  observeCapture(graph: Graph, seconds: number): void {
    const seen = this.shapes.places.get(graph.id);
    if (seen === undefined || !(seconds > 0) || (this.#captured[seen] ?? 0) > 0) return;
    this.#captured[seen] = seconds;
    const group = this.#captureGroups[graph.kind];
    group.add(Math.log(seconds / (this.#captureSeeds[seen] ?? 0)));
    const correction = Math.exp(group.mean);
    const { planned } = this.shapes;
    for (let place = 0; place < planned.length; place++) {
      if (planned[place]?.kind !== graph.kind) continue;
      const known = this.#captured[place] ?? 0;
      const expected = known > 0 ? known : (this.#captureSeeds[place] ?? 0) * correction;
      this.captureSecondsByPlace[place] = expected;
    }
  }

  /** Undefined beyond the largest graph. */
  #ungraphedCell(step: StepShape): number | undefined {
    const { sizes, planned } = this.shapes;
    const size = this.shapes.sizeOf(step.tokens);
    if (size >= sizes.length) return undefined;
    return planned.length + size + (this.shapes.isUniform(step) ? 0 : sizes.length);
  }

  #captureSeed(graph: Graph): number {
    return this.#seed.captures.get(graph.id)?.seconds ?? this.#captureMedians[graph.kind];
  }
}

function createCells(
  planned: readonly Graph[],
  sizes: readonly number[],
  { full, piecewise, ungraphed, foreign = false, secondsPerContextToken }: CostSeed,
  share: number,
): Cells {
  const groups = { FULL: new Group(share, foreign), PIECEWISE: new Group(share, foreign) };
  const graphs = planned.map(({ kind, tokens }): CellSeed => {
    const rows = kind === "FULL" ? full : piecewise;
    return { seed: interpolate(rows, tokens), tokens, group: groups[kind] };
  });
  // Launches bound an ungraphed step: on every engine it takes about the same at any size.
  const bySize = (group: Group): CellSeed[] =>
    sizes.map((tokens) => ({ seed: interpolate(ungraphed, tokens), tokens, group }));
  const uniform = bySize(new Group(share));
  const mixed = bySize(new Group(share));
  return new Cells([...graphs, ...uniform, ...mixed], secondsPerContextToken);
}

/** Not the mean, because a top graph's seconds hold a compilation. */
function medianCapture(
  planned: readonly Graph[],
  kind: Graph["kind"],
  { captures }: CostSeed,
): number {
  const known = planned.flatMap((graph) =>
    graph.kind === kind ? (captures.get(graph.id)?.seconds ?? []) : [],
  );
  return median(known) ?? CAPTURE_SECONDS;
}

/** Linear between rows, and on from the last two beyond them. */
export function interpolate(rows: SeedRows, tokens: number): number {
  const [first] = rows;
  if (first === undefined) return 0;
  if (rows.length === 1 || tokens <= first[0]) return first[1];
  let up = rows.findIndex((row) => row[0] >= tokens);
  if (up === -1) up = rows.length - 1;
  const [upTokens, upSeconds] = rows[up] ?? first;
  const [downTokens, downSeconds] = rows[up - 1] ?? first;
  const slope = (upSeconds - downSeconds) / (upTokens - downTokens);
  return downSeconds + slope * (tokens - downTokens);
}

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
import { Cell, type Estimate, Group, publish } from "./cost-cells.ts";
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
  /** @param server place in the plan of the graph that served them, where it is known already */
  observeSteps(steps: StepsSeen, server?: number): void;
  observeCapture(graph: Graph, seconds: number): void;
}

const ERROR_SHARE = 0.15;
/** One report counts as at most this many measurements: its steps share their circumstances. */
const REPORT_WEIGHT_MAX = 8;
/** What one graph of an 8B took, where the seed knows none of its kind. */
const CAPTURE_SECONDS = 0.03;
/** Strength of the seed of the context term, in squared tokens of context. */
const CONTEXT_PRIOR = 16 * 4096 ** 2;

export function createCosts(planned: readonly Graph[], seed: CostSeed): Costs {
  return new LearnedCosts(planned, seed);
}

class LearnedCosts implements Costs {
  readonly shapes: Shapes;
  readonly graphSecondsByPlace: Float64Array;
  readonly captureSecondsByPlace: Float64Array;
  revision = 0;
  secondsPerContextToken: number;
  readonly #seed: CostSeed;
  readonly #share: number;
  readonly #groups: Record<"FULL" | "PIECEWISE" | "uniform" | "mixed", Group>;
  readonly #captureGroups: Record<Graph["kind"], RobustMean>;
  readonly #captureMedians: Record<Graph["kind"], number>;
  readonly #served: readonly Cell[];
  readonly #ungraphed: Record<"uniform" | "mixed", readonly Cell[]>;
  readonly #ungraphedSeconds: Record<"uniform" | "mixed", Float64Array>;
  /** Seconds, by id. */
  readonly #captured = new Map<string, number>();
  /** By place in the plan: seconds of each capture that was seen, and those of the seed. */
  readonly #capturedByPlace: Float64Array;
  readonly #captureSeeds: Float64Array;
  #contextSquares = CONTEXT_PRIOR;
  #contextProducts: number;

  constructor(planned: readonly Graph[], seed: CostSeed) {
    const share = seed.errorShare ?? ERROR_SHARE;
    this.#share = share;
    const mean = (): RobustMean => new RobustMean(share);
    this.shapes = createShapes(planned);
    const { sizes } = this.shapes;
    this.#seed = seed;
    const group = (ownShape = false): Group => new Group(share, ownShape);
    const { foreign = false } = seed;
    this.#groups = {
      FULL: group(foreign),
      PIECEWISE: group(foreign),
      // Launches bound an ungraphed step: on every engine it takes about the same at any size.
      uniform: group(),
      mixed: group(),
    };
    this.#captureGroups = { FULL: mean(), PIECEWISE: mean() };
    this.#captureMedians = {
      FULL: medianCapture(planned, "FULL", seed),
      PIECEWISE: medianCapture(planned, "PIECEWISE", seed),
    };
    this.graphSecondsByPlace = new Float64Array(planned.length);
    this.#served = planned.map(({ kind, tokens }, place) => {
      const rows = kind === "FULL" ? seed.full : seed.piecewise;
      const from = { seed: interpolate(rows, tokens), tokens };
      return new Cell(from, this.#groups[kind], this.graphSecondsByPlace, place);
    });
    this.#ungraphedSeconds = {
      uniform: new Float64Array(sizes.length),
      mixed: new Float64Array(sizes.length),
    };
    const ungraphed = (name: "uniform" | "mixed"): Cell[] =>
      sizes.map((tokens, size) => {
        const from = { seed: interpolate(seed.ungraphed, tokens), tokens };
        return new Cell(from, this.#groups[name], this.#ungraphedSeconds[name], size);
      });
    this.#ungraphed = { uniform: ungraphed("uniform"), mixed: ungraphed("mixed") };
    this.#captureSeeds = Float64Array.from(planned, (graph) => this.#captureSeed(graph));
    this.#capturedByPlace = new Float64Array(planned.length);
    this.captureSecondsByPlace = Float64Array.from(
      planned,
      (graph) => this.captureSeconds(graph).value,
    );
    this.secondsPerContextToken = seed.secondsPerContextToken;
    this.#contextProducts = CONTEXT_PRIOR * seed.secondsPerContextToken;
  }

  graphSeconds(graph: Graph): Estimate {
    return this.#servedCell(graph).estimate();
  }

  ungraphedSeconds(step: StepShape): Estimate {
    return this.#ungraphedCell(step).estimate();
  }

  ungraphedBySize(uniform: boolean): Float64Array {
    return this.#ungraphedSeconds[uniform ? "uniform" : "mixed"];
  }

  captureSeconds(graph: Graph): Estimate {
    const known = this.#captured.get(graph.id);
    const group = this.#captureGroups[graph.kind];
    if (known !== undefined) return { value: known, error: known * group.error };
    const value = this.#captureSeed(graph) * Math.exp(group.mean);
    return { value, error: value * group.deviation };
  }

  observeSteps(steps: StepsSeen, server = this.shapes.places.get(steps.served) ?? -1): void {
    // Nothing can be chosen for steps beyond the largest graph: they would only blur the rest.
    if (!(steps.timed > 0) || steps.tokens > this.shapes.tokensMax) return;
    // Undefined for a graph that is not in the plan.
    const cell = steps.served === "" ? this.#ungraphedCell(steps) : this.#served[server];
    if (cell === undefined) return;
    const perStep = steps.seconds / steps.timed - steps.requests * this.#seed.secondsPerRequest;
    const context = steps.contextTokens * steps.requests;
    this.#learnContext(cell, steps, context, perStep);
    const base = perStep - context * this.secondsPerContextToken;
    // A step that took less than its context alone was not timed right.
    if (!(base > 0)) return;
    const off = Math.log(base / cell.seed);
    const weight = Math.min(REPORT_WEIGHT_MAX, steps.timed);
    cell.own.add(off, weight);
    cell.group.off.add(off, weight / 2);
    if (publish(cell)) this.revision++;
  }

  observeCapture(graph: Graph, seconds: number): void {
    if (!(seconds > 0) || this.#captured.has(graph.id)) return;
    this.#captured.set(graph.id, seconds);
    this.#capturedByPlace[this.shapes.places.get(graph.id) ?? -1] = seconds;
    this.#captureGroups[graph.kind].add(Math.log(seconds / this.#captureSeed(graph)));
    const correction = Math.exp(this.#captureGroups[graph.kind].mean);
    const { planned } = this.shapes;
    for (let place = 0; place < planned.length; place++) {
      if (planned[place]?.kind !== graph.kind) continue;
      const known = this.#capturedByPlace[place] ?? 0;
      const expected = known > 0 ? known : (this.#captureSeeds[place] ?? 0) * correction;
      this.captureSecondsByPlace[place] = expected;
    }
  }

  /** The slope of seconds over context within cells of uniform steps: prompts cost otherwise. */
  #learnContext(cell: Cell, steps: StepsSeen, context: number, seconds: number): void {
    if (steps.uniform === 0) return;
    const weight = Math.min(REPORT_WEIGHT_MAX, steps.timed);
    const { deviation } = cell.own;
    const expected = cell.current() + context * this.secondsPerContextToken;
    const limit = 3 * deviation * expected;
    const clipped = Math.max(expected - limit, Math.min(expected + limit, seconds));
    cell.seen = Math.min(64, cell.seen + weight);
    const share = weight / cell.seen;
    const contextOff = context - cell.contextMean;
    const secondsOff = clipped - cell.secondsMean;
    cell.contextMean += share * contextOff;
    cell.secondsMean += share * secondsOff;
    if (share >= 1) return;
    this.#contextSquares += weight * contextOff * (context - cell.contextMean);
    this.#contextProducts += weight * contextOff * (clipped - cell.secondsMean);
    this.secondsPerContextToken = Math.max(0, this.#contextProducts / this.#contextSquares);
  }

  #servedCell(graph: Graph): Cell {
    const cell = this.#served[this.shapes.places.get(graph.id) ?? -1];
    if (cell === undefined) throw new RangeError(`Expected a planned graph, got ${graph.id}.`);
    return cell;
  }

  #ungraphedCell(step: StepShape): Cell {
    const name = this.shapes.isUniform(step) ? "uniform" : "mixed";
    const cell = this.#ungraphed[name][this.shapes.sizeOf(step.tokens)];
    if (cell !== undefined) return cell;
    // Beyond the largest graph nothing is chosen, so nothing is learned or kept.
    const from = { seed: interpolate(this.#seed.ungraphed, step.tokens), tokens: step.tokens };
    return new Cell(from, new Group(this.#share), new Float64Array(1), 0);
  }

  #captureSeed(graph: Graph): number {
    return this.#seed.captures.get(graph.id)?.seconds ?? this.#captureMedians[graph.kind];
  }
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

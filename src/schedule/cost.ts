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

import type { Graph, StepShape } from "../graph.ts";
import { alongCurve, type Point } from "./curve.ts";
import type { StepsSeen } from "./policy.ts";
import { RobustMean } from "./robust.ts";
import { createShapes, type Shapes } from "./shapes.ts";

export interface Estimate {
  readonly value: number;
  /** Standard error, in the unit of the value. */
  readonly error: number;
}

/** `[tokens, seconds]`, tokens rising; linear between two rows. */
export type SeedRows = readonly (readonly [tokens: number, seconds: number])[];

/** Where the estimates start. */
export interface CostSeed {
  readonly full: SeedRows;
  readonly piecewise: SeedRows;
  readonly ungraphed: SeedRows;
  readonly secondsPerRequest: number;
  readonly secondsPerContextToken: number;
  /** Seconds and bytes of one later capture; graphs that are not named take their kind's mean. */
  readonly captures: ReadonlyMap<string, { readonly seconds: number; readonly bytes: number }>;
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
  captureBytes(graph: Graph): Estimate;
  /** Seconds for each token of context that a request attends to. */
  readonly secondsPerContextToken: number;
  observeSteps(steps: StepsSeen): void;
  observeCapture(graph: Graph, seconds: number, bytes: number): void;
}

const ERROR_SHARE = 0.15;
/** Measurements of its own after which a cell counts as much as its group. */
const CELL_PRIOR = 8;
/** One report counts as at most this many measurements: its steps share their circumstances. */
const REPORT_WEIGHT_MAX = 8;
/** Published estimates follow in steps of this share, so that tables don't change with noise. */
const PUBLISH_SHARE = 0.02;
/** A correction beyond this factor, either way, is a broken clock and not a cost. */
const CORRECTION_MAX = Math.log(20);
/** Graphs of no size at all have a ratio to nothing: both sides get this much. */
const BYTES_FLOOR = 1 << 20;
/** Strength of the seed of the context term, in squared tokens of context. */
const CONTEXT_PRIOR = 16 * 4096 ** 2;

/** What cells of one kind have in common. */
class Group {
  readonly off: RobustMean;
  readonly cells: Cell[] = [];
  /** The common correction that the published estimates hold. */
  publishedOff = 0;
  /** The measured cells by rising size, where the seed's shape is another engine's; else none. */
  points: Point[] = [];
  largest: Cell | undefined;
  readonly #ownShape: boolean;

  constructor(deviation: number, ownShape = false) {
    this.off = new RobustMean(deviation);
    this.#ownShape = ownShape;
  }

  /** Measured cells give the shape; true where that is of use to the others. */
  reshape(): boolean {
    if (!this.#ownShape) return false;
    const measured = this.cells.filter((cell) => cell.measured);
    measured.sort((a, b) => a.tokens - b.tokens);
    this.points = measured.map((cell) => ({ tokens: cell.tokens, seconds: cell.current() }));
    this.largest = measured.at(-1);
    return true;
  }
}

class Cell {
  readonly seed: number;
  readonly tokens: number;
  readonly group: Group;
  readonly own: RobustMean;
  /** Means of context and of seconds over its steps: the context term is the slope within cells. */
  contextMean = 0;
  secondsMean = 0;
  seen = 0;
  readonly #published: Float64Array;
  readonly #place: number;

  /** What it publishes goes into `published[place]`, where others read it without a look-up. */
  constructor(
    { seed, tokens }: { seed: number; tokens: number },
    group: Group,
    published: Float64Array,
    place: number,
  ) {
    this.seed = Math.max(1e-9, seed);
    this.tokens = tokens;
    this.group = group;
    this.own = new RobustMean(group.off.deviation);
    this.#published = published;
    this.#place = place;
    published[place] = this.seed;
    group.cells.push(this);
  }

  get published(): number {
    return this.#published[this.#place] ?? this.seed;
  }

  set published(seconds: number) {
    this.#published[this.#place] = seconds;
  }

  get measured(): boolean {
    return this.own.weight > 0;
  }

  current(): number {
    if (this.measured || this.group.largest === undefined) return this.#corrected();
    const { points, largest } = this.group;
    if (this.tokens <= largest.tokens) return alongCurve(points, this.tokens) ?? this.#corrected();
    // Above, work grows as on any engine.
    return (largest.current() * this.seed) / largest.seed;
  }

  #corrected(): number {
    const share = this.own.weight / (this.own.weight + CELL_PRIOR);
    const correction = share * this.own.mean + (1 - share) * this.group.off.mean;
    return this.seed * Math.exp(Math.max(-CORRECTION_MAX, Math.min(CORRECTION_MAX, correction)));
  }

  estimate(): Estimate {
    const share = this.own.weight / (this.own.weight + CELL_PRIOR);
    // What the group can't know: how far this cell lies from it.
    const error = Math.hypot(share * this.own.error, (1 - share) * this.group.off.deviation);
    return { value: this.published, error: this.published * error };
  }
}

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
  readonly #bytesGroups: Record<Graph["kind"], RobustMean>;
  readonly #captureMeans: Record<Graph["kind"], { seconds: number; bytes: number }>;
  readonly #served: readonly Cell[];
  readonly #ungraphed: Record<"uniform" | "mixed", readonly Cell[]>;
  readonly #ungraphedSeconds: Record<"uniform" | "mixed", Float64Array>;
  readonly #captured = new Map<string, { seconds: number; bytes: number }>();
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
    this.#bytesGroups = { FULL: mean(), PIECEWISE: mean() };
    this.#captureMeans = {
      FULL: meanCapture(planned, "FULL", seed),
      PIECEWISE: meanCapture(planned, "PIECEWISE", seed),
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
    if (known !== undefined) return { value: known.seconds, error: known.seconds * group.error };
    const value = this.#captureSeed(graph).seconds * Math.exp(group.mean);
    return { value, error: value * group.deviation };
  }

  captureBytes(graph: Graph): Estimate {
    const known = this.#captured.get(graph.id);
    if (known !== undefined) return { value: known.bytes, error: 0 };
    const group = this.#bytesGroups[graph.kind];
    const { bytes } = this.#captureSeed(graph);
    const scaled = (bytes + BYTES_FLOOR) * Math.exp(group.mean);
    return { value: Math.max(0, scaled - BYTES_FLOOR), error: scaled * group.deviation };
  }

  observeSteps(steps: StepsSeen): void {
    // Nothing can be chosen for steps beyond the largest graph: they would only blur the rest.
    if (!(steps.timed > 0) || steps.tokens > this.shapes.tokensMax) return;
    const cell = this.#cellOf(steps);
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
    this.#publish(cell);
  }

  observeCapture(graph: Graph, seconds: number, bytes: number): void {
    if (!(seconds > 0) || !(bytes >= 0) || this.#captured.has(graph.id)) return;
    const expected = this.#captureSeed(graph);
    this.#captured.set(graph.id, { seconds, bytes });
    this.#captureGroups[graph.kind].add(Math.log(seconds / expected.seconds));
    const ratio = (bytes + BYTES_FLOOR) / (expected.bytes + BYTES_FLOOR);
    this.#bytesGroups[graph.kind].add(Math.log(ratio));
    this.shapes.planned.forEach((other, place) => {
      if (other.kind !== graph.kind) return;
      this.captureSecondsByPlace[place] = this.captureSeconds(other).value;
    });
  }

  /** Whose measurement this is; undefined for a graph that is not in the plan. */
  #cellOf(steps: StepsSeen): Cell | undefined {
    if (steps.served === "") return this.#ungraphedCell(steps);
    return this.#served[this.shapes.places.get(steps.served) ?? -1];
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

  /** Publishes what moved noticeably: this cell, and with their group all that hang on it. */
  #publish(touched: Cell): void {
    const { group } = touched;
    const groupMoved = Math.abs(group.off.mean - group.publishedOff) > PUBLISH_SHARE / 2;
    if (groupMoved) group.publishedOff = group.off.mean;
    let moved = false;
    const cellMoved =
      Math.abs(touched.current() - touched.published) > PUBLISH_SHARE * touched.published;
    const reshaped = (groupMoved || cellMoved) && group.reshape();
    for (const cell of groupMoved || reshaped ? group.cells : [touched]) {
      const current = cell.current();
      if (Math.abs(current - cell.published) <= PUBLISH_SHARE * cell.published) continue;
      cell.published = current;
      moved = true;
    }
    if (moved) this.revision++;
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

  #captureSeed(graph: Graph): { seconds: number; bytes: number } {
    return this.#seed.captures.get(graph.id) ?? this.#captureMeans[graph.kind];
  }
}

/** The median, because a top graph's bytes are the pool's and its seconds hold a compilation. */
function meanCapture(
  planned: readonly Graph[],
  kind: Graph["kind"],
  { captures }: CostSeed,
): { seconds: number; bytes: number } {
  const known = planned.flatMap((graph) =>
    graph.kind === kind ? (captures.get(graph.id) ?? []) : [],
  );
  const median = (values: number[]): number | undefined =>
    values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
  return {
    // What one graph of an 8B took, where the seed knows none of this kind.
    seconds: median(known.map(({ seconds }) => seconds)) ?? 0.03,
    bytes: median(known.map(({ bytes }) => bytes)) ?? 4 * BYTES_FLOOR,
  };
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

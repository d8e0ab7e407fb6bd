/**
 * Cells of the cost model: what one graph takes, or ungraphed steps of one planned size, each with a
 * correction of its own to the seed, and groups of them with one in common.
 *
 * An engine has some 200 of them, a gateway a thousand engines: cells are rows of numbers in one
 * array and known by their places, since objects would be most of what the garbage collector has to
 * go through.
 */

import { alongCurve, type Point } from "./curve.ts";
import { addRobust, ROBUST, RobustMean, robustError, startRobust } from "./robust.ts";

export interface Estimate {
  readonly value: number;
  /** Standard error, in the unit of the value. */
  readonly error: number;
}

/** Measurements of its own after which a cell counts as much as its group. */
const CELL_PRIOR = 8;
/** A correction beyond this factor, either way, is a broken clock and not a cost. */
const CORRECTION_MAX = Math.log(20);
/** Published estimates follow in steps of this share, so that tables don't change with noise. */
const PUBLISH_SHARE = 0.02;
/** Strength of the seed of the context term, in squared tokens of context. */
const CONTEXT_PRIOR = 16 * 4096 ** 2;
/** Measurements that a cell's means of context and of seconds remember. */
const CONTEXT_MEMORY = 64;

/** Where a cell's numbers are, from its first one on; its own correction's begin at `own`. */
const ROW = { seed: 0, tokens: 1, own: 2, context: 5, seconds: 6, seen: 7, numbers: 8 } as const;

/** What cells of one kind have in common. */
export class Group {
  readonly off: RobustMean;
  /** The common correction until one of its cells was measured: what steps of no cell tell. */
  hint = 0;
  /** The common correction that the published estimates hold. */
  publishedOff = 0;
  /** The measured cells by rising size, where the seed's shape is another engine's; else none. */
  points: Point[] = [];
  /** The largest of them. */
  largest: number | undefined;
  /** Whether measured cells give the shape. */
  readonly ownShape: boolean;

  constructor(deviation: number, ownShape = false) {
    this.off = new RobustMean(deviation);
    this.ownShape = ownShape;
  }

  /** The common correction by all that is known. */
  get common(): number {
    return this.off.weight > 0 ? this.off.mean : this.hint;
  }
}

/** Where a cell's estimates start. */
export interface CellSeed {
  readonly seed: number;
  readonly tokens: number;
  readonly group: Group;
}

export class Cells {
  /** Seconds of each cell as others know them: to be read only. */
  readonly published: Float64Array;
  /** Seconds for each token of context that a request attends to: the slope within cells. */
  secondsPerContextToken: number;
  readonly #rows: Float64Array;
  readonly #groups: readonly Group[];
  /** Which group each cell is of. */
  readonly #groupAt: Uint8Array;
  #contextSquares = CONTEXT_PRIOR;
  #contextProducts: number;

  constructor(seeds: readonly CellSeed[], secondsPerContextToken: number) {
    this.secondsPerContextToken = secondsPerContextToken;
    this.#contextProducts = CONTEXT_PRIOR * secondsPerContextToken;
    this.published = new Float64Array(seeds.length);
    this.#rows = new Float64Array(seeds.length * ROW.numbers);
    this.#groups = [...new Set(seeds.map(({ group }) => group))];
    this.#groupAt = Uint8Array.from(seeds, ({ group }) => this.#groups.indexOf(group));
    for (const [cell, { seed, tokens, group }] of seeds.entries()) {
      const row = cell * ROW.numbers;
      this.#rows[row + ROW.seed] = Math.max(1e-9, seed);
      this.#rows[row + ROW.tokens] = tokens;
      startRobust(this.#rows, row + ROW.own, group.off.deviation);
      this.published[cell] = Math.max(1e-9, seed);
    }
  }

  seed(cell: number): number {
    return this.#number(cell, ROW.seed);
  }

  /** Seconds, by all that is known now. */
  current(cell: number): number {
    const { points, largest } = this.#groupOf(cell);
    if (this.#isMeasured(cell) || largest === undefined) return this.#corrected(cell);
    const tokens = this.#number(cell, ROW.tokens);
    if (tokens <= this.#number(largest, ROW.tokens)) {
      return alongCurve(points, tokens) ?? this.#corrected(cell);
    }
    // Above, work grows as on any engine.
    return (this.current(largest) * this.seed(cell)) / this.seed(largest);
  }

  estimate(cell: number): Estimate {
    const share = this.#ownShare(cell);
    const own = robustError(this.#rows, cell * ROW.numbers + ROW.own);
    // What the group can't know: how far this cell lies from it.
    const error = Math.hypot(share * own, (1 - share) * this.#groupOf(cell).off.deviation);
    const value = this.published[cell] ?? 0;
    return { value, error: value * error };
  }

  /**
   * Takes in how far a step was off the cell's seed, as the logarithm of the factor.
   *
   * @returns whether published estimates have moved
   */
  observe(cell: number, off: number, weight: number): boolean {
    addRobust(this.#rows, cell * ROW.numbers + ROW.own, off, weight);
    this.#groupOf(cell).off.add(off, weight / 2);
    return this.#publish(cell);
  }

  /**
   * Takes in how far steps of no cell were off the seed, for a cell's whole group: until one of it
   * was measured.
   *
   * @returns whether published estimates have moved
   */
  hint(cell: number, off: number): boolean {
    const group = this.#groupOf(cell);
    group.hint = off;
    return group.off.weight === 0 && this.#publish(cell);
  }

  /**
   * Takes in the seconds of steps with so much context.
   *
   * @param weight measurements that they stand for
   */
  observeContext(cell: number, weight: number, context: number, seconds: number): void {
    const row = cell * ROW.numbers;
    const expected = this.current(cell) + context * this.secondsPerContextToken;
    const limit = 3 * this.#number(cell, ROW.own + ROBUST.deviation) * expected;
    const clipped = Math.max(expected - limit, Math.min(expected + limit, seconds));
    const seen = Math.min(CONTEXT_MEMORY, this.#number(cell, ROW.seen) + weight);
    const share = weight / seen;
    const contextMean = this.#number(cell, ROW.context);
    const secondsMean = this.#number(cell, ROW.seconds);
    const contextOff = context - contextMean;
    const contextAfter = contextMean + share * contextOff;
    const secondsAfter = secondsMean + share * (clipped - secondsMean);
    this.#rows[row + ROW.seen] = seen;
    this.#rows[row + ROW.context] = contextAfter;
    this.#rows[row + ROW.seconds] = secondsAfter;
    if (share >= 1) return;
    this.#contextSquares += weight * contextOff * (context - contextAfter);
    this.#contextProducts += weight * contextOff * (clipped - secondsAfter);
    this.secondsPerContextToken = Math.max(0, this.#contextProducts / this.#contextSquares);
  }

  /** Publishes what moved noticeably: this cell, and with their group all that hang on it. */
  #publish(touched: number): boolean {
    const group = this.#groupOf(touched);
    const groupMoved = Math.abs(group.common - group.publishedOff) > PUBLISH_SHARE / 2;
    if (groupMoved) group.publishedOff = group.common;
    const cellMoved = this.#hasMoved(touched, this.current(touched));
    const reshaped = (groupMoved || cellMoved) && group.ownShape;
    if (reshaped) this.#reshape(group);
    if (!groupMoved && !reshaped) return this.#publishOne(touched);
    let moved = false;
    for (let cell = 0; cell < this.#groupAt.length; cell++) {
      if (this.#groupOf(cell) === group && this.#publishOne(cell)) moved = true;
    }
    return moved;
  }

  #publishOne(cell: number): boolean {
    const current = this.current(cell);
    if (!this.#hasMoved(cell, current)) return false;
    this.published[cell] = current;
    return true;
  }

  #hasMoved(cell: number, current: number): boolean {
    const published = this.published[cell] ?? 0;
    return Math.abs(current - published) > PUBLISH_SHARE * published;
  }

  /** Measured cells give the shape of their group. */
  #reshape(group: Group): void {
    const measured: number[] = [];
    for (let cell = 0; cell < this.#groupAt.length; cell++) {
      if (this.#groupOf(cell) === group && this.#isMeasured(cell)) measured.push(cell);
    }
    measured.sort((a, b) => this.#number(a, ROW.tokens) - this.#number(b, ROW.tokens));
    group.points = measured.map((cell) => {
      return { tokens: this.#number(cell, ROW.tokens), seconds: this.current(cell) };
    });
    group.largest = measured.at(-1);
  }

  #corrected(cell: number): number {
    const share = this.#ownShare(cell);
    const own = this.#number(cell, ROW.own + ROBUST.mean);
    const correction = share * own + (1 - share) * this.#groupOf(cell).common;
    return (
      this.seed(cell) * Math.exp(Math.max(-CORRECTION_MAX, Math.min(CORRECTION_MAX, correction)))
    );
  }

  /** What a cell's own measurements count beside those of its group. */
  #ownShare(cell: number): number {
    const weight = this.#number(cell, ROW.own + ROBUST.weight);
    return weight / (weight + CELL_PRIOR);
  }

  #isMeasured(cell: number): boolean {
    return this.#number(cell, ROW.own + ROBUST.weight) > 0;
  }

  #number(cell: number, place: number): number {
    return this.#rows[cell * ROW.numbers + place] ?? 0;
  }

  #groupOf(cell: number): Group {
    return this.#groups[this.#groupAt[cell] ?? 0] as Group;
  }
}

/**
 * Cells of the cost model: what one graph takes, or ungraphed steps of one planned size, each with a
 * correction of its own to the seed, and groups of them with one in common.
 *
 * An engine has some 200 of them, a gateway a thousand engines: cells are rows of numbers in one
 * array and known by their places, since objects would be most of what the garbage collector has to
 * go through. What is common to them is in the same array: a report finds little of its engine in
 * the processor's cache, and every other place is one more to wait for.
 */

import { alongCurve, type Point } from "./curve.ts";
import { addRobust, ROBUST, robustError, startRobust } from "./robust.ts";

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
const ROW = { seed: 0, group: 1, own: 2, context: 5, seconds: 6, seen: 7, numbers: 8 } as const;
/**
 * Where a group's are: its common correction, the one that the published estimates hold, and what
 * steps of no cell tell, which counts until one of its cells was measured.
 */
const COMMON = { off: 0, publishedOff: 3, hint: 4, numbers: 5 } as const;
/** Of all cells: sums behind the context term, and the term itself. */
const CONTEXT = { squares: 0, products: 1, secondsPerToken: 2, numbers: 4 } as const;

/** What cells of one kind have in common, but for numbers. */
export class Group {
  /** What one measurement is expected to be off by. */
  readonly deviation: number;
  /** The measured cells by rising size, where the seed's shape is another engine's; else none. */
  points: Point[] = [];
  /** The largest of them. */
  largest: number | undefined;
  /** Whether measured cells give the shape. */
  readonly ownShape: boolean;

  constructor(deviation: number, ownShape = false) {
    this.deviation = deviation;
    this.ownShape = ownShape;
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
  /** What is common to all, each group's numbers, then a row for each cell. */
  readonly #numbers: Float64Array;
  readonly #groups: readonly Group[];
  readonly #tokens: Float64Array;
  /** Where the first row begins. */
  readonly #rows: number;

  constructor(seeds: readonly CellSeed[], secondsPerContextToken: number) {
    this.published = new Float64Array(seeds.length);
    this.#groups = [...new Set(seeds.map(({ group }) => group))];
    this.#rows = CONTEXT.numbers + this.#groups.length * COMMON.numbers;
    this.#numbers = new Float64Array(this.#rows + seeds.length * ROW.numbers);
    const numbers = this.#numbers;
    numbers[CONTEXT.squares] = CONTEXT_PRIOR;
    numbers[CONTEXT.products] = CONTEXT_PRIOR * secondsPerContextToken;
    numbers[CONTEXT.secondsPerToken] = secondsPerContextToken;
    for (const [place, { deviation }] of this.#groups.entries()) {
      startRobust(numbers, commonAt(place) + COMMON.off, deviation);
    }
    this.#tokens = Float64Array.from(seeds, ({ tokens }) => tokens);
    for (const [cell, { seed, group }] of seeds.entries()) {
      const row = this.#rowOf(cell);
      numbers[row + ROW.seed] = Math.max(1e-9, seed);
      numbers[row + ROW.group] = this.#groups.indexOf(group);
      startRobust(numbers, row + ROW.own, group.deviation);
      this.published[cell] = Math.max(1e-9, seed);
    }
  }

  /** Reads a cell's row, which may lie across two lines; the number has no meaning. */
  prefetch(cell: number): number {
    return this.seed(cell) + this.#number(cell, ROW.seen) + this.#tokensOf(cell);
  }

  /** Seconds for each token of context that a request attends to: the slope within cells. */
  get secondsPerContextToken(): number {
    return this.#numbers[CONTEXT.secondsPerToken] ?? 0;
  }

  seed(cell: number): number {
    return this.#number(cell, ROW.seed);
  }

  /** Seconds, by all that is known now. */
  current(cell: number): number {
    if (this.#isMeasured(cell)) return this.#corrected(cell);
    const { points, largest } = this.#groupOf(cell);
    if (largest === undefined) return this.#corrected(cell);
    const tokens = this.#tokensOf(cell);
    if (tokens <= this.#tokensOf(largest)) {
      return alongCurve(points, tokens) ?? this.#corrected(cell);
    }
    // Above, work grows as on any engine.
    return (this.current(largest) * this.seed(cell)) / this.seed(largest);
  }

  estimate(cell: number): Estimate {
    const share = this.#ownShare(cell);
    const own = robustError(this.#numbers, this.#rowOf(cell) + ROW.own);
    // What the group can't know: how far this cell lies from it.
    const error = Math.hypot(share * own, (1 - share) * this.#common(cell, ROBUST.deviation));
    const value = this.published[cell] ?? 0;
    return { value, error: value * error };
  }

  /**
   * Takes in how far a step was off the cell's seed, as the logarithm of the factor.
   *
   * @returns whether published estimates have moved
   */
  observe(cell: number, off: number, weight: number): boolean {
    addRobust(this.#numbers, this.#rowOf(cell) + ROW.own, off, weight);
    addRobust(this.#numbers, this.#commonOf(cell) + COMMON.off, off, weight / 2);
    return this.#publish(cell);
  }

  /**
   * Takes in how far steps of no cell were off the seed, for a cell's whole group: until one of it
   * was measured.
   *
   * @returns whether published estimates have moved
   */
  hint(cell: number, off: number): boolean {
    this.#numbers[this.#commonOf(cell) + COMMON.hint] = off;
    return this.#common(cell, ROBUST.weight) === 0 && this.#publish(cell);
  }

  /**
   * Takes in the seconds of steps with so much context.
   *
   * @param weight measurements that they stand for
   */
  observeContext(cell: number, weight: number, context: number, seconds: number): void {
    const numbers = this.#numbers;
    const row = this.#rowOf(cell);
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
    numbers[row + ROW.seen] = seen;
    numbers[row + ROW.context] = contextAfter;
    numbers[row + ROW.seconds] = secondsAfter;
    if (share >= 1) return;
    const { squares, products, secondsPerToken } = CONTEXT;
    const squaresAfter = (numbers[squares] ?? 0) + weight * contextOff * (context - contextAfter);
    const productsAfter = (numbers[products] ?? 0) + weight * contextOff * (clipped - secondsAfter);
    numbers[squares] = squaresAfter;
    numbers[products] = productsAfter;
    numbers[secondsPerToken] = Math.max(0, productsAfter / squaresAfter);
  }

  /** Publishes what moved noticeably: this cell, and with their group all that hang on it. */
  #publish(touched: number): boolean {
    const common = this.#commonOf(touched);
    const mean = this.#commonMean(common);
    const publishedOff = this.#numbers[common + COMMON.publishedOff] ?? 0;
    const groupMoved = Math.abs(mean - publishedOff) > PUBLISH_SHARE / 2;
    if (groupMoved) this.#numbers[common + COMMON.publishedOff] = mean;
    const cellMoved = this.#hasMoved(touched, this.current(touched));
    // Which is rare: only then is the group itself looked at.
    if (!groupMoved && !cellMoved) return false;
    const group = this.#groupOf(touched);
    if (group.ownShape) this.#reshape(group);
    else if (!groupMoved) return this.#publishOne(touched);
    let moved = false;
    for (let cell = 0; cell < this.published.length; cell++) {
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
    for (let cell = 0; cell < this.published.length; cell++) {
      if (this.#groupOf(cell) === group && this.#isMeasured(cell)) measured.push(cell);
    }
    measured.sort((a, b) => this.#tokensOf(a) - this.#tokensOf(b));
    group.points = measured.map((cell) => {
      return { tokens: this.#tokensOf(cell), seconds: this.current(cell) };
    });
    group.largest = measured.at(-1);
  }

  #corrected(cell: number): number {
    const share = this.#ownShare(cell);
    const own = this.#number(cell, ROW.own + ROBUST.mean);
    const correction = share * own + (1 - share) * this.#commonMean(this.#commonOf(cell));
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
    return this.#numbers[this.#rowOf(cell) + place] ?? 0;
  }

  #rowOf(cell: number): number {
    return this.#rows + cell * ROW.numbers;
  }

  #tokensOf(cell: number): number {
    return this.#tokens[cell] ?? 0;
  }

  /** Of the correction that a cell's group has in common. */
  #common(cell: number, place: number): number {
    return this.#numbers[this.#commonOf(cell) + COMMON.off + place] ?? 0;
  }

  /**
   * The correction that a group has in common, by all that is known.
   *
   * @param common where its numbers begin
   */
  #commonMean(common: number): number {
    const numbers = this.#numbers;
    const measured = (numbers[common + COMMON.off + ROBUST.weight] ?? 0) > 0;
    return numbers[common + (measured ? COMMON.off + ROBUST.mean : COMMON.hint)] ?? 0;
  }

  #commonOf(cell: number): number {
    return commonAt(this.#number(cell, ROW.group));
  }

  #groupOf(cell: number): Group {
    return this.#groups[this.#number(cell, ROW.group)] as Group;
  }
}

/** Where a group's numbers begin. */
function commonAt(place: number): number {
  return CONTEXT.numbers + place * COMMON.numbers;
}

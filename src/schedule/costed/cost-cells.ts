/**
 * Cells of the cost model: what one graph takes, or ungraphed steps of one planned size, each with a
 * correction of its own to the seed, and groups of them with one in common.
 */

import { alongCurve, type Point } from "./curve.ts";
import { RobustMean } from "./robust.ts";

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

/** What cells of one kind have in common. */
export class Group {
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

export class Cell {
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

/**
 * Publishes what moved noticeably: this cell, and with their group all that hang on it.
 *
 * @returns whether anything did
 */
export function publish(touched: Cell): boolean {
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
  return moved;
}

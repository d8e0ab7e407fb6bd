/**
 * Running means that a stray measurement can't carry away: what lies further than three deviations
 * from the mean counts as three (Huber's clipping), and old measurements fade.
 *
 * Where there are many of them they lie among other numbers: each engine has hundreds, and the
 * garbage collector goes through every object there is, but through no numbers.
 */

/** Measurements that the mean remembers; older ones fade, so that a lasting change is followed. */
const MEMORY = 256;
/** Deviations beyond which a measurement is clipped. */
const CLIP = 3;
/** A mean absolute deviation of a normal variable times this is its standard deviation. */
const MAD_TO_DEVIATION = 1.2533;
/** Deviations below this are rounding, not noise. */
const DEVIATION_MIN = 0.005;

/** Where a mean's numbers are, from its first one on. */
export const ROBUST = { mean: 0, weight: 1, deviation: 2, numbers: 3 } as const;

/**
 * Begins a mean of nothing.
 *
 * @param at place of its first number
 * @param deviation what one measurement is expected to be off by, until some have come
 */
export function startRobust(numbers: Float64Array, at: number, deviation: number): void {
  numbers[at + ROBUST.mean] = 0;
  numbers[at + ROBUST.weight] = 0;
  numbers[at + ROBUST.deviation] = Math.max(DEVIATION_MIN, deviation);
}

/** @param weight how many equal measurements `value` stands for */
export function addRobust(numbers: Float64Array, at: number, value: number, weight = 1): void {
  if (!Number.isFinite(value) || !(weight > 0)) return;
  const mean = numbers[at + ROBUST.mean] ?? 0;
  const deviation = numbers[at + ROBUST.deviation] ?? 0;
  const limit = CLIP * deviation;
  // The first one has no mean to be far from but the prior, which is 0.
  const off = Math.max(-limit, Math.min(limit, value - mean));
  const known = Math.min(MEMORY, (numbers[at + ROBUST.weight] ?? 0) + weight);
  const share = Math.min(1, weight / known);
  // A clipped measurement widens the deviation, so that a lasting change gets through in time.
  const seen = Math.max(DEVIATION_MIN, MAD_TO_DEVIATION * Math.abs(off) * (1 - share));
  numbers[at + ROBUST.mean] = mean + share * off;
  numbers[at + ROBUST.weight] = known;
  numbers[at + ROBUST.deviation] = deviation + Math.min(0.1, share) * (seen - deviation);
}

/** Standard error of the mean; that of a single measurement before the first. */
export function robustError(numbers: Float64Array, at: number): number {
  const weight = numbers[at + ROBUST.weight] ?? 0;
  return (numbers[at + ROBUST.deviation] ?? 0) / Math.sqrt(Math.max(1, weight));
}

/** One of them by itself. */
export class RobustMean {
  readonly #numbers = new Float64Array(ROBUST.numbers);

  /** @param deviation what one measurement is expected to be off by, until some have come */
  constructor(deviation: number) {
    startRobust(this.#numbers, 0, deviation);
  }

  get mean(): number {
    return this.#numbers[ROBUST.mean] ?? 0;
  }

  /** Measurements behind the mean, at most `MEMORY`. */
  get weight(): number {
    return this.#numbers[ROBUST.weight] ?? 0;
  }

  /** Standard deviation of one measurement. */
  get deviation(): number {
    return this.#numbers[ROBUST.deviation] ?? 0;
  }

  /** Standard error of the mean; that of a single measurement before the first. */
  get error(): number {
    return robustError(this.#numbers, 0);
  }

  /** @param weight how many equal measurements `value` stands for */
  add(value: number, weight = 1): void {
    addRobust(this.#numbers, 0, value, weight);
  }
}

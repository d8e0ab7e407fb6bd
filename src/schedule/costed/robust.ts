/**
 * Running means that a stray measurement can't carry away: what lies further than three deviations
 * from the mean counts as three (Huber's clipping), and old measurements fade.
 */

/** Measurements that the mean remembers; older ones fade, so that a lasting change is followed. */
const MEMORY = 256;
/** Deviations beyond which a measurement is clipped. */
const CLIP = 3;
/** A mean absolute deviation of a normal variable times this is its standard deviation. */
const MAD_TO_DEVIATION = 1.2533;
/** Deviations below this are rounding, not noise. */
const DEVIATION_MIN = 0.005;

export class RobustMean {
  mean = 0;
  /** Measurements behind the mean, at most `MEMORY`. */
  weight = 0;
  #deviation: number;

  /** @param deviation what one measurement is expected to be off by, until some have come */
  constructor(deviation: number) {
    this.#deviation = Math.max(DEVIATION_MIN, deviation);
  }

  /** Standard deviation of one measurement. */
  get deviation(): number {
    return this.#deviation;
  }

  /** Standard error of the mean; that of a single measurement before the first. */
  get error(): number {
    return this.#deviation / Math.sqrt(Math.max(1, this.weight));
  }

  /** @param weight how many equal measurements `value` stands for */
  add(value: number, weight = 1): void {
    if (!Number.isFinite(value) || !(weight > 0)) return;
    const limit = CLIP * this.#deviation;
    // The first one has no mean to be far from but the prior, which is 0.
    const off = Math.max(-limit, Math.min(limit, value - this.mean));
    this.weight = Math.min(MEMORY, this.weight + weight);
    const share = Math.min(1, weight / this.weight);
    this.mean += share * off;
    // A clipped measurement widens the deviation, so that a lasting change gets through in time.
    const seen = Math.max(DEVIATION_MIN, MAD_TO_DEVIATION * Math.abs(off) * (1 - share));
    this.#deviation += Math.min(0.1, share) * (seen - this.#deviation);
  }
}

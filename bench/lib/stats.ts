/** Figures over few runs: means, quantiles and percentile-bootstrap confidence intervals. */

export interface Interval {
  readonly mean: number;
  /** Ends of the 95% interval of the mean. */
  readonly low: number;
  readonly high: number;
  readonly n: number;
}

export function mean(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("Expected at least one value, got none.");
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Linear interpolation between the closest ranks; `share` is 0 to 1. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new RangeError("Expected at least one value, got none.");
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)] as number;
  const high = sorted[Math.ceil(at)] as number;
  return low + (high - low) * (at - Math.floor(at));
}

/** mulberry32: a seeded generator, so that an interval is the same for everybody. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const RESAMPLES = 10_000;

/** Percentile bootstrap of the mean (Efron & Tibshirani 1993, chapter 13). */
export function bootstrapMean(values: readonly number[], seed = 1): Interval {
  const random = seededRandom(seed);
  const means: number[] = [];
  for (let resample = 0; resample < RESAMPLES; resample += 1) {
    let sum = 0;
    for (let i = 0; i < values.length; i += 1) {
      sum += values[Math.floor(random() * values.length)] as number;
    }
    means.push(sum / values.length);
  }
  return {
    mean: mean(values),
    low: quantile(means, 0.025),
    high: quantile(means, 0.975),
    n: values.length,
  };
}

/** Figures over samples and over few runs, with percentile-bootstrap confidence intervals. */

import { createRandom } from "../base/random.ts";

export interface Interval {
  readonly mean: number;
  /** Ends of the 95% interval of the mean. */
  readonly low: number;
  readonly high: number;
  readonly n: number;
}

/** What a metric's samples came to, all in the samples' unit. */
export interface Distribution {
  readonly n: number;
  readonly mean: number;
  /** Sample standard deviation (n − 1); 0 for a single sample. */
  readonly sd: number;
  /** Standard deviation over mean; 0 when the mean is 0. */
  readonly cv: number;
  readonly p50: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

/** Numbers in a list, or packed: of millions of samples a list would take twice the memory. */
export type Samples = readonly number[] | Float64Array;

export function mean(values: Samples): number {
  if (values.length === 0) throw new RangeError("Expected at least one value, got none.");
  return sumOf(values) / values.length;
}

function sumOf(values: Samples): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}

/** Linear interpolation between the closest ranks; `share` is 0 to 1. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new RangeError("Expected at least one value, got none.");
  return sortedQuantile(sortedOf(values), share);
}

/** The same of values that are sorted already. */
export function sortedQuantile(sorted: Float64Array, share: number): number {
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)] as number;
  const high = sorted[Math.ceil(at)] as number;
  return low + (high - low) * (at - Math.floor(at));
}

/** A copy in order, for several quantiles of one list. */
export function sortedOf(values: Samples): Float64Array {
  return Float64Array.from(values).sort();
}

/** Undefined of nothing: a window without requests has no median. */
export function distributionOf(values: Samples): Distribution | undefined {
  if (values.length === 0) return undefined;
  const sorted = sortedOf(values);
  const average = mean(values);
  let squares = 0;
  for (const value of values) squares += (value - average) ** 2;
  const sd = values.length === 1 ? 0 : Math.sqrt(squares / (values.length - 1));
  return {
    n: values.length,
    mean: average,
    sd,
    cv: average === 0 ? 0 : sd / average,
    p50: sortedQuantile(sorted, 0.5),
    p90: sortedQuantile(sorted, 0.9),
    p95: sortedQuantile(sorted, 0.95),
    p99: sortedQuantile(sorted, 0.99),
    p999: sortedQuantile(sorted, 0.999),
    max: sorted[sorted.length - 1] as number,
  };
}

const RESAMPLES = 10_000;

/** Percentile bootstrap of the mean (Efron & Tibshirani 1993, chapter 13). */
export function bootstrapMean(values: readonly number[], seed = 1): Interval {
  const random = createRandom(seed);
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

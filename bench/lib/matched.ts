/**
 * Two modes on the very same requests of a schedule. How long a request waits is mostly a matter of
 * its prompt and of who came with it; both modes got the same ones, so requests are drawn for both
 * at once, and only what the modes do differently is left in the interval. Runs are drawn for each
 * mode by itself: a run's engine is its own.
 */

import { createRandom, type Random } from "../../src/base/random.ts";
import type { Estimate } from "../../src/bench/bootstrap.ts";
import type { RequestRecord } from "../../src/bench/samples.ts";
import { ttftMs } from "../../src/bench/windows.ts";
import { quantile, sortedQuantile } from "../../src/measure/statistics.ts";

/** A value for each request of a run, by the request's number in the schedule. */
export type Values = ReadonlyMap<number, number>;

export function ttftsOf(requests: readonly RequestRecord[]): Values {
  return new Map(requests.map((request) => [request.index, ttftMs(request)]));
}

export interface Matched {
  /** Requests that both modes answered in some run. */
  readonly requests: number;
  /** Ratio of the medians, ours over theirs. */
  readonly medianRatio: Estimate;
  /** Difference of the 99th percentiles, ours − theirs, in the values' unit. */
  readonly p99Difference: Estimate;
  readonly ours: Quantiles;
  readonly theirs: Quantiles;
}

export interface Quantiles {
  readonly p50: number;
  readonly p99: number;
}

const RESAMPLES = 1000;

/** Undefined where the two have no request in common. */
export function matched(
  ours: readonly Values[],
  theirs: readonly Values[],
  seed = 1,
): Matched | undefined {
  const indices = commonIndices(ours, theirs);
  if (indices.length === 0) return undefined;
  const random = createRandom(seed);
  const [a, b] = [new Side(ours, indices), new Side(theirs, indices)];
  const all = Int32Array.from(indices, (_, place) => place);
  const [own, base] = [a.quantiles(a.rows, all), b.quantiles(b.rows, all)];
  const ratios: number[] = [];
  const differences: number[] = [];
  for (let resample = 0; resample < RESAMPLES; resample++) {
    const drawn = all.map(() => Math.floor(random() * all.length));
    const one = a.quantiles(a.draw(random), drawn);
    const other = b.quantiles(b.draw(random), drawn);
    // Runs that were cut short may have none of the requests drawn.
    if (one === undefined || other === undefined) continue;
    ratios.push(one.p50 / other.p50);
    differences.push(one.p99 - other.p99);
  }
  if (own === undefined || base === undefined || ratios.length === 0) return undefined;
  return {
    requests: indices.length,
    medianRatio: interval(own.p50 / base.p50, ratios),
    p99Difference: interval(own.p99 - base.p99, differences),
    ours: own,
    theirs: base,
  };
}

/** The runs of one mode as rows of numbers, a column for each request. */
class Side {
  readonly rows: readonly Float64Array[];
  /** Reused: each resample sorts what it draws. */
  readonly #values: Float64Array;

  constructor(runs: readonly Values[], indices: readonly number[]) {
    this.rows = runs.map((run) =>
      Float64Array.from(indices, (index) => run.get(index) ?? Number.NaN),
    );
    this.#values = new Float64Array(runs.length * indices.length);
  }

  draw(random: Random): Float64Array[] {
    return this.rows.map(() => this.rows[Math.floor(random() * this.rows.length)] as Float64Array);
  }

  /** Pooled over runs; undefined when they have none of these requests. */
  quantiles(rows: readonly Float64Array[], places: Int32Array): Quantiles | undefined {
    let used = 0;
    for (const row of rows) {
      for (const place of places) {
        const value = row[place] as number;
        if (!Number.isNaN(value)) this.#values[used++] = value;
      }
    }
    if (used === 0) return undefined;
    const sorted = this.#values.subarray(0, used).sort();
    return { p50: sortedQuantile(sorted, 0.5), p99: sortedQuantile(sorted, 0.99) };
  }
}

function commonIndices(ours: readonly Values[], theirs: readonly Values[]): number[] {
  const known = new Set(theirs.flatMap((run) => [...run.keys()]));
  const own = new Set(ours.flatMap((run) => [...run.keys()]));
  return [...own].filter((index) => known.has(index)).sort((a, b) => a - b);
}

function interval(value: number, drawn: readonly number[]): Estimate {
  return { value, low: quantile(drawn, 0.025), high: quantile(drawn, 0.975) };
}

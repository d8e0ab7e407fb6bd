/** Percentiles of requests. */

import { sortedQuantile } from "../../measure/statistics.ts";

export interface Spread {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
  /** Standard deviation over mean; 0 when the mean is 0. */
  readonly cv: number;
}

/** For exact percentiles: 8 bytes a number. */
export class Sample {
  #values: Float64Array = new Float64Array(1024);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add(value: number): void {
    if (this.#count === this.#values.length) {
      const next = new Float64Array(this.#count * 2);
      next.set(this.#values);
      this.#values = next;
    }
    this.#values[this.#count++] = value;
  }

  /** Zeros for an empty sample. */
  spread(): Spread {
    const sorted = this.#values.slice(0, this.#count).sort();
    let sum = 0;
    for (const value of sorted) sum += value;
    const mean = this.#count === 0 ? 0 : sum / this.#count;
    let squares = 0;
    for (const value of sorted) squares += (value - mean) ** 2;
    const deviation = Math.sqrt(squares / Math.max(1, this.#count - 1));
    return {
      p50: figureOf(sorted, 0.5),
      p90: figureOf(sorted, 0.9),
      p99: figureOf(sorted, 0.99),
      p999: figureOf(sorted, 0.999),
      max: sorted.at(-1) ?? 0,
      cv: mean === 0 ? 0 : deviation / mean,
    };
  }
}

function figureOf(sorted: Float64Array, share: number): number {
  return sorted.length === 0 ? 0 : sortedQuantile(sorted, share);
}

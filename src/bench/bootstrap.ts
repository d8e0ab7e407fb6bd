/**
 * Confidence intervals of quantiles over several runs, by a bootstrap in two levels: runs are drawn
 * with replacement, then requests within each run drawn (Davison & Hinkley 1997, section 3.8).
 * Requests of one run share its engine, so drawing requests alone would make intervals too narrow.
 */

import { createRandom, type Random } from "../base/random.ts";

export interface Estimate {
  readonly value: number;
  /** Ends of the 95% interval; infinite, in JSON null, where one sample tells of none. */
  readonly low: number;
  readonly high: number;
}

export interface Estimates {
  readonly mean: Estimate;
  readonly p50: Estimate;
  readonly p99: Estimate;
  readonly samples: number;
  readonly runs: number;
}

/** Each resample's figures, so that two modes can be compared draw by draw. */
interface Draws {
  readonly own: Figures;
  readonly drawn: readonly Figures[];
}

interface Figures {
  readonly mean: number;
  readonly p50: number;
  readonly p99: number;
}

const RESAMPLES = 1000;
/** Draws of single requests over all resamples: a report has dozens of estimates. */
const DRAWS_MAX = 5_000_000;
const RESAMPLES_MIN = 200;

/** Undefined when there is no sample at all. */
export function estimate(runs: readonly (readonly number[])[], seed = 1): Estimates | undefined {
  const draws = drawsOf(runs, seed);
  if (draws === undefined) return undefined;
  return {
    mean: interval(draws, draws.own.mean, ({ mean }) => mean),
    p50: interval(draws, draws.own.p50, ({ p50 }) => p50),
    p99: interval(draws, draws.own.p99, ({ p99 }) => p99),
    samples: runs.reduce((sum, run) => sum + run.length, 0),
    runs: runs.filter((run) => run.length > 0).length,
  };
}

/**
 * Ratios of one mode's figures to another's, drawn independently of each other. None to 0, which the
 * time per token is where a proxy hands on whole answers.
 */
export function compare(
  runs: readonly (readonly number[])[],
  baseline: readonly (readonly number[])[],
  seed = 1,
): Omit<Estimates, "samples" | "runs"> | undefined {
  const ours = drawsOf(runs, seed);
  const theirs = drawsOf(baseline, seed + 1);
  if (ours === undefined || theirs === undefined) return undefined;
  const hasZero = theirs.drawn.some(({ mean, p50, p99 }) => Math.min(mean, p50, p99) <= 0);
  if (hasZero || theirs.own.p50 <= 0) return undefined;
  const ratio = (pick: (figures: Figures) => number): Estimate => {
    const count = Math.min(ours.drawn.length, theirs.drawn.length);
    const ratios = Array.from({ length: count }, (_, index) => {
      return pick(ours.drawn[index] as Figures) / pick(theirs.drawn[index] as Figures);
    });
    return ends(ratios, pick(ours.own) / pick(theirs.own));
  };
  return {
    mean: ratio(({ mean }) => mean),
    p50: ratio(({ p50 }) => p50),
    p99: ratio(({ p99 }) => p99),
  };
}

function interval(draws: Draws, value: number, pick: (figures: Figures) => number): Estimate {
  return ends(draws.drawn.map(pick), value);
}

function ends(values: readonly number[], value: number): Estimate {
  if (values.length < 2) return { value, low: -Infinity, high: Infinity };
  const sorted = Float64Array.from(values).sort();
  const at = (share: number): number => sorted[Math.round((sorted.length - 1) * share)] as number;
  return { value, low: at(0.025), high: at(0.975) };
}

/** All samples in order, and where each run's lie among them. */
function drawsOf(given: readonly (readonly number[])[], seed: number): Draws | undefined {
  const runs = given.filter((run) => run.length > 0);
  const total = runs.reduce((sum, run) => sum + run.length, 0);
  if (total === 0) return undefined;
  const order = runs
    .flatMap((run, index) => run.map((value) => ({ value, index })))
    .sort((a, b) => a.value - b.value);
  const sorted = Float64Array.from(order, ({ value }) => value);
  const places = runs.map((run) => new Int32Array(run.length));
  const filled = new Int32Array(runs.length);
  order.forEach(({ index }, rank) => {
    const place = filled[index] as number;
    (places[index] as Int32Array)[place] = rank;
    filled[index] = place + 1;
  });
  const random = createRandom(seed);
  // Drawn from one sample, all would be alike and look certain.
  const resamples =
    total < 2 ? 1 : Math.min(RESAMPLES, Math.max(RESAMPLES_MIN, Math.floor(DRAWS_MAX / total)));
  const counts = new Int32Array(total);
  const drawn = Array.from({ length: resamples }, () => {
    counts.fill(0);
    return figuresOf(sorted, counts, draw(places, counts, random));
  });
  return { own: figuresOf(sorted, counts.fill(1), total), drawn };
}

/** Counts how often each rank is drawn, so that no resample has to be sorted. */
function draw(places: readonly Int32Array[], counts: Int32Array, random: Random): number {
  let drawn = 0;
  for (let run = 0; run < places.length; run++) {
    const ranks = places[Math.floor(random() * places.length)] as Int32Array;
    for (let index = 0; index < ranks.length; index++) {
      const rank = ranks[Math.floor(random() * ranks.length)] as number;
      counts[rank] = (counts[rank] as number) + 1;
    }
    drawn += ranks.length;
  }
  return drawn;
}

function figuresOf(sorted: Float64Array, counts: Int32Array, total: number): Figures {
  let sum = 0;
  for (let rank = 0; rank < sorted.length; rank++) {
    sum += (sorted[rank] as number) * (counts[rank] as number);
  }
  const [p50, p99] = countedQuantiles(sorted, counts, total, [0.5, 0.99]);
  return { mean: sum / total, p50: p50 as number, p99: p99 as number };
}

/** Quantiles by linear interpolation of values of which each counts several times; shares rise. */
function countedQuantiles(
  sorted: Float64Array,
  counts: Int32Array,
  total: number,
  shares: readonly number[],
): number[] {
  let rank = 0;
  let seen = counts[0] as number;
  const valueAt = (position: number): number => {
    while (seen <= position) seen += counts[++rank] as number;
    return sorted[rank] as number;
  };
  return shares.map((share) => {
    const at = (total - 1) * share;
    const low = valueAt(Math.floor(at));
    return low + (valueAt(Math.ceil(at)) - low) * (at - Math.floor(at));
  });
}

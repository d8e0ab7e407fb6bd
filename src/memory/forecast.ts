/**
 * How many bytes the graphs that are not captured yet will take, and how sure that is.
 *
 * A graph takes driver memory, which is the same for all graphs of a kind but for the driver's
 * granularity, and its pool grows when it is larger than any graph in it. The rate of each kind
 * starts from constants (or from an earlier start of the same engine) and is corrected by every
 * capture: a normal prior and readings with normal noise.
 */

import { type Graph, type GraphKind, topGraphs } from "../base/graph.ts";
import type { Reserve } from "../wire/protocol.ts";
import {
  BEYOND_SHARE,
  BEYOND_SHARE_SPREAD,
  CONSTANTS,
  type ForecastConstants,
  graphBytes,
  LATE_BYTES,
  LATE_SHARE_MAX,
  LATE_SPREAD_BYTES,
  LATENT_CONSTANTS,
  NINE_IN_TEN,
  POOL_BEYOND_PEAKS_BYTES,
  POOL_PEAKS_MAX,
  POOL_SHARE_OF_PEAK,
  POOL_SMALL_SHARE,
  POOL_SMALL_TOKENS,
  POOL_SPREAD_GUESSED,
  POOL_SPREAD_RECORDED,
  POOL_SPREAD_RESERVED,
  POOL_SPREAD_SCALED,
  POOL_TOKENS,
  RATE_SPREAD,
  RATE_SPREAD_PARALLEL,
  RATE_SPREAD_RECORDED,
  READING_SPREAD_BYTES,
  READINGS_APART_MAX,
  READINGS_MIN,
} from "./constants.ts";

/** What the graphs that are not captured yet will take on each rank. */
export interface Forecast {
  readonly bytes: number;
  /** Either way; it is meant to hold nine outcomes in ten. */
  readonly errorBytes: number;
  readonly graphs: number;
  /** True while it rests on constants: too few captures of this engine have corrected it yet. */
  readonly provisional: boolean;
}

/** What the forecast needs to know of an engine. */
export interface EngineShape {
  /** Transformer layers; PIECEWISE graphs have one piece more. */
  readonly layers: number;
  /** Whether its attention is multi-head latent. */
  readonly latent?: boolean | undefined;
  /** Ranks of the engine, tensor times pipeline parallel. */
  readonly ranks: number;
  /** Activation peak that vLLM measured, for a guess at the pool; 0 where unknown. */
  readonly activationPeakBytes: number;
  /** What the engine itself reserved, for all graphs or for the top of each kind. */
  readonly reserve?: { readonly mode: Reserve; readonly bytes: number } | undefined;
}

/** Bytes of graphs in an earlier start of the same engine, by id. */
export type RecordedBytes = ReadonlyMap<string, number>;

interface Rate {
  mean: number;
  variance: number;
}

/** What a pool takes, by the tokens of its largest graph. */
interface KnownPool {
  readonly bytes: number;
  /** One standard deviation, as a share: nothing where it was measured on this engine. */
  readonly spread: number;
}

/** A sum's expectation and variance, from which bytes and error bar come. */
interface Estimate {
  readonly mean: number;
  readonly variance: number;
}

export class MemoryForecast {
  readonly #shape: EngineShape;
  readonly #kinds: readonly GraphKind[];
  readonly #prior: Readonly<Record<GraphKind, Rate>>;
  readonly #rates: Record<GraphKind, Rate>;
  /** Readings so far, for each kind: how many, and the sum of their bytes without the pool. */
  readonly #readings: Record<GraphKind, { count: number; sum: number }>;
  /** By the tokens of their largest graph. */
  readonly #pools = new Map<number, KnownPool>();
  #lateBytes = 0;
  readonly #recorded: boolean;

  constructor(
    planned: readonly Graph[],
    shape: EngineShape,
    recorded: RecordedBytes = new Map(),
    constants: ForecastConstants = shape.latent === true ? LATENT_CONSTANTS : CONSTANTS,
  ) {
    this.#shape = shape;
    this.#kinds = [...new Set(planned.map((graph) => graph.kind))];
    const known = planned.filter((graph) => recorded.has(graph.id));
    this.#recorded = known.length > 0;
    const bytesOf = (graph: Graph): number => recorded.get(graph.id) ?? 0;
    const topTokens = Math.max(0, ...known.map((graph) => graph.tokens));
    const prior = (kind: GraphKind): Rate => {
      const below = known.filter((graph) => graph.kind === kind && graph.tokens < topTokens);
      const ofKind = planned.filter((graph) => graph.kind === kind);
      return priorOf(kind, shape, constants, below.map(bytesOf), ofKind);
    };
    this.#prior = { FULL: prior("FULL"), PIECEWISE: prior("PIECEWISE") };
    this.#rates = { FULL: { ...this.#prior.FULL }, PIECEWISE: { ...this.#prior.PIECEWISE } };
    this.#readings = { FULL: { count: 0, sum: 0 }, PIECEWISE: { count: 0, sum: 0 } };
    const pool = recordedPool(known, topTokens, (graph) => {
      const rate = this.#prior[graph.kind];
      const beyond = bytesOf(graph) - rate.mean;
      return graph.tokens === topTokens || bytesOf(graph) > usualMax(rate) ? beyond : 0;
    });
    const bytesMax = POOL_PEAKS_MAX * shape.activationPeakBytes + POOL_BEYOND_PEAKS_BYTES;
    if (pool === undefined || pool.bytes > bytesMax) {
      this.#reserved(planned);
      return;
    }
    this.#pools.set(topTokens, pool);
  }

  /** What the engine reserved for graphs, less their driver memory, is what it expects of a pool. */
  #reserved(planned: readonly Graph[]): void {
    const { reserve } = this.#shape;
    // What is kept for the smallest graphs says little of larger pools.
    if (reserve?.mode !== "top" && reserve?.mode !== "plan") return;
    let { bytes } = reserve;
    for (const { kind } of reserve.mode === "plan" ? planned : topGraphs(planned)) {
      bytes -= this.#prior[kind].mean;
    }
    const tokens = Math.max(0, ...planned.map((graph) => graph.tokens));
    this.#pools.set(tokens, { bytes: Math.max(0, bytes), spread: POOL_SPREAD_RESERVED });
  }

  /** True until captures of this engine, or an earlier start, stand behind every rate. */
  get provisional(): boolean {
    const few = this.#kinds.some((kind) => this.#readings[kind].count < READINGS_MIN);
    return few && !this.#recorded;
  }

  /**
   * Learns from a capture.
   *
   * @param poolTokens tokens of the largest graph that its pool held before, 0 for an empty pool
   */
  observe(graph: Graph, bytes: number, poolTokens: number): void {
    const rate = this.#rates[graph.kind];
    // The first and largest graph of a pool is booked with all of it: that tells the pool, and
    // next to nothing about the driver's share.
    if (graph.tokens > poolTokens) {
      this.#learnPool(graph.tokens, Math.max(0, bytes - rate.mean), poolTokens);
      return;
    }
    const readings = this.#readings[graph.kind];
    const excess = bytes > usualMax(rate) ? bytes - rate.mean : 0;
    if (excess > 0 && graph.tokens === poolTokens) {
      // The top of the other kind, which needed more of the pool than the first one.
      this.#learnPool(graph.tokens, excess, poolTokens);
      return;
    }
    this.#lateBytes += excess;
    readings.count += 1;
    readings.sum += excess > 0 ? rate.mean : Math.max(0, bytes);
    this.#correct(graph.kind);
  }

  /** One graph captured into a pool whose largest graph has `poolTokens` tokens (0: empty). */
  graph(graph: Graph, poolTokens: number): Forecast {
    const rate = this.#rates[graph.kind];
    const pool = this.#growth(graph.tokens, poolTokens);
    const mean = rate.mean + pool.mean;
    const noise = 2 * READING_SPREAD_BYTES ** 2;
    return this.#forecast({ mean, variance: rate.variance + pool.variance + noise }, 1);
  }

  /**
   * Several graphs, each with the number of its pool.
   *
   * @param poolTokens tokens of the largest graph that each pool holds already; absent: empty
   */
  rest(
    graphs: readonly { readonly graph: Graph; readonly pool: number }[],
    poolTokens: ReadonlyMap<number, number>,
  ): Forecast {
    const counts: Record<GraphKind, number> = { FULL: 0, PIECEWISE: 0 };
    const tops = new Map<number, number>();
    for (const { graph, pool } of graphs) {
      counts[graph.kind] += 1;
      tops.set(pool, Math.max(tops.get(pool) ?? 0, graph.tokens));
    }
    let mean = 0;
    let variance = 0;
    for (const kind of ["FULL", "PIECEWISE"] as const) {
      const count = counts[kind];
      const rate = this.#rates[kind];
      mean += count * rate.mean;
      variance += count ** 2 * rate.variance;
      variance += Math.min(count, READINGS_APART_MAX) * READING_SPREAD_BYTES ** 2;
    }
    for (const [pool, tokens] of tops) {
      const growth = this.#growth(tokens, poolTokens.get(pool) ?? 0);
      mean += growth.mean;
      variance += growth.variance;
    }
    const late = this.#late(graphs.length);
    return this.#forecast(
      { mean: mean + late.mean, variance: variance + late.variance },
      graphs.length,
    );
  }

  /**
   * A pool of its own for graphs up to `tokens` tokens. A larger pool that is known tells what it
   * takes; a smaller one says at least how much, and the rest is a guess.
   */
  #poolOf(tokens: number): Estimate {
    const known = this.#pools.get(tokens);
    if (known !== undefined) {
      return { mean: known.bytes, variance: (known.spread * known.bytes) ** 2 };
    }
    const sizes = [...this.#pools.keys()];
    const above = Math.min(...sizes.filter((size) => size > tokens));
    const larger = this.#pools.get(above);
    if (larger !== undefined) return scaled(larger.bytes, above, tokens, POOL_SPREAD_SCALED);
    const guess = scaled(
      POOL_SHARE_OF_PEAK * this.#shape.activationPeakBytes,
      POOL_TOKENS,
      tokens,
      POOL_SPREAD_GUESSED,
    );
    const below = Math.max(...sizes.filter((size) => size < tokens));
    const least = ((this.#pools.get(below)?.bytes ?? 0) * tokens) / below;
    return least > guess.mean ? { ...guess, mean: least } : guess;
  }

  #growth(tokens: number, poolTokens: number): Estimate {
    if (tokens <= poolTokens) return { mean: 0, variance: 0 };
    const after = this.#poolOf(tokens);
    if (poolTokens === 0) return after;
    const before = this.#poolOf(poolTokens);
    return { mean: Math.max(0, after.mean - before.mean), variance: after.variance };
  }

  #learnPool(tokens: number, bytes: number, poolTokens: number): void {
    const before = poolTokens === 0 ? 0 : this.#poolOf(poolTokens).mean;
    // FULL and PIECEWISE tops of one size follow each other: the second one adds to the first.
    this.#pools.set(tokens, { bytes: before + bytes, spread: 0 });
  }

  /** Steps in the pool's size that come below its top, less what has come already. */
  #late(graphs: number): Estimate {
    if (graphs === 0) return { mean: 0, variance: 0 };
    const pools = [...this.#pools.values()].map((pool) => pool.bytes);
    const most = LATE_SHARE_MAX * Math.max(0, ...pools);
    const mean = Math.max(0, Math.min(LATE_BYTES, most) - this.#lateBytes);
    return { mean, variance: Math.min(LATE_SPREAD_BYTES, most) ** 2 };
  }

  #correct(kind: GraphKind): void {
    const { count, sum } = this.#readings[kind];
    this.#rates[kind] = corrected(this.#prior[kind], sum / count, count);
    // The pieces run the kernels of a FULL graph, attention left out: what FULL graphs take beyond
    // their prior these will, too, until one of them is read.
    if (kind === "FULL" && this.#readings.PIECEWISE.count === 0) {
      const beyond = this.#rates.FULL.mean - this.#prior.FULL.mean;
      const prior = this.#prior.PIECEWISE;
      this.#rates.PIECEWISE = {
        mean: Math.max(0, prior.mean + BEYOND_SHARE * beyond),
        variance: prior.variance + this.#rates.FULL.variance + (BEYOND_SHARE_SPREAD * beyond) ** 2,
      };
    }
  }

  #forecast({ mean, variance }: Estimate, graphs: number): Forecast {
    return {
      bytes: Math.round(mean),
      errorBytes: Math.round(NINE_IN_TEN * Math.sqrt(variance)),
      graphs,
      provisional: this.provisional,
    };
  }
}

/**
 * A rate after so many readings. Readings too far off for the prior's own spread refute it: its
 * spread is then what they say (empirical Bayes), or a model with other kernels would keep the
 * rate of those that the constants were fitted on.
 */
function corrected(prior: Rate, average: number, count: number): Rate {
  const noise = READING_SPREAD_BYTES ** 2 / count;
  const variance = Math.max(prior.variance, (average - prior.mean) ** 2 - noise);
  const weight = variance / (variance + noise);
  return {
    mean: prior.mean + weight * (average - prior.mean),
    variance: (1 - weight) * variance,
  };
}

/**
 * @param recorded bytes of graphs of this kind in an earlier start, tops left out
 * @param ofKind the kind's graphs, for what they take at the mean
 */
function priorOf(
  kind: GraphKind,
  { layers, ranks }: EngineShape,
  constants: ForecastConstants,
  recorded: readonly number[],
  ofKind: readonly Graph[],
): Rate {
  const each = (ofKind.length > 0 ? ofKind : [{ kind }]).map((graph) =>
    graphBytes(graph, layers, constants),
  );
  const mean = each.reduce((sum, bytes) => sum + bytes, 0) / each.length;
  // Graphs with all-reduces, adapters or a drafter's with them: no rate was fitted on such.
  const more = ofKind.some(({ loras = 0, draftLayers = 0 }) => loras > 0 || draftLayers > 0);
  const spread = ranks > 1 || more ? RATE_SPREAD_PARALLEL : RATE_SPREAD;
  const rate = { mean, variance: (spread * mean) ** 2 };
  // Some were booked with a pool: the top of a tier, or where a pool grew.
  const usual = recorded.filter((bytes) => bytes <= usualMax(rate));
  if (usual.length === 0) return rate;
  const average = usual.reduce((sum, bytes) => sum + bytes, 0) / usual.length;
  // A handful of recorded graphs says little more than one reading each.
  const noise = READING_SPREAD_BYTES ** 2 / usual.length;
  const variance = (RATE_SPREAD_RECORDED * average) ** 2 + noise;
  const weight = rate.variance / (rate.variance + variance);
  return { mean: mean + weight * (average - mean), variance: weight * variance };
}

/**
 * The pool of the largest graphs, of what each graph took beyond its driver memory. Captured first
 * they were booked with all of it. Captured after smaller ones they were booked with the last of its
 * growth, and those with the rest; but a smaller one may have had a pool of its own.
 */
function recordedPool(
  known: readonly Graph[],
  topTokens: number,
  beyond: (graph: Graph) => number,
): KnownPool | undefined {
  if (known.length === 0) return undefined;
  const tops = known.filter((graph) => graph.tokens === topTokens);
  const own = Math.max(
    0,
    tops.reduce((sum, graph) => sum + beyond(graph), 0),
  );
  const others = known.filter((graph) => graph.tokens < topTokens).map(beyond);
  const growth = others.reduce((sum, bytes) => sum + bytes, 0);
  // No pool of smaller graphs is larger than theirs, so this one was there before them.
  if (own < Math.max(...others)) return { bytes: own + growth, spread: POOL_SPREAD_SCALED };
  const bytes = own + growth / 2;
  const apart = bytes === 0 ? 0 : growth / 2 / NINE_IN_TEN / bytes;
  return { bytes, spread: Math.hypot(POOL_SPREAD_RECORDED, apart) };
}

/** Upper end of a forecast: what a reservation holds. */
export function upperBytes(forecast: Forecast): number {
  return Math.ceil(forecast.bytes + forecast.errorBytes);
}

/** More than this is not one graph of its kind, but a pool that grew. */
function usualMax({ mean, variance }: Rate): number {
  return mean + 3 * (Math.sqrt(variance) + READING_SPREAD_BYTES);
}

/** A pool that is known for one size, at another. */
function scaled(bytes: number, known: number, tokens: number, spread: number): Estimate {
  const mean = (bytes * poolShape(tokens)) / poolShape(known);
  return { mean, variance: (spread * mean) ** 2 };
}

/** How pools of different largest graphs compare; 1 at 512 tokens. */
function poolShape(tokens: number): number {
  const linear = tokens / POOL_TOKENS;
  return tokens > POOL_SMALL_TOKENS ? linear : POOL_SMALL_SHARE * linear;
}

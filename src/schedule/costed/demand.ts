/**
 * The steps that an engine ran, by bucket: as they were, and as a decayed histogram, the recent past
 * counting more, from which come the steps to come.
 *
 * Weights are request-steps (a step that ten requests wait on counts ten). All of the histogram's
 * fade alike, so new ones are written down larger instead ("forward decay"): time costs nothing.
 */

import type { StepShape } from "../../base/graph.ts";
import type { LaneWeights } from "./savings.ts";
import type { Bucket, Lane, Shapes } from "./shapes.ts";

/** Long enough to remember through a minute's lull, short enough to forget the morning by noon. */
const HALF_LIFE_SECONDS = 300;
/** Half-lives after which the weights are scaled back. */
const RESCALE_HALF_LIVES = 64;
/** How fast a size's share falls with the distance in octaves. */
const BLUR_OCTAVES = 0.5;

/** Steps of one lane, by the place of their size. */
export interface LaneDemand {
  readonly lane: Lane;
  readonly steps: Float64Array;
  readonly requestSteps: Float64Array;
  /** Timed steps without any graph. */
  readonly ungraphedTimed: Float64Array;
}

export class Demand {
  /** Steps with a choice seen so far, in earlier starts too; not decayed. */
  steps = 0;
  /** Calls of `add` that counted. */
  added = 0;
  /** Steps of this start, by lane; none of them fades. */
  readonly lanes: Map<Lane, LaneDemand> = new Map();
  readonly #shapes: Shapes;
  readonly #halfLifeSeconds: number;
  readonly #faded = new Map<Lane, Float64Array>();
  readonly #blur: Blur;
  #originSeconds = 0;
  /** The scale of one moment: the steps of a report have theirs in common. */
  #scaled = { atSeconds: Number.NaN, scale: 1 };

  constructor(shapes: Shapes, halfLifeSeconds: number = HALF_LIFE_SECONDS) {
    this.#shapes = shapes;
    this.#halfLifeSeconds = halfLifeSeconds;
    this.#blur = new Blur(shapes.octaves);
  }

  /**
   * Books `count` steps of this start, each of which `requests` requests waited on.
   *
   * @param bucket theirs; undefined: no graph could ever serve them, and they aren't counted
   * @param ungraphedTimed timed ones among them, where they ran without any graph. @default 0
   */
  add(
    bucket: Bucket | undefined,
    count: number,
    requests: number,
    atSeconds: number,
    ungraphedTimed = 0,
  ): void {
    if (bucket === undefined) return;
    const { lane, size } = bucket;
    this.added++;
    let counted = this.lanes.get(lane);
    if (counted === undefined) {
      const { length } = this.#shapes.sizes;
      counted = {
        lane,
        steps: new Float64Array(length),
        requestSteps: new Float64Array(length),
        ungraphedTimed: new Float64Array(length),
      };
      this.lanes.set(lane, counted);
    }
    counted.steps[size] = (counted.steps[size] ?? 0) + count;
    counted.requestSteps[size] = (counted.requestSteps[size] ?? 0) + count * requests;
    counted.ungraphedTimed[size] = (counted.ungraphedTimed[size] ?? 0) + ungraphedTimed;
    this.#fade(bucket, count, requests, atSeconds);
  }

  /** Books steps of earlier starts: what is to come may be like them. */
  expect(step: StepShape, count: number, requests: number, atSeconds: number): void {
    const bucket = this.#shapes.bucketOf(step);
    if (bucket !== undefined) this.#fade(bucket, count, requests, atSeconds);
  }

  #fade(bucket: Bucket, count: number, requests: number, atSeconds: number): void {
    this.#rescale(atSeconds);
    this.steps += count;
    const weights = this.#lane(bucket.lane);
    const scale = this.#scale(atSeconds);
    weights[bucket.size] = (weights[bucket.size] ?? 0) + count * requests * scale;
  }

  /** Request-steps remembered of a bucket. */
  weight(step: StepShape, atSeconds: number): number {
    const bucket = this.#shapes.bucketOf(step);
    if (bucket === undefined) return 0;
    return (this.#faded.get(bucket.lane)?.[bucket.size] ?? 0) / this.#scale(atSeconds);
  }

  /**
   * The steps to come: those remembered, blurred over neighbouring sizes, because a batch of 9 now
   * is a batch of 11 soon, and a little of every size.
   *
   * @param prior request-steps for each octave of decode steps of `decode` tokens a request; mixed
   * steps get a quarter of it
   */
  forecast(atSeconds: number, decode: number, prior: number): LaneWeights[] {
    if (prior > 0) {
      this.#lane(this.#shapes.laneOf({ tokens: 1, requests: 1, uniform: decode }));
      this.#lane(this.#shapes.laneOf({ tokens: 1, requests: 1, uniform: 0 }));
    }
    const perWeight = 1 / this.#scale(atSeconds);
    return [...this.#faded].map(([lane, weights]) => {
      const perOctave = (lane.uniform === 0 ? 0.25 : 1) * prior;
      return { lane, weights: this.#blur.apply(weights, perWeight, perOctave) };
    });
  }

  #lane(lane: Lane): Float64Array {
    let weights = this.#faded.get(lane);
    if (weights === undefined) {
      weights = new Float64Array(this.#shapes.sizes.length);
      this.#faded.set(lane, weights);
    }
    return weights;
  }

  #scale(atSeconds: number): number {
    const scaled = this.#scaled;
    if (scaled.atSeconds !== atSeconds) {
      scaled.atSeconds = atSeconds;
      scaled.scale = 2 ** ((atSeconds - this.#originSeconds) / this.#halfLifeSeconds);
    }
    return scaled.scale;
  }

  #rescale(atSeconds: number): void {
    if (atSeconds - this.#originSeconds < RESCALE_HALF_LIVES * this.#halfLifeSeconds) return;
    const scale = this.#scale(atSeconds);
    for (const weights of this.#faded.values()) {
      for (let size = 0; size < weights.length; size++)
        weights[size] = (weights[size] ?? 0) / scale;
    }
    this.#originSeconds = atSeconds;
    this.#scaled.atSeconds = Number.NaN;
  }
}

/**
 * Spreads each size's steps over its neighbours, by `exp(-octaves / BLUR_OCTAVES)`. Such a falling
 * exponential is summed from both ends, so that it takes as many steps as there are sizes.
 */
class Blur {
  /** The octaves of step sizes that round up to each size. */
  readonly #octaves: Float64Array;
  /** What is left of a share from one size to the next. */
  readonly #fades: Float64Array;
  /** One over the sum of a size's shares. */
  readonly #norms: Float64Array;

  constructor(octaves: Float64Array) {
    this.#octaves = octaves;
    this.#fades = this.#octaves.map((distance) => Math.exp(-distance / BLUR_OCTAVES));
    // The kernel looks the same from both ends: the sum of shares given is that of shares taken.
    this.#norms = this.#sums(this.#octaves).map((sum) => 1 / sum);
  }

  apply(weights: Float64Array, perWeight: number, perOctave: number): Float64Array {
    const spread = this.#sums(weights.map((weight, size) => weight * (this.#norms[size] ?? 0)));
    return spread.map((sum, size) => (sum * perWeight + perOctave) * (this.#octaves[size] ?? 0));
  }

  /** For each size the sum over all of their values, faded with the distance. */
  #sums(values: Float64Array): Float64Array {
    const sums = new Float64Array(values.length);
    let before = 0;
    for (let size = 0; size < values.length; size++) {
      before = before * (this.#fades[size] ?? 0) + (values[size] ?? 0);
      sums[size] = before;
    }
    let after = 0;
    for (let size = values.length - 2; size >= 0; size--) {
      after = (after + (values[size + 1] ?? 0)) * (this.#fades[size + 1] ?? 0);
      sums[size] = (sums[size] ?? 0) + after;
    }
    return sums;
  }
}

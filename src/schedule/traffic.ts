/**
 * A decayed histogram of steps: what the engine runs, the recent past counting more, and from it
 * the steps to come.
 *
 * Weights are request-steps (a step that ten requests wait on counts ten). All of them fade alike,
 * so new ones are written down larger instead ("forward decay"): time costs nothing.
 */

import type { StepShape } from "../graph.ts";
import type { Bucket, Lane, Shapes } from "./shapes.ts";

export interface Traffic {
  readonly bucket: Bucket;
  /** Request-steps. */
  readonly weight: number;
}

/** Long enough to remember through a minute's lull, short enough to forget the morning by noon. */
const HALF_LIFE_SECONDS = 300;
/** Half-lives after which the weights are scaled back. */
const RESCALE_HALF_LIVES = 64;
/** How fast a size's share falls with the distance in octaves. */
const BLUR_OCTAVES = 0.5;

export class TrafficHistogram {
  /** Steps with a choice seen so far, not decayed. */
  steps = 0;
  readonly #shapes: Shapes;
  readonly #halfLifeSeconds: number;
  readonly #lanes = new Map<Lane, Float64Array>();
  readonly #blurs: (Float64Array | undefined)[] = [];
  #originSeconds = 0;

  constructor(shapes: Shapes, halfLifeSeconds: number = HALF_LIFE_SECONDS) {
    this.#shapes = shapes;
    this.#halfLifeSeconds = halfLifeSeconds;
  }

  add(step: StepShape, count: number, requests: number, atSeconds: number): void {
    const bucket = this.#shapes.bucketOf(step);
    if (bucket === undefined) return;
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
    return (this.#lanes.get(bucket.lane)?.[bucket.size] ?? 0) / this.#scale(atSeconds);
  }

  /**
   * The steps to come: those remembered, blurred over neighbouring sizes, because a batch of 9 now
   * is a batch of 11 soon, and a little of every size.
   *
   * @param prior request-steps for each octave of decode steps of `decode` tokens a request; mixed
   * steps get a quarter of it
   */
  forecast(atSeconds: number, decode: number, prior: number): Traffic[] {
    const { sizes } = this.#shapes;
    if (prior > 0) {
      this.#lane(this.#shapes.laneOf({ tokens: 1, requests: 1, uniform: decode }));
      this.#lane(this.#shapes.laneOf({ tokens: 1, requests: 1, uniform: 0 }));
    }
    const scale = this.#scale(atSeconds);
    const expected: Traffic[] = [];
    for (const [lane, weights] of this.#lanes) {
      const blurred = this.#blurred(weights);
      const laneWeight = (lane.uniform === 0 ? 0.25 : 1) * prior;
      for (let size = 0; size < sizes.length; size++) {
        const weight = (blurred[size] ?? 0) / scale + laneWeight * this.#octaves(size);
        const bucket = weight > 0 ? lane.bucket(size) : undefined;
        if (bucket !== undefined) expected.push({ bucket, weight });
      }
    }
    return expected;
  }

  #blurred(weights: Float64Array): Float64Array {
    const blurred = new Float64Array(weights.length);
    for (let from = 0; from < weights.length; from++) {
      const weight = weights[from] ?? 0;
      if (weight === 0) continue;
      const blur = this.#blur(from);
      for (let to = 0; to < blurred.length; to++) {
        blurred[to] = (blurred[to] ?? 0) + weight * (blur[to] ?? 0);
      }
    }
    return blurred;
  }

  /** Shares of a size's steps that are expected at each size. */
  #blur(from: number): Float64Array {
    const known = this.#blurs[from];
    if (known !== undefined) return known;
    const { sizes } = this.#shapes;
    const tokens = sizes[from] ?? 1;
    const blur = Float64Array.from(sizes, (size, index) => {
      return this.#octaves(index) * Math.exp(-Math.abs(Math.log2(size / tokens)) / BLUR_OCTAVES);
    });
    const sum = blur.reduce((total, share) => total + share, 0);
    for (let size = 0; size < blur.length; size++) blur[size] = (blur[size] ?? 0) / sum;
    this.#blurs[from] = blur;
    return blur;
  }

  /** The octaves of step sizes that round up to this one. */
  #octaves(size: number): number {
    const { sizes } = this.#shapes;
    return size === 0 ? 1 : Math.log2((sizes[size] ?? 1) / (sizes[size - 1] ?? 1));
  }

  #lane(lane: Lane): Float64Array {
    let weights = this.#lanes.get(lane);
    if (weights === undefined) {
      weights = new Float64Array(this.#shapes.sizes.length);
      this.#lanes.set(lane, weights);
    }
    return weights;
  }

  #scale(atSeconds: number): number {
    return 2 ** ((atSeconds - this.#originSeconds) / this.#halfLifeSeconds);
  }

  #rescale(atSeconds: number): void {
    if (atSeconds - this.#originSeconds < RESCALE_HALF_LIVES * this.#halfLifeSeconds) return;
    const scale = this.#scale(atSeconds);
    for (const weights of this.#lanes.values()) {
      for (let size = 0; size < weights.length; size++)
        weights[size] = (weights[size] ?? 0) / scale;
    }
    this.#originSeconds = atSeconds;
  }
}

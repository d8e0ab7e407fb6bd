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

/** What is known of each size of a lane, side by side: a step touches all of it. */
const COUNT = { steps: 0, ungraphedTimed: 1, faded: 2, numbers: 3 } as const;

/** Steps of one lane, by the place of their size. */
export class LaneDemand {
  readonly lane: Lane;
  /** Request-steps of this start. */
  readonly requestSteps: Float64Array;
  readonly #counts: Float64Array;
  #latest = 0;

  constructor(lane: Lane, sizes: number) {
    this.lane = lane;
    this.requestSteps = new Float64Array(sizes);
    this.#counts = new Float64Array(COUNT.numbers * sizes);
  }

  add(size: number, count: number, requests: number, ungraphedTimed: number): void {
    this.#latest = size;
    const at = COUNT.numbers * size;
    const counts = this.#counts;
    counts[at + COUNT.steps] = (counts[at + COUNT.steps] ?? 0) + count;
    const timed = at + COUNT.ungraphedTimed;
    counts[timed] = (counts[timed] ?? 0) + ungraphedTimed;
    this.requestSteps[size] = (this.requestSteps[size] ?? 0) + count * requests;
  }

  /** Reads the numbers of the latest size: mostly the next steps are about as large. */
  prefetch(): number {
    return this.steps(this.#latest) + (this.requestSteps[this.#latest] ?? 0);
  }

  remember(size: number, weight: number): void {
    const at = COUNT.numbers * size + COUNT.faded;
    this.#counts[at] = (this.#counts[at] ?? 0) + weight;
  }

  /** Steps of this start. */
  steps(size: number): number {
    return this.#counts[COUNT.numbers * size + COUNT.steps] ?? 0;
  }

  /** Timed steps among them without any graph. */
  ungraphedTimed(size: number): number {
    return this.#counts[COUNT.numbers * size + COUNT.ungraphedTimed] ?? 0;
  }

  /** Request-steps, of earlier starts too, at the scale of when they came. */
  faded(size: number): number {
    return this.#counts[COUNT.numbers * size + COUNT.faded] ?? 0;
  }

  /** The same of all sizes, in an array of their own. */
  allFaded(): Float64Array {
    return this.requestSteps.map((_, size) => this.faded(size));
  }

  fade(scale: number): void {
    for (let at: number = COUNT.faded; at < this.#counts.length; at += COUNT.numbers) {
      this.#counts[at] = (this.#counts[at] ?? 0) / scale;
    }
  }
}

/** Where a demand's own numbers are. The scale is one moment's: the steps of a report share it. */
const AT = { steps: 0, origin: 1, scaled: 2, scale: 3, numbers: 4 } as const;

export class Demand {
  /** Calls of `add` that counted. */
  added = 0;
  /** Of each lane that steps have come in, or may come in. */
  readonly lanes: LaneDemand[] = [];
  readonly #shapes: Shapes;
  readonly #halfLifeSeconds: number;
  /** The same by the places of lanes. */
  readonly #byPlace: (LaneDemand | undefined)[] = [];
  readonly #blur: Blur;
  readonly #numbers = new Float64Array(AT.numbers);

  constructor(shapes: Shapes, halfLifeSeconds: number = HALF_LIFE_SECONDS) {
    this.#shapes = shapes;
    this.#halfLifeSeconds = halfLifeSeconds;
    this.#blur = new Blur(shapes.octaves);
    this.#numbers[AT.scaled] = Number.NaN;
  }

  /** Reads what steps will be added to; the number has no meaning (engine/prefetch.ts). */
  prefetch(): number {
    let sum = this.steps;
    for (const lane of this.lanes) sum += lane.prefetch();
    return sum;
  }

  /** Steps with a choice seen so far, in earlier starts too; not decayed. */
  get steps(): number {
    return this.#at(AT.steps);
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
    this.added++;
    const lane = this.#lane(bucket.lane);
    lane.add(bucket.size, count, requests, ungraphedTimed);
    this.#remember(lane, bucket.size, count, requests, atSeconds);
  }

  /** Books steps of earlier starts: what is to come may be like them. */
  expect(step: StepShape, count: number, requests: number, atSeconds: number): void {
    const bucket = this.#shapes.bucketOf(step);
    if (bucket === undefined) return;
    this.#remember(this.#lane(bucket.lane), bucket.size, count, requests, atSeconds);
  }

  #remember(
    lane: LaneDemand,
    size: number,
    count: number,
    requests: number,
    atSeconds: number,
  ): void {
    this.#rescale(atSeconds);
    this.#numbers[AT.steps] = this.steps + count;
    lane.remember(size, count * requests * this.#scale(atSeconds));
  }

  /** Request-steps remembered of a bucket. */
  weight(step: StepShape, atSeconds: number): number {
    const bucket = this.#shapes.bucketOf(step);
    if (bucket === undefined) return 0;
    const faded = this.#byPlace[bucket.lane.place]?.faded(bucket.size) ?? 0;
    return faded / this.#scale(atSeconds);
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
    return this.lanes.map((demand) => {
      const { lane } = demand;
      const perOctave = (lane.uniform === 0 ? 0.25 : 1) * prior;
      return { lane, weights: this.#blur.apply(demand.allFaded(), perWeight, perOctave) };
    });
  }

  #lane(lane: Lane): LaneDemand {
    let demand = this.#byPlace[lane.place];
    if (demand === undefined) {
      demand = new LaneDemand(lane, this.#shapes.sizes.length);
      this.#byPlace[lane.place] = demand;
      this.lanes.push(demand);
    }
    return demand;
  }

  #scale(atSeconds: number): number {
    if (this.#at(AT.scaled) !== atSeconds) {
      this.#numbers[AT.scaled] = atSeconds;
      const halfLives = (atSeconds - this.#at(AT.origin)) / this.#halfLifeSeconds;
      this.#numbers[AT.scale] = 2 ** halfLives;
    }
    return this.#at(AT.scale);
  }

  #rescale(atSeconds: number): void {
    const seconds = atSeconds - this.#at(AT.origin);
    if (seconds < RESCALE_HALF_LIVES * this.#halfLifeSeconds) return;
    const scale = this.#scale(atSeconds);
    for (const lane of this.lanes) lane.fade(scale);
    this.#numbers[AT.origin] = atSeconds;
    this.#numbers[AT.scaled] = Number.NaN;
  }

  #at(place: number): number {
    return this.#numbers[place] ?? 0;
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

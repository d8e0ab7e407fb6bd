/**
 * How long the engine stays idle: from past gaps, in bins of powers of two.
 *
 * A capture that starts `t` seconds into a gap and stalls for `c` meets an arrival with the share
 * of past gaps longer than `t` that ended before `t + c`. Bursty traffic thus makes a long quiet
 * more trustworthy than a short one, without any assumed distribution; until gaps have been seen,
 * a few made-up ones stand in, of which many are long.
 */

/** Lower edge of the first bin; 28 bins reach past a day. */
const SHORTEST_SECONDS = 0.001;
const BINS = 28;
/** Each new gap fades the older ones by this much: some 60 are remembered. */
const FADE = 1 - 1 / 60;
/** Gaps of the prior, and the median of their lengths. */
const PRIOR_GAPS = 2;
const PRIOR_MEDIAN_SECONDS = 1;

export class Gaps {
  readonly #bins = new Float64Array(BINS);
  #idleSinceSeconds: number | undefined;
  #countedSeconds = 0;
  #gaps = 0;
  #arrivalsPerSecond: number;

  constructor() {
    for (let bin = 0; bin < BINS; bin++) {
      const from = bin === 0 ? 0 : edge(bin);
      this.#bins[bin] = PRIOR_GAPS * (longerShare(from) - longerShare(edge(bin + 1)));
    }
    this.#arrivalsPerSecond = this.#arrivals();
  }

  /** Gaps seen, not faded. */
  get count(): number {
    return this.#gaps;
  }

  idle(atSeconds: number): void {
    this.#idleSinceSeconds ??= atSeconds;
  }

  /** The gap ended: with an arrival. */
  busy(atSeconds: number): void {
    if (this.#idleSinceSeconds === undefined) return;
    const seconds = Math.max(0, atSeconds - this.#idleSinceSeconds);
    this.#idleSinceSeconds = undefined;
    for (let bin = 0; bin < BINS; bin++) this.#bins[bin] = (this.#bins[bin] ?? 0) * FADE;
    const bin = binOf(seconds);
    this.#bins[bin] = (this.#bins[bin] ?? 0) + 1;
    this.#countedSeconds = this.#countedSeconds * FADE + seconds;
    this.#gaps++;
    this.#arrivalsPerSecond = this.#arrivals();
  }

  /** Seconds the engine has been idle; 0 while it is not. */
  lastedSeconds(atSeconds: number): number {
    return Math.max(0, atSeconds - (this.#idleSinceSeconds ?? atSeconds));
  }

  /** Probability that an arrival falls into the next `stallSeconds`. */
  arrivalShare(atSeconds: number, stallSeconds: number): number {
    const lasted = this.lastedSeconds(atSeconds);
    const longer = this.#longerThan(lasted);
    if (longer <= 0) return 0;
    return Math.min(1, Math.max(0, 1 - this.#longerThan(lasted + stallSeconds) / longer));
  }

  /** Arrivals in a second, from the mean gap: an idle engine waits for exactly one. */
  get arrivalsPerSecond(): number {
    return this.#arrivalsPerSecond;
  }

  #arrivals(): number {
    let gaps = 0;
    for (const weight of this.#bins) gaps += weight;
    return gaps / (this.#countedSeconds + PRIOR_GAPS * PRIOR_MEDIAN_SECONDS);
  }

  /** Weight of the gaps longer than this, linear within a bin. */
  #longerThan(seconds: number): number {
    const bin = binOf(seconds);
    let longer = 0;
    for (let above = bin + 1; above < BINS; above++) longer += this.#bins[above] ?? 0;
    const from = bin === 0 ? 0 : edge(bin);
    const within = Math.min(1, Math.max(0, (seconds - from) / (edge(bin + 1) - from)));
    return longer + (this.#bins[bin] ?? 0) * (1 - within);
  }
}

/**
 * Of the prior's gaps, those longer than this. Half are longer than a second, and of those that have
 * lasted long half last as long again (a Lomax distribution), as nobody knows whether anybody comes.
 */
function longerShare(seconds: number): number {
  return 1 / (1 + seconds / PRIOR_MEDIAN_SECONDS);
}

function edge(bin: number): number {
  return SHORTEST_SECONDS * 2 ** bin;
}

function binOf(seconds: number): number {
  if (seconds < 2 * SHORTEST_SECONDS) return 0;
  return Math.min(BINS - 1, Math.floor(Math.log2(seconds / SHORTEST_SECONDS)));
}

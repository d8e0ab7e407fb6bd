/**
 * When a run of free-memory readings is worth a call-back, for the nvidia-smi reader. Pure. The
 * same rules as native/src/trend.cc; both are tested on test/gpu-memory/trend-cases.txt.
 */

export interface TrendOptions {
  /** Below this many free bytes is news; 0 turns the threshold off. */
  readonly belowBytes: number;
  /** How far free memory has to rise over the threshold before a second fall is news again. */
  readonly hysteresisBytes: number;
  /** A predicted exhaustion within so many seconds is news; 0 turns that off. */
  readonly withinSeconds: number;
}

export interface TrendReport {
  readonly news?: "below" | "above" | "draining";
  readonly bytesPerSecond?: number;
  readonly secondsToExhaustion?: number;
}

interface Point {
  readonly seconds: number;
  readonly freeBytes: number;
}

const POINTS_MAX = 16;
/** Two points always make a line; four that fall begin to mean something. */
const POINTS_MIN = 4;

export class Trend {
  readonly #options: TrendOptions;
  #points: Point[] = [];
  #below = false;
  #draining = false;

  constructor(options: TrendOptions) {
    this.#options = options;
  }

  observe(seconds: number, freeBytes: number): TrendReport {
    this.#points.push({ seconds, freeBytes });
    if (this.#points.length > POINTS_MAX) this.#points.shift();

    const bytesPerSecond = slope(this.#points);
    const secondsToExhaustion =
      bytesPerSecond !== undefined && bytesPerSecond < 0 ? freeBytes / -bytesPerSecond : undefined;
    const news = this.#threshold(freeBytes, this.#prediction(secondsToExhaustion));
    return {
      ...(news !== undefined && { news }),
      ...(bytesPerSecond !== undefined && { bytesPerSecond }),
      ...(secondsToExhaustion !== undefined && { secondsToExhaustion }),
    };
  }

  /** Forgets the slope, after a gap in the readings. */
  restart(): void {
    this.#points = [];
    this.#draining = false;
  }

  #prediction(secondsToExhaustion: number | undefined): "draining" | undefined {
    const { withinSeconds } = this.#options;
    const seconds = secondsToExhaustion ?? Number.POSITIVE_INFINITY;
    if (seconds < withinSeconds && !this.#draining) {
      this.#draining = true;
      return "draining";
    }
    if (this.#draining && seconds > 2 * withinSeconds) this.#draining = false;
    return undefined;
  }

  /** The threshold outranks the prediction, which its report carries. */
  #threshold(freeBytes: number, otherwise: "draining" | undefined): TrendReport["news"] {
    const { belowBytes, hysteresisBytes } = this.#options;
    if (!this.#below && freeBytes < belowBytes) {
      this.#below = true;
      return "below";
    }
    if (this.#below && freeBytes >= belowBytes + hysteresisBytes) {
      this.#below = false;
      return "above";
    }
    return otherwise;
  }
}

/** Least squares, in bytes per second. */
function slope(points: readonly Point[]): number | undefined {
  if (points.length < POINTS_MIN) return undefined;
  // Means are taken off first: uptimes squared would eat the precision of small intervals.
  let meanSeconds = 0;
  let meanBytes = 0;
  for (const point of points) {
    meanSeconds += point.seconds / points.length;
    meanBytes += point.freeBytes / points.length;
  }
  let covariance = 0;
  let variance = 0;
  for (const point of points) {
    const seconds = point.seconds - meanSeconds;
    covariance += seconds * (point.freeBytes - meanBytes);
    variance += seconds * seconds;
  }
  return variance > 0 ? covariance / variance : undefined;
}

/** Seeded requests whose gaps follow a gamma distribution: its `cv` is the burstiness. */

import { createRandom, type Random, standardNormal } from "../base/random.ts";
import type { TraceRequest } from "../trace/trace.ts";

export interface GammaTraffic {
  /** Mean arrivals a second. */
  readonly rate: number;
  /** Standard deviation over mean of the gaps: 1 is Poisson, above 1 comes in bursts. */
  readonly cv: number;
  readonly seconds: number;
  readonly seed: number;
}

/** Lengths are lognormal, with medians near those of the conversation trace. */
export function* gammaRequests(traffic: GammaTraffic): Generator<TraceRequest, void, void> {
  const random = createRandom(traffic.seed);
  const shape = 1 / traffic.cv ** 2;
  const scale = 1 / (traffic.rate * shape);
  const tokens = (logMean: number, deviation: number): number =>
    Math.max(1, Math.round(Math.exp(logMean + deviation * standardNormal(random))));
  for (let atSeconds = 0; atSeconds < traffic.seconds; ) {
    yield { atSeconds, promptTokens: tokens(6.4, 0.9), outputTokens: tokens(5, 0.8) };
    atSeconds += gamma(random, shape) * scale;
  }
}

/** Marsaglia and Tsang, "A simple method for generating gamma variables", 2000. */
export function gamma(random: Random, shape: number): number {
  if (shape < 1) return gamma(random, shape + 1) * (1 - random()) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const normal = standardNormal(random);
    const v = (1 + c * normal) ** 3;
    if (v <= 0) continue;
    if (Math.log(1 - random()) < normal ** 2 / 2 + d - d * v + d * Math.log(v)) return d * v;
  }
}

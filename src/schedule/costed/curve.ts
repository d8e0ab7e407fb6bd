/** A cost over sizes, from the sizes at which it was measured: a power law between two of them. */

/** A measured size. */
export interface Point {
  readonly tokens: number;
  readonly seconds: number;
}

/** Larger steps take no less, and at most in proportion. */
const SLOPE_MAX = 1;
/** A slope that is to hold beyond its points is taken over so wide a range at least. */
const FAR_FACTOR = 4;
/** From 1 to 8 tokens: 0 on a Llama-3.1-8B, 0.37 on a 30B mixture of experts. */
const SLOPE_HOPED = 0.25;

/**
 * Seconds at `tokens`, along a line in octaves of both: between two points through these, and below
 * the first one as from there to a point far above. On a Llama-3.1-8B such lines are flat at the
 * small end; on a mixture of experts, where each token wakes more of them, they rise from the first
 * size on.
 *
 * Without such a point the slope is hoped to be one between the two: who hopes in vain captures a
 * graph too many, and knows its cost from then on.
 *
 * @param points by rising tokens
 * @returns undefined above the last point, of which the points say nothing
 */
export function alongCurve(points: readonly Point[], tokens: number): number | undefined {
  const [first] = points;
  const last = points.at(-1);
  if (first === undefined || last === undefined || tokens > last.tokens) return undefined;
  const next = points.findIndex((point) => point.tokens >= tokens);
  const from = next <= 0 ? first : points[next - 1];
  const to =
    next > 0 ? points[next] : points.find((point) => point.tokens >= FAR_FACTOR * first.tokens);
  const slope = to === undefined || from === undefined ? SLOPE_HOPED : slopeOf(from, to);
  return (from ?? first).seconds * (tokens / (from ?? first).tokens) ** slope;
}

function slopeOf(from: Point, to: Point): number {
  const slope = Math.log(to.seconds / from.seconds) / Math.log(to.tokens / from.tokens);
  return Math.min(SLOPE_MAX, Math.max(0, slope));
}

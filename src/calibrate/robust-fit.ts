/** Statistics that a few wild measurements don't move. Pure. */

export interface Weighted {
  readonly value: number;
  readonly weight: number;
}

/** Of a cell: where its middle half lies, and how many steps are behind it. */
export interface CellFigures {
  readonly median: number;
  readonly q1: number;
  readonly q3: number;
  readonly samples: number;
}

/** Undefined without values. */
export function cellFigures(values: readonly Weighted[]): CellFigures | undefined {
  const sorted = values.filter(({ weight }) => weight > 0).sort((a, b) => a.value - b.value);
  const samples = sorted.reduce((sum, { weight }) => sum + weight, 0);
  if (samples === 0) return undefined;
  const at = (share: number): number => {
    let below = 0;
    for (const { value, weight } of sorted) {
      below += weight;
      if (below >= share * samples) return value;
    }
    return sorted.at(-1)?.value ?? 0;
  };
  return { median: at(0.5), q1: at(0.25), q3: at(0.75), samples };
}

export interface Point {
  /** Points of one group have an intercept of their own. */
  readonly group: string;
  readonly x: number;
  readonly y: number;
  readonly weight: number;
}

/** Rounds of reweighting: it has converged long before. */
const ROUNDS = 20;
/** Huber's constant: 95% efficient where errors are normal. */
const HUBER = 1.345;
/** The median absolute deviation of a normal distribution, as a share of its deviation. */
const MAD_SHARE = 0.6745;

/**
 * The slope within groups, by Huber's reweighted least squares; never below 0, because every term
 * it stands for costs time. Undefined when no group's points differ in `x`.
 */
export function slopeWithin(points: readonly Point[]): number | undefined {
  const weights = points.map(({ weight }) => weight);
  let slope: number | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    const means = groupMeans(points, weights);
    let squares = 0;
    let products = 0;
    const offsets = points.map(({ group, x, y }, index) => {
      const mean = means.get(group) ?? { x: 0, y: 0 };
      const [dx, dy] = [x - mean.x, y - mean.y];
      squares += (weights[index] ?? 0) * dx * dx;
      products += (weights[index] ?? 0) * dx * dy;
      return { dx, dy };
    });
    if (!(squares > 0)) return undefined;
    slope = products / squares;
    const off = offsets.map(({ dx, dy }) => Math.abs(dy - (slope ?? 0) * dx));
    const limit = (HUBER * medianOf(off)) / MAD_SHARE;
    for (const [index, distance] of off.entries()) {
      const share = distance <= limit || distance === 0 ? 1 : limit / distance;
      weights[index] = (points[index]?.weight ?? 0) * share;
    }
  }
  return slope === undefined ? undefined : Math.max(0, slope);
}

export interface PlanePoint {
  readonly x: readonly [number, number];
  readonly y: number;
  readonly weight: number;
}

/**
 * `y = a·x₀ + b·x₁` through the origin, reweighted likewise; neither below 0. Where the points tell
 * only one of the two apart, the other is 0.
 */
export function planeThroughOrigin(points: readonly PlanePoint[]): [number, number] | undefined {
  const weights = points.map(({ weight }) => weight);
  return fitPlane(points, weights, { moved: (given) => given, scaleOf: () => 1 });
}

/**
 * The slopes of `y = a·x₀ + b·x₁ + c`, whatever `c` is, of points whose noise is a share of `y`: a
 * long one must not outvote the short ones by what it scatters.
 */
export function planeSlopes(points: readonly PlanePoint[]): [number, number] | undefined {
  const weights = points.map(({ y, weight }) => weight / y ** 2);
  return fitPlane(points, weights, { moved: centred, scaleOf: ({ y }) => y });
}

interface PlaneFit {
  readonly moved: (
    points: readonly PlanePoint[],
    weights: readonly number[],
  ) => readonly PlanePoint[];
  /** What a point's distance is measured in. */
  readonly scaleOf: (point: PlanePoint) => number;
}

function fitPlane(
  points: readonly PlanePoint[],
  given: readonly number[],
  { moved, scaleOf }: PlaneFit,
): [number, number] | undefined {
  const weights = [...given];
  const scales = points.map(scaleOf);
  let fit: [number, number] | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    const seen = moved(points, weights);
    fit = solvePlane(seen, weights);
    if (fit === undefined) return undefined;
    const [a, b] = fit;
    const off = seen.map(
      ({ x, y }, index) => Math.abs(y - a * x[0] - b * x[1]) / (scales[index] ?? 1),
    );
    const limit = (HUBER * medianOf(off)) / MAD_SHARE;
    for (const [index, distance] of off.entries()) {
      const share = distance <= limit || distance === 0 ? 1 : limit / distance;
      weights[index] = (given[index] ?? 0) * share;
    }
  }
  return fit;
}

/** The points as seen from their weighted mean. */
function centred(points: readonly PlanePoint[], weights: readonly number[]): PlanePoint[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const meanOf = (of: (point: PlanePoint) => number): number =>
    points.reduce((sum, point, index) => sum + (weights[index] ?? 0) * of(point), 0) / total;
  const [x0, x1, y0] = [meanOf(({ x }) => x[0]), meanOf(({ x }) => x[1]), meanOf(({ y }) => y)];
  return points.map(({ x, y, weight }) => ({ x: [x[0] - x0, x[1] - x1], y: y - y0, weight }));
}

function solvePlane(
  points: readonly PlanePoint[],
  weights: readonly number[],
): [number, number] | undefined {
  let [aa, ab, bb, ay, by] = [0, 0, 0, 0, 0];
  for (const [index, { x, y }] of points.entries()) {
    const weight = weights[index] ?? 0;
    aa += weight * x[0] * x[0];
    ab += weight * x[0] * x[1];
    bb += weight * x[1] * x[1];
    ay += weight * x[0] * y;
    by += weight * x[1] * y;
  }
  const determinant = aa * bb - ab * ab;
  // Relative to the sums: the two have units of their own.
  if (determinant > 1e-9 * aa * bb) {
    const a = (ay * bb - by * ab) / determinant;
    const b = (by * aa - ay * ab) / determinant;
    if (a >= 0 && b >= 0) return [a, b];
    return a < 0 ? [0, Math.max(0, by / bb)] : [Math.max(0, ay / aa), 0];
  }
  return aa > 0 ? [Math.max(0, ay / aa), 0] : undefined;
}

function groupMeans(
  points: readonly Point[],
  weights: readonly number[],
): Map<string, { x: number; y: number }> {
  const sums = new Map<string, { x: number; y: number; weight: number }>();
  for (const [index, { group, x, y }] of points.entries()) {
    const sum = sums.get(group) ?? { x: 0, y: 0, weight: 0 };
    const weight = weights[index] ?? 0;
    sum.x += weight * x;
    sum.y += weight * y;
    sum.weight += weight;
    sums.set(group, sum);
  }
  return new Map(
    [...sums].map(([group, { x, y, weight }]) => [
      group,
      weight > 0 ? { x: x / weight, y: y / weight } : { x: 0, y: 0 },
    ]),
  );
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}

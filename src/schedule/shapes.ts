/**
 * Steps by the planned size they round up to. Two steps of one bucket have the same ideal graph
 * and the same graphs that could serve them, so that demand, regret and costs are kept per bucket.
 *
 * A lane holds the buckets that differ in size only: uniform decode steps are one lane, mixed
 * steps another (one for each limit of requests, where mixed FULL graphs have such limits).
 */

import { covers, type Graph, type StepShape } from "../graph.ts";

export interface Bucket {
  readonly lane: Lane;
  /** Place of its size among `Shapes.sizes`. */
  readonly size: number;
  /** The largest step of the bucket: what every other one of it is padded to at least. */
  readonly step: StepShape;
  /** Graphs that may serve it, as places in the plan, smallest first, FULL before PIECEWISE. */
  readonly servers: Int32Array;
}

export interface Lane {
  readonly uniform: number;
  /** Undefined where no graph of the plan could serve steps of this lane and size. */
  bucket(size: number): Bucket | undefined;
}

export interface Shapes {
  readonly planned: readonly Graph[];
  /** Planned sizes, rising. */
  readonly sizes: readonly number[];
  readonly tokensMax: number;
  /** Place of the size that `tokens` round up to; `sizes.length` above the largest. */
  sizeOf(tokens: number): number;
  laneOf(step: StepShape): Lane;
  /** The bucket of a step; undefined where no graph could ever serve it. */
  bucketOf(step: StepShape): Bucket | undefined;
}

/** Where a graph stands, by its place in the plan. */
export type Held = Uint8Array;
export const HELD = { missing: 0, captured: 1, never: 2 } as const;

export function createShapes(planned: readonly Graph[]): Shapes {
  const order = planned.map((_, place) => place).sort((a, b) => bySizeThenFull(planned, a, b));
  const sizes = [...new Set(order.map((place) => planned[place]?.tokens ?? 0))];
  const limits = requestLimits(planned);
  const lanes = new Map<string, Lane>();

  function sizeOf(tokens: number): number {
    let low = 0;
    let high = sizes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sizes[middle] ?? 0) < tokens) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function createLane(uniform: number, requests: number): Lane {
    const buckets = new Map<number, Bucket | undefined>();
    const lane: Lane = {
      uniform,
      bucket(size) {
        const tokens = sizes[size];
        if (tokens === undefined) return undefined;
        if (buckets.has(size)) return buckets.get(size);
        const step = {
          tokens,
          requests: uniform > 0 ? Math.ceil(tokens / uniform) : requests,
          uniform,
        };
        const servers = order.filter((place) => {
          const graph = planned[place];
          return graph !== undefined && covers(graph, step);
        });
        const bucket =
          servers.length === 0
            ? undefined
            : { lane, size, step, servers: Int32Array.from(servers) };
        buckets.set(size, bucket);
        return bucket;
      },
    };
    return lane;
  }

  function laneOf(step: StepShape): Lane {
    const requests = step.uniform > 0 ? 0 : roundUp(step.requests, limits);
    const key = `${step.uniform}/${requests}`;
    let lane = lanes.get(key);
    if (lane === undefined) {
      lane = createLane(step.uniform, requests);
      lanes.set(key, lane);
    }
    return lane;
  }

  return {
    planned,
    sizes,
    tokensMax: sizes.at(-1) ?? 0,
    sizeOf,
    laneOf,
    bucketOf(step) {
      const size = sizeOf(step.tokens);
      return size === sizes.length ? undefined : laneOf(step).bucket(size);
    },
  };
}

/** Numbers of requests at which a mixed step stops fitting some graph, rising. */
function requestLimits(planned: readonly Graph[]): number[] {
  const limits = planned.flatMap((graph) =>
    graph.uniform === undefined ? (graph.requests ?? []) : [],
  );
  return [...new Set(limits)].sort((a, b) => a - b);
}

/** The next limit, or one more than the largest: such a step fits none of the limited graphs. */
function roundUp(requests: number, limits: readonly number[]): number {
  return limits.find((limit) => limit >= requests) ?? (limits.at(-1) ?? 0) + 1;
}

function bySizeThenFull(planned: readonly Graph[], left: number, right: number): number {
  const a = planned[left];
  const b = planned[right];
  if (a === undefined || b === undefined) return 0;
  if (a.tokens !== b.tokens) return a.tokens - b.tokens;
  if (a.kind !== b.kind) return a.kind === "FULL" ? -1 : 1;
  return (b.uniform ?? 0) - (a.uniform ?? 0);
}

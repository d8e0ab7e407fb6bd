/**
 * Steps by the planned size they round up to. Two steps of one bucket have the same ideal graph
 * and the same graphs that could serve them, so that demand, regret and costs are kept per bucket.
 *
 * A lane holds the buckets that differ in size only: uniform decode steps are one lane, mixed
 * steps another (one for each limit of requests, where mixed FULL graphs have such limits), and
 * steps of another case, as with active adapters, have lanes of their own. Within a lane a graph serves every size up to its reach: that makes sums over a lane cheap.
 */

import { caseKey, fitsCase, type Graph, type StepCase, type StepShape } from "../../base/graph.ts";
import { caseRounding } from "../cases.ts";
import { decodeLength } from "../dispatch.ts";

export interface Bucket {
  readonly lane: Lane;
  /** Place of its size among `Shapes.sizes`. */
  readonly size: number;
  /**
   * The place in the plan of its steps' ideal graph, -1 where stock has none for them; undefined
   * until somebody has looked. The same for every engine that has the plan.
   */
  ideal: number | undefined;
}

/** Where the steps of one report stand, each at its index. */
export interface Placed {
  readonly buckets: readonly (Bucket | undefined)[];
  /** Places in the plan of the graphs that served them; -1: none that it has. */
  readonly servers: readonly number[];
}

export interface Lane {
  /** Its place among the lanes of the plan, in the order in which they were asked for. */
  readonly place: number;
  /** Tokens of each request; 0: a mixed step. */
  readonly uniform: number;
  /** Of a mixed step: requests, rounded up to the next limit of any graph; 0: a uniform one's. */
  readonly requests: number;
  readonly stepCase: StepCase;
  /** Graphs that serve some of its steps, as places in the plan, by rising reach. */
  readonly places: Int32Array;
  /** For each of them the place of the largest size that it serves. */
  readonly reach: Int32Array;
}

export interface Shapes {
  readonly planned: readonly Graph[];
  /** Planned sizes, rising. */
  readonly sizes: readonly number[];
  /** The octaves of step sizes that round up to each size; 1 for the smallest. */
  readonly octaves: Float64Array;
  readonly tokensMax: number;
  /** Tokens of each request in a decode step. */
  readonly decode: number;
  /** Place in the plan by id. */
  readonly places: ReadonlyMap<string, number>;
  /** Place of the size that `tokens` round up to; `sizes.length` above the largest. */
  sizeOf(tokens: number): number;
  /** Whether it counts as a uniform step: only lengths that some graph is made for do. */
  isUniform(step: StepShape): boolean;
  laneOf(step: StepShape): Lane;
  /** The bucket of a step, always the same object; undefined where no graph could ever serve it. */
  bucketOf(step: StepShape): Bucket | undefined;
  /**
   * Of a report's steps, which several ask for in turn: of the last report it is remembered, and to
   * be read before the next one is asked for.
   */
  placed(steps: readonly (StepShape & { readonly served: string })[]): Placed;
}

/** Where a graph stands. */
export const HELD = { missing: 0, captured: 1, never: 2 } as const;
export type HeldStatus = (typeof HELD)[keyof typeof HELD];

/** Where each graph of the plan stands, by its place; the version tells whether that changed. */
export class Held {
  version = 0;
  readonly at: Uint8Array;
  #missing: number;

  constructor(graphs: number) {
    this.at = new Uint8Array(graphs);
    this.#missing = graphs;
  }

  /** Graphs that may still be captured. */
  get missing(): number {
    return this.#missing;
  }

  set(place: number, status: HeldStatus): void {
    const before = this.at[place];
    if (before === undefined || before === status) return;
    if (before === HELD.missing) this.#missing--;
    if (status === HELD.missing) this.#missing++;
    this.at[place] = status;
    this.version++;
  }
}

/** The shapes of each plan: they hold for every engine that has it. */
const known = new WeakMap<readonly Graph[], Shapes>();

export function createShapes(planned: readonly Graph[]): Shapes {
  let shapes = known.get(planned);
  if (shapes === undefined) {
    shapes = makeShapes(planned);
    known.set(planned, shapes);
  }
  return shapes;
}

function makeShapes(planned: readonly Graph[]): Shapes {
  const sizes = [...new Set(planned.map(({ tokens }) => tokens))].sort((a, b) => a - b);
  const limits = requestLimits(planned);
  const uniforms = new Set(planned.map((graph) => graph.uniform));
  const roundCase = caseRounding(planned);
  const lanes = new Map<string, Lane>();
  /** The same of steps at the defaults of all that is a case, which nearly all are. */
  const plainLanes = new Map<number, Lane>();
  const buckets = new Map<Lane, (Bucket | undefined)[]>();
  const places = new Map(planned.map(({ id }, place) => [id, place]));
  const last = { buckets: [] as (Bucket | undefined)[], servers: [] as number[] };
  let lastSteps: readonly StepShape[] | undefined;

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

  /** The largest size that the graph serves in this lane; -1: none. */
  function reachOf(graph: Graph, uniform: number, requests: number): number {
    if (graph.uniform !== undefined && graph.uniform !== uniform) return -1;
    const limit = graph.requests ?? Number.POSITIVE_INFINITY;
    if (uniform === 0) return limit >= requests ? sizeOf(graph.tokens) : -1;
    const tokens = Math.min(graph.tokens, limit * uniform);
    const size = sizeOf(tokens);
    return sizes[size] === tokens ? size : size - 1;
  }

  function createLane(uniform: number, requests: number, stepCase: StepCase): Lane {
    const reached = planned
      .map((graph, place) => {
        const fits = fitsCase(graph, stepCase);
        return { place, reach: fits ? reachOf(graph, uniform, requests) : -1 };
      })
      .filter(({ reach }) => reach >= 0)
      .sort((a, b) => a.reach - b.reach || fullFirst(planned, a.place, b.place));
    return {
      place: lanes.size,
      uniform,
      requests,
      stepCase,
      places: Int32Array.from(reached, ({ place }) => place),
      reach: Int32Array.from(reached, ({ reach }) => reach),
    };
  }

  const isUniform = ({ uniform }: StepShape): boolean => uniform > 0 && uniforms.has(uniform);

  function laneOf(step: StepShape): Lane {
    const uniform = isUniform(step) ? step.uniform : 0;
    const requests = uniform > 0 ? 0 : roundUp(step.requests, limits);
    const { loras, queryLength, microbatches } = step;
    const isPlain = loras === undefined && queryLength === undefined && microbatches === undefined;
    const plainKey = uniform > 0 ? uniform : -requests;
    const plain = isPlain ? plainLanes.get(plainKey) : undefined;
    if (plain !== undefined) return plain;
    const stepCase = roundCase(step);
    const key = `${uniform}/${requests}/${caseKey(stepCase)}`;
    let lane = lanes.get(key);
    if (lane === undefined) {
      lane = createLane(uniform, requests, stepCase);
      lanes.set(key, lane);
    }
    if (isPlain) plainLanes.set(plainKey, lane);
    return lane;
  }

  function bucketOf(step: StepShape): Bucket | undefined {
    const size = sizeOf(step.tokens);
    if (size === sizes.length) return undefined;
    const lane = laneOf(step);
    if (size > (lane.reach.at(-1) ?? -1)) return undefined;
    let ofLane = buckets.get(lane);
    if (ofLane === undefined) {
      ofLane = new Array(sizes.length).fill(undefined);
      buckets.set(lane, ofLane);
    }
    let bucket = ofLane[size];
    if (bucket === undefined) {
      bucket = { lane, size, ideal: undefined };
      ofLane[size] = bucket;
    }
    return bucket;
  }

  return {
    planned,
    sizes,
    octaves: Float64Array.from(sizes, (size, place) =>
      place === 0 ? 1 : Math.log2(size / (sizes[place - 1] ?? 1)),
    ),
    tokensMax: sizes.at(-1) ?? 0,
    decode: decodeLength(planned),
    places,
    sizeOf,
    isUniform,
    laneOf,
    bucketOf,
    placed(steps) {
      if (steps === lastSteps) return last;
      lastSteps = steps;
      last.buckets.length = 0;
      last.servers.length = 0;
      for (const step of steps) {
        last.buckets.push(bucketOf(step));
        last.servers.push(step.served === "" ? -1 : (places.get(step.served) ?? -1));
      }
      return last;
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

function fullFirst(planned: readonly Graph[], left: number, right: number): number {
  const a = planned[left];
  const b = planned[right];
  if (a === undefined || b === undefined) return 0;
  if (a.kind !== b.kind) return a.kind === "FULL" ? -1 : 1;
  return (b.uniform ?? 0) - (a.uniform ?? 0);
}

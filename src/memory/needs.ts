/**
 * What an engine's graphs need: the forecast of its plan, what captures really took, and the pools
 * that the graphs are in. Pure.
 */

import { bySizeDescending, type Graph } from "../base/graph.ts";
import type { EngineState } from "../schedule/state.ts";
import { type Fit, fitStart } from "./fit.ts";
import {
  type EngineShape,
  type Forecast,
  MemoryForecast,
  type RecordedBytes,
  upperBytes,
} from "./forecast.ts";
import type { Kept } from "./ledger.ts";
import { DEFAULT_POOL, leastValuable, poolTops, tierLists } from "./tiers.ts";

/** Nothing is known of tiers: all graphs are in the one pool. */
const ONE_POOL: ReadonlyMap<string, number> = new Map();

export class GraphNeeds {
  /** What each captured graph took. */
  readonly #observed = new Map<string, number>();
  /** All of them together. */
  #observedBytes = 0;
  /** What was kept back from the KV cache for graphs. */
  #reservedBytes = 0;
  /** Whether that was for all of them. */
  #reservedPlan = false;
  #forecast: MemoryForecast | undefined;
  #tiers: ReadonlyMap<string, number> | undefined;

  /** A new plan: nothing of it was seen captured. */
  plan(planned: readonly Graph[], shape: EngineShape, recorded?: RecordedBytes): void {
    this.#forecast = new MemoryForecast(planned, shape, recorded);
    this.#reservedBytes = shape.reserve?.bytes ?? 0;
    this.#reservedPlan = shape.reserve?.mode === "plan";
    this.#observed.clear();
    this.#observedBytes = 0;
    this.#tiers = undefined;
  }

  /** An engine that has its pools already, from an earlier controller, says which. */
  adopt(tiers: readonly (readonly string[])[]): void {
    if (tiers.length === 0) return;
    this.#tiers = new Map(tiers.flatMap((tier, index) => tier.map((id) => [id, index] as const)));
  }

  /**
   * Learns from captures; what was learned before is left out.
   *
   * @param state with these graphs marked as captured
   */
  captured(
    captures: readonly { readonly graph: Graph; readonly bytes: number }[],
    state: EngineState,
  ): void {
    const news = captures.filter(({ graph }) => !this.#observed.has(graph.id));
    if (news.length === 0) return;
    const names = new Set(news.map(({ graph }) => graph.id));
    const tops = poolTops(state, this.#tiers ?? ONE_POOL, names);
    // Captured in one go, the largest one is booked with the pool.
    for (const { graph, bytes } of [...news].sort((a, b) => bySizeDescending(a.graph, b.graph))) {
      const top = tops.get(this.#pool(graph)) ?? 0;
      this.#forecast?.observe(graph, bytes, top);
      tops.set(this.#pool(graph), Math.max(top, graph.tokens));
      this.#observe(graph.id, bytes);
    }
  }

  #observe(graph: string, bytes: number): void {
    this.#observedBytes += bytes - (this.#observed.get(graph) ?? 0);
    this.#observed.set(graph, bytes);
  }

  /** Dropped graphs teach anew what they take when they are captured again. */
  dropped(graphs: readonly string[]): void {
    for (const graph of graphs) {
      this.#observedBytes -= this.#observed.get(graph) ?? 0;
      this.#observed.delete(graph);
    }
  }

  /** On each rank. */
  get kept(): Kept {
    return { bytes: this.#reservedBytes, untakenBytes: this.#untakenBytes() };
  }

  /** What to capture before ready; without figures whatever the policy wants. */
  start(wanted: readonly Graph[], state: EngineState, roomBytes: number | undefined): Fit {
    if (this.#forecast === undefined || roomBytes === undefined) {
      return { graphs: wanted, needBytes: 0, blocked: [], tiers: undefined };
    }
    // What the user excluded takes nothing, and is no top.
    const planned = state.planned.filter(({ id }) => state.graphs.get(id)?.status !== "refused");
    // The engine has added a bar to what it keeps for the plan: a second one beside it doesn't fit.
    const keptForAll = this.#reservedPlan && roomBytes >= this.#untakenBytes();
    const headroomBytes = keptForAll ? Number.POSITIVE_INFINITY : roomBytes;
    const fit = fitStart({ planned, wanted, forecast: this.#forecast, headroomBytes });
    this.#tiers = fit.tiers;
    return fit;
  }

  /** The tiers as the start message names them. */
  tierLists(planned: readonly Graph[]): readonly (readonly string[])[] | undefined {
    return this.#tiers === undefined ? undefined : tierLists(planned, this.#tiers);
  }

  /** The tier that is worth the least; empty where one pool holds all. */
  leastTier(state: EngineState): readonly Graph[] {
    return this.#tiers === undefined ? [] : leastValuable(state, this.#tiers);
  }

  /** Tokens of the largest captured graph in each pool. */
  tops(state: EngineState): ReadonlyMap<number, number> {
    return poolTops(state, this.#tiers ?? ONE_POOL);
  }

  /** Upper end of what one more graph takes, in pools as they are; 0 before the plan is known. */
  one(graph: Graph, tops: ReadonlyMap<number, number>): number {
    const top = tops.get(this.#pool(graph)) ?? 0;
    return this.#forecast === undefined ? 0 : upperBytes(this.#forecast.graph(graph, top));
  }

  /** What these graphs take together; undefined before the plan is known. */
  together(graphs: readonly Graph[], tops: ReadonlyMap<number, number>): Forecast | undefined {
    return this.#forecast?.rest(
      graphs.map((graph) => ({ graph, pool: this.#pool(graph) })),
      tops,
    );
  }

  #untakenBytes(): number {
    return Math.max(0, this.#reservedBytes - this.#observedBytes);
  }

  #pool(graph: Graph): number {
    return this.#tiers?.get(graph.id) ?? DEFAULT_POOL;
  }
}

/**
 * The guard of one engine: what may be captured with the memory there is. Pure but for the ledger
 * that engines share: figures go in, grants and refusals come out.
 *
 *   ranks, driver readings ─▶ claims in the ledger ─▶ headroom ─▶ grant, or refusal with numbers
 *   captures ─▶ forecast ─▶ what each graph needs                └▶ drop a tier, ask again
 */

import { bySizeDescending, type Graph } from "../graph.ts";
import type { EngineState } from "../schedule/state.ts";
import type { RankMemory } from "../wire/protocol.ts";
import { Backoff } from "./backoff.ts";
import { type Fit, fitStart } from "./fit.ts";
import {
  type EngineShape,
  type Forecast,
  MemoryForecast,
  type RecordedBytes,
  upperBytes,
} from "./forecast.ts";
import {
  FLOOR_BYTES,
  type FreeReading,
  freeReading,
  type ServingClaim,
  servingClaim,
  wholeClaimBytes,
} from "./headroom.ts";
import type { MemoryLedger } from "./ledger.ts";
import { DEFAULT_POOL, leastValuable, poolTops, tierLists } from "./tiers.ts";

const MIB = 1024 * 1024;

export interface GuardOptions {
  /** Who claims and reserves, unique among the engines of the ledger. */
  readonly engine: string;
  readonly ledger: MemoryLedger;
  /** The user's margin; undefined: an allowance that serving uses up. */
  readonly marginBytes: number | undefined;
  /** Free bytes of a GPU as this host's driver says; undefined where it can't be asked. */
  readonly driverFree: (gpu: string) => number | undefined;
  /** Monotonic seconds. */
  readonly now: () => number;
}

/** Memory of the rank that has the least room. */
export interface Headroom {
  readonly gpu: string;
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** What must stay free: serving's needs, of all engines of this GPU, and their reservations. */
  readonly spokenForBytes: number;
  /** Of it, what this rank's own serving needs. */
  readonly claim: ServingClaim;
  /**
   * Free less spoken for, or what there would be with torch's cache emptied, if that is more;
   * negative where serving itself has too little.
   */
  readonly bytes: number;
}

/** Graphs that may be asked for again. */
export interface Returning {
  readonly graphs: readonly string[];
  /** True where there is no figure that says so, and the engine is asked to find out. */
  readonly probe: boolean;
}

export interface Grant {
  readonly granted: true;
  readonly needBytes: number;
  readonly release: () => void;
}

export interface Refusal {
  readonly granted: false;
  readonly needBytes: number;
  readonly availableBytes: number;
  /** Planned graphs that don't fit either, the asked one included. */
  readonly graphs: readonly string[];
}

/** More than a graph needs must be free before it is asked for again. */
const HYSTERESIS_BYTES = 16 * MIB;
const HYSTERESIS_SHARE = 0.1;
/** An engine reports memory with its answers: an older report than this tells the past. */
const REPORT_SECONDS_MAX = 5;
/** A graph that a policy doesn't ask for by then was the wrong one to find out with. */
const PROBE_SECONDS = 30;
const NOBODY: Returning = { graphs: [], probe: false };

/** What must be free for graphs that are asked for again. */
function roomFor(needBytes: number): number {
  return needBytes + Math.max(HYSTERESIS_BYTES, HYSTERESIS_SHARE * needBytes);
}

export class MemoryGuard {
  readonly #options: GuardOptions;
  readonly #backoff: Backoff;
  readonly #firstRanks = new Map<number, RankMemory>();
  /** What each captured graph took. */
  readonly #observed = new Map<string, number>();
  /** What was kept back from the KV cache for graphs. */
  #reservedBytes = 0;
  /** Whether that was for all of them. */
  #reservedPlan = false;
  #ranks: readonly RankMemory[] = [];
  /** What serving still needs on each GPU, and the ranks there. */
  #claims: ReadonlyMap<string, { readonly bytes: number; readonly ranks: number }> = new Map();
  #forecast: MemoryForecast | undefined;
  #tiers: ReadonlyMap<string, number> | undefined;
  #reportedAtSeconds = Number.NEGATIVE_INFINITY;
  /** A graph that is asked for to hear from the engine how much is free by now. */
  #probe: { readonly graph: string; readonly untilSeconds: number } | undefined;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#backoff = new Backoff(options.now);
  }

  /** When the next review may ask again for what was refused. */
  get retryAtSeconds(): number {
    return this.#backoff.atSeconds;
  }

  /** A new plan: nothing of it was seen captured. */
  plan(planned: readonly Graph[], shape: EngineShape, recorded?: RecordedBytes): void {
    this.#forecast = new MemoryForecast(planned, shape, recorded);
    this.#reservedBytes = shape.reserve?.bytes ?? 0;
    this.#reservedPlan = shape.reserve?.mode === "plan";
    this.#observed.clear();
    this.#tiers = undefined;
  }

  /** An engine that has its pools already, from an earlier controller, says which. */
  adopt(tiers: readonly (readonly string[])[]): void {
    if (tiers.length === 0) return;
    this.#tiers = new Map(tiers.flatMap((tier, index) => tier.map((id) => [id, index] as const)));
  }

  /** Every report of the engine; the first one of a rank is what serving's growth starts from. */
  report(ranks: readonly RankMemory[]): void {
    this.#ranks = ranks;
    this.#reportedAtSeconds = this.#options.now();
    const claims = new Map<string, { bytes: number; ranks: number }>();
    for (const rank of ranks) {
      if (!this.#firstRanks.has(rank.rank)) this.#firstRanks.set(rank.rank, rank);
      const { peakBytes, marginBytes } = this.#claim(rank);
      const { bytes, ranks: others } = claims.get(rank.gpuUuid) ?? { bytes: 0, ranks: 0 };
      claims.set(rank.gpuUuid, { bytes: bytes + peakBytes + marginBytes, ranks: others + 1 });
    }
    this.#claims = claims;
    this.#book();
  }

  /** Serving's claim, and what each rank keeps for graphs. */
  #book(): void {
    const { ledger, engine } = this.#options;
    const untakenBytes = this.#reservedUntakenBytes();
    for (const [gpu, { bytes, ranks }] of this.#claims) {
      const kept = { bytes: ranks * this.#reservedBytes, untakenBytes: ranks * untakenBytes };
      ledger.claim(gpu, engine, bytes, kept);
    }
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
    const names = new Set(news.map(({ graph }) => graph.id));
    const tops = new Map<number, number>();
    for (const { graph, status } of state.graphs.values()) {
      if (status !== "captured" || names.has(graph.id)) continue;
      tops.set(this.#pool(graph), Math.max(tops.get(this.#pool(graph)) ?? 0, graph.tokens));
    }
    // Captured in one go, the largest one is booked with the pool.
    for (const { graph, bytes } of [...news].sort((a, b) => bySizeDescending(a.graph, b.graph))) {
      const top = tops.get(this.#pool(graph)) ?? 0;
      this.#forecast?.observe(graph, bytes, top);
      tops.set(this.#pool(graph), Math.max(top, graph.tokens));
      this.#observed.set(graph.id, bytes);
    }
    this.#book();
  }

  /** Dropped graphs teach anew what they take when they are captured again. */
  dropped(graphs: readonly string[]): void {
    for (const graph of graphs) this.#observed.delete(graph);
    this.#book();
  }

  /** What the graphs with these states will take, in the pools as they are. */
  rest(state: EngineState, counts: (id: string) => boolean): Forecast | undefined {
    const graphs = state.planned.filter((graph) => counts(graph.id));
    return this.#forecast?.rest(
      graphs.map((graph) => ({ graph, pool: this.#pool(graph) })),
      this.#tops(state),
    );
  }

  /** Upper end of what one more graph takes, in pools as they are; 0 before the plan is known. */
  #need(graph: Graph, tops: ReadonlyMap<number, number>): number {
    const top = tops.get(this.#pool(graph)) ?? 0;
    return this.#forecast === undefined ? 0 : upperBytes(this.#forecast.graph(graph, top));
  }

  /** Undefined while no rank has reported. */
  headroom(): Headroom | undefined {
    const { ledger, engine } = this.#options;
    let least: Headroom | undefined;
    for (const rank of this.#ranks) {
      const { freeBytes } = this.#free(rank);
      const spokenForBytes = ledger.offLimits(rank.gpuUuid, engine, freeBytes);
      const bytes = Math.max(freeBytes - spokenForBytes, this.#emptiedBytes(rank));
      if (least !== undefined && least.bytes <= bytes) continue;
      const { gpuUuid: gpu, totalBytes } = rank;
      least = { gpu, totalBytes, freeBytes, spokenForBytes, claim: this.#claim(rank), bytes };
    }
    return least;
  }

  /** What to capture before ready; without figures whatever the policy wants. */
  start(wanted: readonly Graph[], state: EngineState): Fit {
    let headroomBytes = this.headroom()?.bytes;
    if (this.#forecast === undefined || headroomBytes === undefined) {
      return { graphs: wanted, needBytes: 0, blocked: [], tiers: undefined };
    }
    // What the user excluded takes nothing, and is no top.
    const planned = state.planned.filter(({ id }) => state.graphs.get(id)?.status !== "refused");
    // The engine has added a bar to what it keeps for the plan: a second one beside it doesn't fit.
    if (this.#reservedPlan && headroomBytes >= this.#reservedUntakenBytes()) {
      headroomBytes = Number.POSITIVE_INFINITY;
    }
    const fit = fitStart({ planned, wanted, forecast: this.#forecast, headroomBytes });
    this.#tiers = fit.tiers;
    return fit;
  }

  /** The tiers as the start message names them. */
  tierLists(planned: readonly Graph[]): readonly (readonly string[])[] | undefined {
    return this.#tiers === undefined ? undefined : tierLists(planned, this.#tiers);
  }

  /** Holds memory until it is released, which is when a reading shows what was really taken. */
  hold(bytes: number): () => void {
    const gpus = this.#ranks.map((rank) => rank.gpuUuid);
    return this.#options.ledger.reserve(gpus, this.#options.engine, bytes);
  }

  /** A capture is sent only with a grant; one that doesn't fit is refused with its like. */
  reserve(graph: Graph, state: EngineState): Grant | Refusal {
    const tops = this.#tops(state);
    const needBytes = this.#need(graph, tops);
    const availableBytes = this.headroom()?.bytes ?? Number.POSITIVE_INFINITY;
    const asked = this.#probe?.graph === graph.id;
    if (asked) this.#probe = undefined;
    // The engine may have spoken since.
    const probing = asked && this.#isOld();
    if (needBytes <= availableBytes || probing) {
      return { granted: true, needBytes, release: this.hold(needBytes) };
    }
    const graphs = state.planned.filter(
      (other) =>
        state.graphs.get(other.id)?.status === "planned" &&
        (other.id === graph.id || this.#need(other, tops) > availableBytes),
    );
    return { granted: false, needBytes, availableBytes, graphs: graphs.map(({ id }) => id) };
  }

  /** Call for each refusal. */
  refused(): void {
    this.#backoff.refused();
  }

  /** Graphs that wait for memory and fit by now, together; the most wanted first. */
  returning(state: EngineState): Returning {
    const headroom = this.headroom();
    if (headroom === undefined || !this.#backoff.isOver) return NOBODY;
    const waiting = [...state.graphs.values()]
      .filter(({ status, retryable }) => status === "refused" && retryable === true)
      .sort((a, b) => b.wanted - a.wanted || a.graph.tokens - b.graph.tokens)
      .map(({ graph }) => ({ graph, pool: this.#pool(graph) }));
    const tops = this.#tops(state);
    // One that is too large for any room there is must not stand before smaller ones.
    const small = waiting.filter(({ graph }) => roomFor(this.#need(graph, tops)) <= headroom.bytes);
    let fits = 0;
    let none = small.length + 1;
    while (none - fits > 1) {
      const middle = (fits + none) >> 1;
      const forecast = this.#forecast?.rest(small.slice(0, middle), tops);
      if (roomFor(forecast === undefined ? 0 : upperBytes(forecast)) <= headroom.bytes) {
        fits = middle;
      } else none = middle;
    }
    const fitting = small.slice(0, fits).map(({ graph }) => graph.id);
    const probe = fitting.length === 0;
    const graphs = probe ? this.#probing(waiting, tops) : fitting;
    if (graphs.length > 0) this.#backoff.asked();
    return { graphs, probe };
  }

  /**
   * An engine reports memory when it answers. Nothing fits by what it said long ago: the most
   * wanted of what waits is asked for, unless the driver knows better, and each rank checks before
   * it captures.
   */
  #probing(
    waiting: readonly { readonly graph: Graph }[],
    tops: ReadonlyMap<number, number>,
  ): readonly string[] {
    const [first] = waiting;
    const { ledger, engine, driverFree, now } = this.#options;
    const asked = this.#probe !== undefined && now() < this.#probe.untilSeconds;
    if (first === undefined || asked || !this.#isOld()) return [];
    const need = roomFor(this.#need(first.graph, tops));
    const fits = this.#ranks.every((rank) => {
      if (driverFree(rank.gpuUuid) === undefined) return true;
      const mostBytes = this.#mostBytes(rank);
      return mostBytes - ledger.offLimits(rank.gpuUuid, engine, mostBytes) >= need;
    });
    if (!fits) return [];
    this.#probe = { graph: first.graph.id, untilSeconds: now() + PROBE_SECONDS };
    return [first.graph.id];
  }

  #isOld(): boolean {
    return this.#options.now() - this.#reportedAtSeconds > REPORT_SECONDS_MAX;
  }

  /** The tier to give up because serving itself runs short of memory; empty: none. */
  surplus(state: EngineState): readonly Graph[] {
    if (this.#tiers === undefined || !this.#short()) return [];
    return leastValuable(state, this.#tiers);
  }

  /** The engine is gone: nothing is kept for it until it reports again. */
  close(): void {
    this.#options.ledger.forget(this.#options.engine);
  }

  /** Whether a rank has less than serving needs, even at best. */
  #short(): boolean {
    const { ledger } = this.#options;
    // Captured graphs are within their own: it is not they that serving is short of. Nor is it
    // short of what its allocator keeps: that gives back what a step wants otherwise.
    return this.#ranks.some(
      (rank) => this.#mostBytes(rank) < ledger.least(rank.gpuUuid) && this.#emptiedBytes(rank) < 0,
    );
  }

  #reservedUntakenBytes(): number {
    let takenBytes = 0;
    for (const bytes of this.#observed.values()) takenBytes += bytes;
    return Math.max(0, this.#reservedBytes - takenBytes);
  }

  /**
   * Free memory at best: what has gone since the engine's last word may be serving's own growth,
   * and then its claim has shrunk by as much, but for what is always left.
   */
  #mostBytes(rank: RankMemory): number {
    const { freeBytes, sinceBytes } = this.#free(rank);
    const { peakBytes, marginBytes } = this.#claim(rank);
    return freeBytes + Math.min(sinceBytes, Math.max(0, peakBytes + marginBytes - FLOOR_BYTES));
  }

  /**
   * Room on a rank once it has emptied torch's cache, as it does for a capture that needs it. First
   * waves leave blocks there that serving can do without, out of memory that no graph had taken.
   */
  #emptiedBytes(rank: RankMemory): number {
    const { cachedBytes, gpuUuid: gpu } = rank;
    if (cachedBytes === undefined) return Number.NEGATIVE_INFINITY;
    const { ledger, engine, marginBytes: margin } = this.#options;
    const { peakBytes, marginBytes } = this.#claim(rank);
    const moreBytes = wholeClaimBytes(rank, margin) - peakBytes - marginBytes;
    const othersBytes = ledger.spokenFor(gpu) + ledger.keptByOthers(gpu, engine);
    // A driver that says more than the engine did may have got it out of this very cache.
    const freeBytes = Math.min(rank.freeBytes, this.#free(rank).freeBytes);
    return freeBytes + cachedBytes - othersBytes - moreBytes;
  }

  #free(rank: RankMemory): FreeReading {
    return freeReading(rank, this.#options.driverFree(rank.gpuUuid), this.#isOld());
  }

  #claim(rank: RankMemory): ServingClaim {
    const first = this.#firstRanks.get(rank.rank) ?? rank;
    return servingClaim(rank, first, this.#options.marginBytes);
  }

  #pool(graph: Graph): number {
    return this.#tiers?.get(graph.id) ?? DEFAULT_POOL;
  }

  #tops(state: EngineState): ReadonlyMap<number, number> {
    return poolTops(state, this.#tiers ?? new Map());
  }
}

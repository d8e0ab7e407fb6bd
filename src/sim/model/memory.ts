/**
 * Memory of a simulated GPU and of one engine on it. Pure arithmetic, in bytes per rank: all ranks
 * of a simulated engine are alike.
 *
 * What a graph takes comes from the profile: driver memory of its own, and its pool's growth, which
 * the largest graph of a kind sets. A profile measures the largest first, so with that order in one
 * pool the figures are the profile's own.
 */

import { checkArgument, numberRule, textRule } from "../../base/check-options.ts";
import type { Graph } from "../../base/graph.ts";
import { median } from "../../base/median.ts";
import type { Profile } from "../../profile/profile.ts";
import type { Reserve, Reserved } from "../../wire/protocol.ts";

/** A device that simulated engines of one process and strangers share. */
export class SimulatedGpu {
  /** Of rank 0; absent: every engine has a device of its own. */
  readonly uuid: string | undefined;
  freeBytes: number;
  #strangerBytes = 0;

  /** @throws OptionError unless these are bytes, and a name where there is one */
  constructor(freeBytes: number, uuid?: string) {
    checkArgument("freeBytes", freeBytes, numberRule(0, Number.MAX_SAFE_INTEGER));
    if (uuid !== undefined) checkArgument("uuid", uuid, textRule("a name"));
    this.freeBytes = freeBytes;
    this.uuid = uuid;
  }

  get strangerBytes(): number {
    return this.#strangerBytes;
  }

  /** What processes that are no engines of ours hold from now on; they get what is free at most. */
  setStrangerBytes(bytes: number): void {
    const held = Math.min(bytes, this.#strangerBytes + this.freeBytes);
    this.freeBytes += this.#strangerBytes - held;
    this.#strangerBytes = held;
  }
}

interface Pool {
  /** Segments by kind, as grown so far. */
  readonly segments: Map<string, number>;
  readonly graphs: Map<string, number>;
}

interface GraphNeed {
  readonly driverBytes: number;
  readonly segmentBytes: number;
}

/** The pool of graphs in no tier. */
const DEFAULT_POOL = -1;
/** The graphs that no engine should be without: the plugin's LEAST_TOKENS. */
const LEAST_TOKENS = 64;

export class EngineMemory {
  readonly gpu: SimulatedGpu;
  /** Segments of all pools and the graphs' driver memory. */
  graphBytes = 0;
  /** Of the activation peak, what the allocator holds: it grows with the largest step so far. */
  activationHeldBytes = 0;
  reserved: Reserved | undefined;
  tiers: readonly (readonly string[])[] | undefined;
  readonly #profile: Profile;
  readonly #needs: ReadonlyMap<string, GraphNeed>;
  readonly #pools = new Map<number, Pool>();
  #home = new Map<string, number>();

  constructor(profile: Profile, gpu: SimulatedGpu) {
    this.#profile = profile;
    this.gpu = gpu;
    this.#needs = needsOf(profile);
  }

  /** Gives each list of graphs a pool of its own. */
  setTiers(tiers: readonly (readonly string[])[]): void {
    this.tiers = tiers.length === 0 ? undefined : tiers;
    this.#home = new Map(tiers.flatMap((tier, index) => tier.map((id) => [id, index] as const)));
  }

  /** Takes memory off the KV cache before it exists; returns the tokens that it costs. */
  reserve(mode: Reserve, bytes: number | undefined): number {
    if (mode === "none") return 0;
    const { kvCacheTokens } = this.#profile.limits;
    const taken = mode === "least" ? this.#missing() : (bytes ?? this.#forecast(mode));
    if (mode === "least" && taken === 0) return 0;
    // The profile doesn't say how much of what vLLM holds is weights: taken as all KV cache.
    const perToken = this.#profile.memory.reservedBytes / Math.max(1, kvCacheTokens);
    const kvTokens = Math.min(kvCacheTokens, Math.round(taken / Math.max(1, perToken)));
    this.reserved = { mode, bytes: taken, kvTokens };
    this.gpu.freeBytes += taken;
    return kvTokens;
  }

  /** What `plan` or `top` take. */
  #forecast(mode: "plan" | "top"): number {
    const { costs } = this.#profile.captures;
    if (mode === "plan") return costs.reduce((sum, cost) => sum + cost.bytes, 0);
    const tops = new Map<string, number>();
    for (const { graph, bytes } of costs) {
      tops.set(graph.kind, Math.max(tops.get(graph.kind) ?? 0, bytes));
    }
    return [...tops.values()].reduce((sum, size) => sum + size, 0);
  }

  /** What serving and the smallest graphs need and do not find free. */
  #missing(): number {
    let needBytes = this.#profile.memory.activationPeakBytes;
    const pools = new Map<string, number>();
    for (const { graph } of this.#profile.captures.costs) {
      const need = this.#needs.get(graph.id);
      if (need === undefined || graph.tokens > LEAST_TOKENS) continue;
      needBytes += need.driverBytes;
      pools.set(graph.kind, Math.max(pools.get(graph.kind) ?? 0, need.segmentBytes));
    }
    for (const bytes of pools.values()) needBytes += bytes;
    return Math.max(0, needBytes - this.gpu.freeBytes);
  }

  /** What capturing `graph` now would take. */
  needBytes(graph: Graph): number {
    const need = this.#needs.get(graph.id);
    const pool = this.#pools.get(this.#homeOf(graph.id));
    const grown = pool?.segments.get(graph.kind) ?? 0;
    if (need === undefined) return 0;
    return need.driverBytes + Math.max(0, need.segmentBytes - grown);
  }

  /** Room for captures besides what serving still needs, as docs/gpu-memory.md defines it. */
  headroomBytes(marginBytes: number): number {
    const { activationPeakBytes } = this.#profile.memory;
    const notHeld = Math.max(0, activationPeakBytes - this.activationHeldBytes);
    return this.gpu.freeBytes - notHeld - marginBytes;
  }

  /** Books a capture; returns what it took. */
  take(graph: Graph): number {
    const bytes = this.needBytes(graph);
    const home = this.#homeOf(graph.id);
    const pool = this.#pools.get(home) ?? { segments: new Map(), graphs: new Map() };
    this.#pools.set(home, pool);
    const need = this.#needs.get(graph.id) ?? { driverBytes: 0, segmentBytes: 0 };
    const grown = pool.segments.get(graph.kind) ?? 0;
    pool.segments.set(graph.kind, Math.max(grown, need.segmentBytes));
    pool.graphs.set(graph.id, need.driverBytes);
    this.graphBytes += bytes;
    this.gpu.freeBytes -= bytes;
    return bytes;
  }

  /** Why these graphs can't be dropped together; undefined if they can. */
  whyNotDrop(ids: readonly string[]): string | undefined {
    const named = new Set(ids);
    for (const id of named) {
      const home = this.#homeOf(id);
      const pool = this.#pools.get(home);
      if (pool?.graphs.has(id) !== true) return `${id} is not captured`;
      if (home === DEFAULT_POOL) return `${id} is in no tier, and the default pool stays`;
      const other = [...pool.graphs.keys()].find((mate) => !named.has(mate));
      if (other !== undefined) return `${other} shares the pool of ${id} and is not named`;
    }
    return undefined;
  }

  /** Gives back the pools of these graphs; call only when `whyNotDrop` finds nothing. */
  drop(ids: readonly string[]): number {
    let freed = 0;
    for (const home of new Set(ids.map((id) => this.#homeOf(id)))) {
      const pool = this.#pools.get(home);
      if (pool === undefined) continue;
      for (const bytes of [...pool.segments.values(), ...pool.graphs.values()]) freed += bytes;
      this.#pools.delete(home);
    }
    this.graphBytes -= freed;
    this.gpu.freeBytes += freed;
    return freed;
  }

  /** A step ran; false when its activations found no memory, which no engine survives. */
  activate(tokens: number): boolean {
    const { memory, limits } = this.#profile;
    const share = Math.min(1, tokens / limits.maxBatchedTokens);
    const growth = Math.round(memory.activationPeakBytes * share) - this.activationHeldBytes;
    if (growth <= 0) return true;
    if (growth > this.gpu.freeBytes) return false;
    this.activationHeldBytes += growth;
    this.gpu.freeBytes -= growth;
    return true;
  }

  #homeOf(id: string): number {
    return this.#home.get(id) ?? DEFAULT_POOL;
  }
}

/** How pools of different largest graphs compare, as src/memory/constants.ts says. */
function poolWeight(tokens: number): number {
  return tokens > 256 ? tokens : 0.7 * tokens;
}

/** Splits the profile's bytes: what a top takes beyond a typical graph of its kind is its pool. */
function needsOf({ captures }: Profile): Map<string, GraphNeed> {
  const needs = new Map<string, GraphNeed>();
  for (const kind of ["FULL", "PIECEWISE"]) {
    const costs = captures.costs.filter(({ graph }) => graph.kind === kind);
    const [top, ...others] = costs.sort((a, b) => b.graph.tokens - a.graph.tokens);
    if (top === undefined) continue;
    const usual = median(others.map(({ bytes }) => bytes)) ?? top.bytes;
    const typical = Math.min(top.bytes, usual);
    for (const { graph, bytes } of costs) {
      const share = poolWeight(graph.tokens) / poolWeight(top.graph.tokens);
      needs.set(graph.id, {
        driverBytes: graph === top.graph ? typical : bytes,
        segmentBytes: Math.round((top.bytes - typical) * share),
      });
    }
  }
  return needs;
}

/**
 * The guard of one engine: what may be captured with the memory there is. Pure but for the ledger
 * that engines share: figures go in, grants and refusals come out.
 *
 *   ranks, driver readings ─▶ room: claims in the ledger, headroom ─┬▶ grant, refusal with numbers
 *   captures ─▶ needs: forecast, what each graph needs, its pool ───┴▶ drop a tier, ask again
 */

import type { Graph } from "../base/graph.ts";
import { MIB } from "../base/units.ts";
import type { EngineState } from "../schedule/state.ts";
import type { RankMemory } from "../wire/protocol.ts";
import { Backoff } from "./backoff.ts";
import { EngineHeadroom, type HeadroomOptions, type RankHeadroom } from "./engine-headroom.ts";
import type { Fit } from "./fit.ts";
import { type EngineShape, type Forecast, type RecordedBytes, upperBytes } from "./forecast.ts";
import { GraphNeeds } from "./needs.ts";

/** Memory of the rank that has the least room. */
export type Headroom = RankHeadroom;

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
/** A graph that a policy doesn't ask for by then was the wrong one to find out with. */
const PROBE_SECONDS = 30;
const NONE: Returning = { graphs: [], probe: false };

/** What must be free for graphs that are asked for again. */
function roomFor(needBytes: number): number {
  return needBytes + Math.max(HYSTERESIS_BYTES, HYSTERESIS_SHARE * needBytes);
}

export class MemoryGuard {
  readonly #now: () => number;
  readonly #room: EngineHeadroom;
  readonly #needs = new GraphNeeds();
  readonly #backoff: Backoff;
  /** A graph that is asked for to hear from the engine how much is free by now. */
  #probe: { readonly graph: string; readonly untilSeconds: number } | undefined;

  constructor(options: HeadroomOptions) {
    this.#now = options.now;
    this.#room = new EngineHeadroom(options);
    this.#backoff = new Backoff(options.now);
  }

  /** When the next review may ask again for what was refused. */
  get retryAtSeconds(): number {
    return this.#backoff.atSeconds;
  }

  // ---------------------------------------------------------------- figures in

  /** A new plan: nothing of it was seen captured. */
  plan(planned: readonly Graph[], shape: EngineShape, recorded?: RecordedBytes): void {
    this.#needs.plan(planned, shape, recorded);
  }

  /** An engine that has its pools already, from an earlier controller, says which. */
  adopt(tiers: readonly (readonly string[])[]): void {
    this.#needs.adopt(tiers);
  }

  /** Every report of the engine; the first one of a rank is what serving's growth starts from. */
  report(ranks: readonly RankMemory[]): void {
    this.#room.report(ranks);
    this.#room.book(this.#needs.kept);
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
    this.#needs.captured(captures, state);
    this.#room.book(this.#needs.kept);
  }

  /** Dropped graphs teach anew what they take when they are captured again. */
  dropped(graphs: readonly string[]): void {
    this.#needs.dropped(graphs);
    this.#room.book(this.#needs.kept);
  }

  /** The engine is gone: nothing is kept for it until it reports again. */
  close(): void {
    this.#room.close();
  }

  // ---------------------------------------------------------------- what there is, what is needed

  /** Undefined while no rank has reported. */
  headroom(): Headroom | undefined {
    return this.#room.least();
  }

  /** What the graphs with these states will take, in the pools as they are. */
  rest(state: EngineState, counts: (id: string) => boolean): Forecast | undefined {
    const graphs = state.planned.filter((graph) => counts(graph.id));
    return this.#needs.together(graphs, this.#needs.tops(state));
  }

  // ---------------------------------------------------------------- what may be captured

  /** What to capture before ready; without figures whatever the policy wants. */
  start(wanted: readonly Graph[], state: EngineState): Fit {
    return this.#needs.start(wanted, state, this.headroom()?.bytes);
  }

  /** The tiers as the start message names them. */
  tierLists(planned: readonly Graph[]): readonly (readonly string[])[] | undefined {
    return this.#needs.tierLists(planned);
  }

  /** Holds memory until it is released, which is when a reading shows what was really taken. */
  hold(bytes: number): () => void {
    return this.#room.hold(bytes);
  }

  /** A capture is sent only with a grant; one that doesn't fit is refused with its like. */
  reserve(graph: Graph, state: EngineState): Grant | Refusal {
    const tops = this.#needs.tops(state);
    const needBytes = this.#needs.one(graph, tops);
    const availableBytes = this.headroom()?.bytes ?? Number.POSITIVE_INFINITY;
    const asked = this.#probe?.graph === graph.id;
    if (asked) this.#probe = undefined;
    // The engine may have spoken since.
    const probing = asked && this.#room.isOld;
    if (needBytes <= availableBytes || probing) {
      return { granted: true, needBytes, release: this.hold(needBytes) };
    }
    const graphs = state.planned.filter(
      (other) =>
        state.graphs.get(other.id)?.status === "planned" &&
        (other.id === graph.id || this.#needs.one(other, tops) > availableBytes),
    );
    return { granted: false, needBytes, availableBytes, graphs: graphs.map(({ id }) => id) };
  }

  // ---------------------------------------------------------------- asked again, and given up

  /** Call for each refusal. */
  refused(): void {
    this.#backoff.refused();
  }

  /** Graphs that wait for memory and fit by now, together; the most wanted first. */
  returning(state: EngineState): Returning {
    const headroom = this.headroom();
    if (headroom === undefined || !this.#backoff.isOver) return NONE;
    const waiting = [...state.graphs.values()]
      .filter(({ status, retryable }) => status === "refused" && retryable === true)
      .sort((a, b) => b.wanted - a.wanted || a.graph.tokens - b.graph.tokens)
      .map(({ graph }) => graph);
    const tops = this.#needs.tops(state);
    const fitting = this.#fitting(waiting, tops, headroom.bytes);
    const probe = fitting.length === 0;
    const graphs = probe ? this.#probing(waiting, tops) : fitting;
    if (graphs.length > 0) this.#backoff.asked();
    return { graphs: graphs.map(({ id }) => id), probe };
  }

  /** As many of these as fit together, in their order. */
  #fitting(
    waiting: readonly Graph[],
    tops: ReadonlyMap<number, number>,
    roomBytes: number,
  ): readonly Graph[] {
    const fitTogether = (graphs: readonly Graph[]): boolean => {
      const forecast = this.#needs.together(graphs, tops);
      return roomFor(forecast === undefined ? 0 : upperBytes(forecast)) <= roomBytes;
    };
    // One that is too large for any room there is must not stand before smaller ones: by the same
    // sum as of several, which holds more than what one graph takes by itself.
    const small = waiting.filter((graph) => fitTogether([graph]));
    let fits = 0;
    let none = small.length + 1;
    while (none - fits > 1) {
      const middle = (fits + none) >> 1;
      if (fitTogether(small.slice(0, middle))) fits = middle;
      else none = middle;
    }
    return small.slice(0, fits);
  }

  /**
   * An engine reports memory when it answers. Nothing fits by what it said long ago: the most
   * wanted of what waits is asked for, unless the driver knows better, and each rank checks before
   * it captures.
   */
  #probing(waiting: readonly Graph[], tops: ReadonlyMap<number, number>): readonly Graph[] {
    const [first] = waiting;
    const asked = this.#probe !== undefined && this.#now() < this.#probe.untilSeconds;
    if (first === undefined || asked || !this.#room.isOld) return [];
    if (!this.#room.mayHave(roomFor(this.#needs.one(first, tops)))) return [];
    this.#probe = { graph: first.id, untilSeconds: this.#now() + PROBE_SECONDS };
    return [first];
  }

  /** The tier to give up because serving itself runs short of memory; empty: none. */
  surplus(state: EngineState): readonly Graph[] {
    return this.#room.isShort ? this.#needs.leastTier(state) : [];
  }
}

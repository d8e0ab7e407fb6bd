/**
 * What snapshots don't keep: each capture once, as a sample of the histograms; how commands ended;
 * graphs that were dropped; and since when an engine is away.
 */

import type { EngineSnapshot, GraphSnapshot } from "../engine/snapshot.ts";
import type { Outcome } from "./catalogue.ts";

/** Something for a histogram. */
export interface Observation {
  readonly kind: string;
  readonly seconds: number | undefined;
  readonly bytes: number | undefined;
  readonly stallSeconds: number | undefined;
}

export interface CaptureCost {
  readonly ms: number;
  readonly stallMs: number;
  readonly bytes: number;
}

export class EngineLedger {
  /** `kind outcome` to how often, over all processes of this engine. */
  readonly results: Map<string, number> = new Map();
  readonly dropped: Map<string, number> = new Map();
  /** When it was first seen without a connection; undefined while it has one. */
  awaySinceSeconds: number | undefined;
  #session = "";
  readonly #observed = new Set<string>();

  ended(kind: string, outcome: Outcome): void {
    add(this.results, `${kind} ${outcome}`);
  }

  /** A capture that was reported as it ended. */
  captured(
    engine: Pick<EngineSnapshot, "session">,
    graph: Pick<GraphSnapshot, "id" | "kind">,
    cost: CaptureCost,
  ): Observation {
    this.#enter(engine);
    // Captured again: in between it was dropped, and no scrape has seen that.
    if (this.#observed.has(graph.id)) add(this.dropped, graph.kind);
    this.#observed.add(graph.id);
    const { ms, stallMs, bytes } = cost;
    return { kind: graph.kind, seconds: ms / 1000, bytes, stallSeconds: stallMs / 1000 };
  }

  /** Captures of before ready, and of before anybody listened, which no event has told. */
  catchUp(engine: EngineSnapshot): Observation[] {
    this.#enter(engine);
    const observations: Observation[] = [];
    for (const { id, kind, status, ms, bytes } of engine.graphs) {
      if (status === "captured" && !this.#observed.has(id)) {
        this.#observed.add(id);
        const seconds = ms === undefined ? undefined : ms / 1000;
        observations.push({ kind, seconds, bytes, stallSeconds: undefined });
      } else if (status !== "captured" && this.#observed.delete(id)) {
        add(this.dropped, kind);
      }
    }
    return observations;
  }

  /** Another process starts without graphs; its captures count on. */
  #enter({ session }: Pick<EngineSnapshot, "session">): void {
    if (session === this.#session) return;
    this.#session = session;
    this.#observed.clear();
  }
}

function add(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

/**
 * Commands that wait until a simulated engine is between two steps: captures and drops, in the
 * order in which they came. What can't be done is answered here; a capture that can is the
 * engine's to do.
 */

import type { Graph } from "../../base/graph.ts";
import type { CaptureOutcome, DropOutcome, EngineObserver } from "./engine-options.ts";
import type { HeldGraphs } from "./held-graphs.ts";

interface PendingCapture {
  readonly command: number;
  readonly graph: string;
  readonly whenIdle: boolean;
  readonly needBytes: number | undefined;
}

interface PendingDrop {
  readonly command: number;
  readonly drop: readonly string[];
}

/** The controller sends one capture at a time; more than this many is a defect of its side. */
const PENDING_MAX = 64;

export class EngineCommands {
  readonly #graphs: HeldGraphs;
  readonly #observer: EngineObserver;
  #pending: (PendingCapture | PendingDrop)[] = [];
  #frozen = "";
  /** No capture meanwhile: a simulated engine's graphs stay where they are. */
  asleep = false;

  constructor(graphs: HeldGraphs, observer: EngineObserver) {
    this.#graphs = graphs;
    this.#observer = observer;
  }

  /** @param needBytes what the controller reserved for it; absent: by the graph's own size */
  capture(command: number, graph: string, whenIdle: boolean, needBytes?: number): void {
    const pending = { command, graph, whenIdle, needBytes };
    if (this.#pending.length < PENDING_MAX) this.#pending.push(pending);
    else this.#answer(pending, "refused", `More than ${PENDING_MAX} captures were waiting.`, 0);
  }

  /** Drops whole tiers between two steps. */
  drop(command: number, graphs: readonly string[]): void {
    if (this.#pending.length < PENDING_MAX) this.#pending.push({ command, drop: graphs });
    else this.#dropped(command, "refused", [], 0, `More than ${PENDING_MAX} commands wait.`, 0);
  }

  /** What waits is not done, and not answered. */
  forget(): void {
    this.#pending = [];
  }

  /** Refuses captures from now on; an empty reason lifts it. */
  freeze(reason: string): void {
    // It comes back inside another sentence, which has a limit on the wire.
    this.#frozen = reason.slice(0, 512);
  }

  /** The next capture to do; drops, and what can't be done, are answered on the way. */
  next(now: number, hasWork: () => boolean): { command: number; graph: Graph } | undefined {
    // An observer may answer a result with the next command: bounded, so that it can't spin here.
    for (let round = 0; round < PENDING_MAX; round++) {
      const pending = this.#pending.shift();
      if (pending === undefined) return undefined;
      if ("drop" in pending) {
        this.#drop(pending, now);
        continue;
      }
      const graph = this.#graphs.planned.get(pending.graph);
      const { needBytes } = pending;
      if (graph === undefined) {
        this.#answer(pending, "refused", `This engine has no graph ${pending.graph}.`, now);
      } else if (this.#graphs.captured.has(pending.graph)) {
        this.#answer(pending, "already", undefined, now);
      } else if (this.#frozen !== "") {
        this.#answer(pending, "refused", `Captures are frozen: ${this.#frozen}`, now);
      } else if (this.asleep) {
        this.#answer(pending, "deferred", "The engine sleeps.", now);
      } else if (pending.whenIdle && hasWork()) {
        this.#answer(pending, "deferred", "The engine has work.", now);
      } else if (!this.#graphs.hasRoom(graph, needBytes)) {
        const reason = this.#graphs.shortage(graph, needBytes);
        this.#answer(pending, "refused", reason, now, "headroom");
      } else {
        return { command: pending.command, graph };
      }
    }
    return undefined;
  }

  #drop({ command, drop }: PendingDrop, now: number): void {
    const reason = this.#graphs.memory.whyNotDrop(drop);
    if (reason !== undefined) {
      this.#dropped(command, "refused", [], 0, reason, now);
      return;
    }
    const graphs = [...new Set(drop)];
    this.#dropped(command, "dropped", graphs, this.#graphs.drop(graphs), undefined, now);
  }

  #dropped(
    command: number,
    outcome: DropOutcome["outcome"],
    graphs: readonly string[],
    freedBytes: number,
    reason: string | undefined,
    now: number,
  ): void {
    const why = reason === undefined ? {} : { reason };
    this.#observer.onDropResult?.({ command, outcome, graphs, freedBytes, ...why }, now);
  }

  #answer(
    pending: PendingCapture,
    outcome: CaptureOutcome["outcome"],
    reason: string | undefined,
    now: number,
    refusal: "headroom" | "other" = "other",
  ): void {
    const done = this.#graphs.captured.get(pending.graph);
    this.#observer.onCaptureResult?.(
      {
        command: pending.command,
        graph: pending.graph,
        outcome,
        ...(reason === undefined ? {} : { reason }),
        ...(outcome === "refused" ? { refusal } : {}),
        stallMs: 0,
        ms: done?.ms ?? 0,
        bytes: done?.bytes ?? 0,
      },
      now,
    );
  }
}

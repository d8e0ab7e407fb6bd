/**
 * The commands that change which graphs an engine has: one at a time, however many are decided.
 *
 *   decision ─▶ still allowed? ─▶ p-queue ─▶ memory reserved ─▶ sent ─▶ answer, booked by the driver
 */

import PQueue from "p-queue";
import { messageOf } from "../base/errors.ts";
import type { Graph } from "../base/graph.ts";
import type { Decision } from "../schedule/policy.ts";
import type { EngineState } from "../schedule/state.ts";
import type { Session } from "../wire/session.ts";
import {
  announceCapture,
  announceDecision,
  announceProblem,
  announceUnanswered,
} from "./announce.ts";
import type { EngineMemory } from "./memory.ts";
import type { EngineRecord } from "./record.ts";

type CaptureDecision = Extract<Decision, { type: "capture" }>;

export interface EngineCapturesOptions {
  readonly memory: EngineMemory;
  /** Captures were frozen before this one was sent: the policy is to be asked. */
  readonly onFrozen: () => void;
  /** Called after every change that a snapshot shows. */
  readonly onChange: () => void;
}

export class EngineCaptures {
  readonly #record: EngineRecord;
  readonly #options: EngineCapturesOptions;
  readonly #queue = new PQueue({ concurrency: 1 });
  #closed = false;

  constructor(record: EngineRecord, options: EngineCapturesOptions) {
    this.#record = record;
    this.#options = options;
  }

  capture(decision: CaptureDecision, state: EngineState, session: Session): void {
    const { graph, reason } = decision;
    const entry = state.graphs.get(graph.id);
    const breach = captureBreach(state, entry?.status);
    if (entry === undefined || breach !== undefined) {
      const sentence = `Expected the policy to capture a planned graph, got ${graph.id}, ${breach}.`;
      announceProblem(this.#record, "ERR_LAZYGRAPH_POLICY", sentence);
      return;
    }
    if (!this.#record.connected) return;
    entry.reason = reason;
    state.capturing = graph.id;
    announceDecision(this.#record, { decision: "capture", graph: graph.id, reason });
    void this.#queue.add(() => this.#ask(session, decision, state));
  }

  async #ask(session: Session, decision: CaptureDecision, state: EngineState): Promise<void> {
    const { graph, whenIdle, reason } = decision;
    const { memory } = this.#options;
    const grant = await memory.reserve(graph);
    if (grant === undefined) return;
    // While the GPU was read the engine may have left, or captures may have ended.
    if (this.#closed || !session.open || state.capturing !== graph.id) {
      memory.abandon();
      return;
    }
    if (state.frozen) {
      memory.abandon();
      state.capturing = undefined;
      this.#options.onFrozen();
      return;
    }
    announceCapture(this.#record, { graph: graph.id, whenIdle, reason });
    // The answer itself is booked where it arrives, in the order of messages.
    await session.capture(graph.id, whenIdle, grant.needBytes).catch((error) => {
      // The engine was lost with this capture open; the driver's `detach` has booked it.
      if (!this.#closed) announceUnanswered(this.#record, graph.id, error);
    });
  }

  /** Gives up a tier: its graphs are marked already, and the table names them no more. */
  drop(graphs: readonly Graph[], session: Session): void {
    const { memory, onChange } = this.#options;
    void this.#queue.add(async () => {
      try {
        const answer = await session.drop(graphs.map((graph) => graph.id));
        if (answer.outcome === "dropped") memory.dropped(answer);
        else memory.kept(graphs, answer.reason ?? `the engine ${answer.outcome} the drop`);
      } catch (error) {
        // Lost in the middle of it: the next inventory tells what became of the tier.
        memory.kept(graphs, messageOf(error));
      }
      onChange();
    });
  }

  close(): void {
    this.#closed = true;
    this.#queue.clear();
  }
}

/** Why a policy may not capture now, as the end of a sentence. */
function captureBreach(state: EngineState, status: string | undefined): string | undefined {
  if (status === undefined) return "which is not in the inventory";
  if (status !== "planned") return `which is ${status}`;
  if (state.capturing !== undefined) return `while ${state.capturing} is being captured`;
  if (state.frozen || state.settled) return "after captures have ended";
  return state.ready ? undefined : "before the engine is ready";
}

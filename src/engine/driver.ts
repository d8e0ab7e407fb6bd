/**
 * Drives one engine process: takes in its messages and the loss and return of its connection,
 * changes its record by them, and tells what happened. A driver outlives its connection and ends
 * with the engine's process.
 *
 *   message ─▶ record ─▶ decisions ─▶ session (start, table, mode, freeze)
 *                         │  ▲   └────▶ captures ─▶ memory, session
 *                         ▼  │         one at a time   reserved, then sent
 *                      policy-seat
 *
 * What listeners hear of all that is said in announce.
 */

import type { Clock } from "../base/clock.ts";
import type { LazygraphError } from "../base/errors.ts";
import type { EnginePlan, PlanDesk } from "../plan/engine-plan.ts";
import type { PolicyMaker } from "../schedule/choice.ts";
import type { PlanRules } from "../schedule/rules.ts";
import type {
  CaptureResult,
  FromEngine,
  Hello,
  Inventory,
  Mode,
  Ready,
  Telemetry,
} from "../wire/protocol.ts";
import type { Session } from "../wire/session.ts";
import {
  announceJoin,
  announceLost,
  announceMemory,
  announceProblem,
  announceReady,
  announceResult,
  announceSteps,
  announceUnknown,
} from "./announce.ts";
import { EngineDecisions } from "./decisions.ts";
import { EngineMemory, type MemoryDesk, memoryDesk } from "./memory.ts";
import { recallPlan } from "./recall.ts";
import {
  applyInventory,
  applyReady,
  applyResult,
  applyTelemetry,
  createEngineRecord,
  type EngineRecord,
  setRanks,
  setStatus,
} from "./record.ts";
import { announceUnmatched, applyRules } from "./rules.ts";

/** Seconds between two resyncs that this side asks for, however much the engine gets wrong. */
const RESYNC_SECONDS_MIN = 1;

export interface DriverOptions {
  readonly clock: Clock;
  readonly policy: PolicyMaker;
  readonly settleWithinSeconds: number | undefined;
  /** Graphs that the user pinned or excluded. @default none */
  readonly rules?: PlanRules;
  /** Where learned plans come from. @default none are */
  readonly plans?: PlanDesk;
  /** What engines share of memory. @default nothing: no margin, and no GPU of this host */
  readonly memory?: MemoryDesk;
  /** Called after every change that a snapshot shows. */
  readonly onChange: () => void;
}

export class EngineDriver {
  readonly record: EngineRecord;
  readonly #clock: Clock;
  readonly #rules: PlanRules;
  readonly #plans: PlanDesk | undefined;
  readonly #memory: EngineMemory;
  readonly #decisions: EngineDecisions;
  readonly #onChange: () => void;
  #session: Session;
  #plan: EnginePlan | undefined;
  #resyncAtSeconds = Number.NEGATIVE_INFINITY;

  constructor(hello: Hello, mode: Mode, session: Session, options: DriverOptions) {
    const { clock, policy, settleWithinSeconds, rules = {}, plans, memory, onChange } = options;
    this.record = createEngineRecord(hello, mode);
    this.#clock = clock;
    this.#rules = rules;
    this.#plans = plans;
    this.#onChange = onChange;
    this.#session = session;
    this.#memory = new EngineMemory(this.record, {
      clock,
      desk: memory ?? memoryDesk(),
      onChange: (graphs) => this.#decisions.happen({ type: "memory", graphs }),
      onSurplus: (graphs) => this.#decisions.drop(graphs),
      onReopen: () => this.#decisions.reopen(),
    });
    this.#decisions = new EngineDecisions(this.record, {
      clock,
      policy,
      settleWithinSeconds,
      rules,
      memory: this.#memory,
      session: () => this.#session,
      plan: () => this.#plan,
      onChange,
    });
  }

  /** Accepts the engine. Call once it can be found by its name: who hears of it may look it up. */
  join(): void {
    this.#join(false);
  }

  /** The same engine process came back. */
  attach(hello: Hello, session: Session): void {
    this.record.hello = hello;
    this.record.phase = hello.phase;
    this.record.connected = true;
    this.record.lostReason = undefined;
    this.record.goodbye = undefined;
    this.#session = session;
    this.#join(true);
  }

  /** Call when the session has ended; the record stays, and waits for the engine to come back. */
  detach(error: LazygraphError): void {
    if (!this.record.connected) return;
    this.record.connected = false;
    this.record.lostReason = error.message;
    this.#decisions.detach();
    this.#memory.detach();
    const { code, message } = error;
    const { state } = this.record;
    const open = state?.graphs.get(state.capturing ?? "");
    if (state !== undefined) state.capturing = undefined;
    // A graph that once took longer than any capture may is not tried again. Of any other one only
    // the next inventory tells what became of it.
    if (code === "ERR_LAZYGRAPH_ENGINE_TIMEOUT" && open?.status === "planned") {
      setStatus(open, "failed", message);
    }
    announceLost(this.record, error);
    this.#onChange();
  }

  /** Ends the driver: its process is gone for good, or the controller closes. */
  close(): void {
    this.#decisions.close();
    this.#memory.close();
    this.#plan?.end();
  }

  setMode(mode: Mode): void {
    this.#decisions.setMode(mode);
  }

  freeze(why: string): void {
    this.#decisions.freeze(why);
  }

  /** Free memory of this host's GPUs has crossed what is spoken for. */
  reviewMemory(): void {
    this.#memory.review();
    this.#onChange();
  }

  /** The gateway expects so many requests in so many seconds. */
  announce(inSeconds: number, requests: number): void {
    this.#decisions.announce(inSeconds, requests);
  }

  /** Every message of this engine but `hello` and `goodbye`, which are the controller's. */
  receive(message: Exclude<FromEngine, { type: "hello" | "goodbye" }>): void {
    switch (message.type) {
      case "inventory":
        this.#inventory(message);
        break;
      case "ready":
        this.#ready(message);
        break;
      case "result":
        this.#result(message);
        break;
      case "dropped":
        setRanks(this.record, message.ranks.length > 0 ? message.ranks : this.record.ranks);
        this.record.epoch = message.epoch;
        this.#session.answer(message);
        break;
      case "telemetry":
        this.#telemetry(message);
        break;
      case "edge":
        this.#edge(message.state, message.running, message.waiting);
        break;
      case "heartbeat":
        if (message.ranks === undefined) return;
        setRanks(this.record, message.ranks);
        this.#memory.heartbeat();
        return;
      case "problem":
        this.record.problems.reported += 1;
        announceProblem(this.record, message.code, message.message);
        break;
    }
    this.#onChange();
  }

  // ---------------------------------------------------------------- what happened

  #join(reconnected: boolean): void {
    this.#session.welcome(this.record.mode);
    announceJoin(this.record, reconnected);
    this.#onChange();
  }

  #inventory(message: Inventory): void {
    const before = this.record.state;
    const unknown = applyInventory(this.record, message);
    if (this.record.state !== before) {
      this.#decisions.forget();
      this.#plan?.end();
      this.#plan = this.#recall(message);
    }
    applyRules(this.record, this.#rules);
    this.#memory.inventory(message, this.#plan?.bytes);
    // Asking again would bring the same inventory: report, and go on with what is known.
    if (unknown.length > 0) this.#unknownGraphs(unknown, "inventory", false);
    if (message.phase === "stock" || message.phase === "stopping") return;
    // Read only now: who listens to what was published above may have set the mode.
    const { state, frozenReason, mode } = this.record;
    if (frozenReason !== undefined || state?.settled === true) {
      const reason = frozenReason ?? "captures had ended before";
      this.#session.send({ type: "freeze", reason });
    } else if (this.#decisions.modeSet) {
      // The welcome told the mode, but not that it has lifted a freeze.
      this.#session.send({ type: "mode", mode });
    }
    this.#decisions.inventory();
  }

  #recall(inventory: Inventory): EnginePlan | undefined {
    const { state } = this.record;
    // An engine that runs as stock learns nothing.
    if (state === undefined || state.planned.length === 0) return undefined;
    announceUnmatched(this.record, state, this.#rules);
    return recallPlan(this.record, state, inventory, this.#plans);
  }

  #ready(message: Ready): void {
    const unknown = applyReady(this.record, message, this.#clock.now());
    if (unknown.length > 0) this.#unknownGraphs(unknown, "ready", true);
    const { state } = this.record;
    if (state === undefined) {
      // An engine that is ready before it told its plan: the plan is all that is missing.
      this.#resync();
      return;
    }
    this.#memory.ready(message.captured);
    announceReady(this.record, message, state);
    announceMemory(this.record, state);
    this.#decisions.settleLater();
    this.#decisions.happen({ type: "ready" });
  }

  #result(message: CaptureResult): void {
    const { state } = this.record;
    const applied = applyResult(this.record, message);
    const answered = this.#session.answer(message);
    this.#memory.result(message, answered);
    if (state === undefined || applied === undefined) {
      this.#unknownGraphs([message.graph], "result", true);
      return;
    }
    // A late answer tells the truth about its graph but ends no other capture under way.
    if (answered && state.capturing === message.graph) state.capturing = undefined;
    if (!answered && !applied.changed) return;
    announceResult(this.record, message, state);
    const { outcome, graph } = message;
    this.#decisions.happen({ type: outcome === "already" ? "captured" : outcome, graph });
  }

  #telemetry(message: Telemetry): void {
    const unknown = applyTelemetry(this.record, message, this.#clock.now());
    if (unknown.length > 0) this.#unknownGraphs(unknown, "telemetry", true);
    announceSteps(this.record, message);
    const regretSeconds = this.#plan?.observe(message.steps, message.waiting) ?? 0;
    this.record.regretSeconds += regretSeconds;
    this.#decisions.happen({ type: "demand", steps: message.steps });
  }

  #edge(edge: "idle" | "busy", running: number, waiting: number): void {
    const { state } = this.record;
    if (state === undefined) return;
    state.idle = edge === "idle";
    state.running = running;
    state.waiting = waiting;
    this.#decisions.happen({ type: edge });
  }

  #unknownGraphs(graphs: readonly string[], where: string, resync: boolean): void {
    this.record.problems.unknownGraphs += graphs.length;
    announceUnknown(this.record, graphs, where, resync);
    if (resync) this.#resync();
  }

  #resync(): void {
    const now = this.#clock.now();
    if (now - this.#resyncAtSeconds < RESYNC_SECONDS_MIN) return;
    this.#resyncAtSeconds = now;
    this.#session.send({ type: "resync" });
  }
}

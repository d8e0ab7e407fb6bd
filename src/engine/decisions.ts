/**
 * What is decided for one engine, by its policy, by the gateway or by the clock, and how it is
 * carried out: sent to the engine, noted in its record, and published with its reason.
 */

import type { Clock } from "../base/clock.ts";
import type { Graph } from "../base/graph.ts";
import type { EnginePlan } from "../plan/engine-plan.ts";
import type { PolicyMaker } from "../schedule/choice.ts";
import type { Decision } from "../schedule/policy.ts";
import type { PlanRules } from "../schedule/rules.ts";
import type { EngineState } from "../schedule/state.ts";
import { LIMITS, type Mode } from "../wire/protocol.ts";
import type { Session } from "../wire/session.ts";
import { announceDecision, announceSettled } from "./announce.ts";
import { EngineCaptures } from "./captures.ts";
import { EarlyArrivals } from "./early-arrivals.ts";
import type { EngineMemory } from "./memory.ts";
import { type Happening, PolicySeat } from "./policy-seat.ts";
import { applyMode, type EngineRecord } from "./record.ts";
import { applyRules, hasEnded, moreFor, rulesAlone } from "./rules.ts";

const WAIT_SECONDS_MAX = 3600;

export interface EngineDecisionsOptions {
  readonly clock: Clock;
  readonly policy: PolicyMaker;
  readonly settleWithinSeconds: number | undefined;
  readonly rules: PlanRules;
  readonly memory: EngineMemory;
  /** The connection that the engine has now, or had last. */
  readonly session: () => Session;
  /** What earlier starts learned, of the plan that the engine has now. */
  readonly plan: () => EnginePlan | undefined;
  /** Called after every change that a snapshot shows. */
  readonly onChange: () => void;
}

export class EngineDecisions {
  readonly #record: EngineRecord;
  readonly #options: EngineDecisionsOptions;
  readonly #seat: PolicySeat;
  readonly #captures: EngineCaptures;
  readonly #early = new EarlyArrivals();
  #started = false;
  #modeSet = false;
  #closed = false;
  #cancelWait: (() => void) | undefined;
  #cancelSettle: (() => void) | undefined;

  constructor(record: EngineRecord, options: EngineDecisionsOptions) {
    const { clock, policy, memory, onChange } = options;
    this.#record = record;
    this.#options = options;
    this.#seat = new PolicySeat(record, { clock, policy, context: () => options.plan()?.context });
    this.#captures = new EngineCaptures(record, {
      memory,
      onFrozen: () => this.happen({ type: "tick" }),
      onChange,
    });
  }

  /** Whether a mode was set after the engine joined; it may have missed the message. */
  get modeSet(): boolean {
    return this.#modeSet;
  }

  /** The connection is gone: no wait of the policy's is to end meanwhile. */
  detach(): void {
    this.#cancelWait?.();
  }

  close(): void {
    this.#closed = true;
    this.#cancelWait?.();
    this.#cancelSettle?.();
    this.#captures.close();
  }

  // ---------------------------------------------------------------- by the gateway

  /**
   * The mode that it has already lifts a freeze and asks again for what was refused, maybe by an
   * engine that an earlier controller froze. Else what the policy remembers is kept.
   */
  setMode(mode: Mode): void {
    if (mode === this.#record.mode && !hasEnded(this.#record)) return;
    applyMode(this.#record, mode);
    applyRules(this.#record, this.#options.rules);
    this.#seat.vacate();
    this.#modeSet = true;
    this.#cancelSettle?.();
    this.#cancelSettle = undefined;
    this.#options.session().send({ type: "mode", mode });
    announceDecision(this.#record, { decision: "mode", reason: `the mode is ${mode} now` });
    const { state } = this.#record;
    if (state?.ready === true) {
      this.settleLater();
      this.happen({ type: "ready" });
    }
    this.#options.onChange();
  }

  freeze(why: string): void {
    if (this.#record.frozenReason !== undefined) return;
    const reason = sentence(why);
    const { state } = this.#record;
    this.#record.frozenReason = reason;
    // Without a plan there is nothing to end yet: the engine is told when its inventory comes.
    if (state !== undefined) {
      state.frozen = true;
      this.#options.session().send({ type: "freeze", reason });
    }
    announceDecision(this.#record, { decision: "freeze", reason });
    this.happen({ type: "tick" });
    this.#options.onChange();
  }

  announce(inSeconds: number, requests: number): void {
    if (this.#record.state === undefined) {
      this.#early.add(this.#options.clock.now(), { inSeconds, requests });
    } else this.happen({ type: "announce", inSeconds, requests });
    this.#options.onChange();
  }

  // ---------------------------------------------------------------- by the policy

  /** Another plan: what a policy remembers is about the one before. */
  forget(): void {
    this.#seat.vacate();
  }

  /** The engine told its graphs: from now on there is a policy to hear of what is to come. */
  inventory(): void {
    const { state } = this.#record;
    if (state?.ready === true) {
      this.#tellRules(state);
      this.settleLater();
    }
    for (const arrival of this.#early.take(this.#options.clock.now())) {
      this.happen({ type: "announce", ...arrival });
    }
    this.happen({ type: "inventory" });
  }

  /** An engine that began without us, or missed the start: it can still learn what to leave. */
  #tellRules(state: EngineState): void {
    const rules = rulesAlone(state, this.#options.rules);
    if (Object.keys(rules).length === 0) return;
    this.#options.session().send({ type: "start", graphs: [], ...rules });
  }

  /** Asks the policy, and carries out what it decides. */
  happen(happening: Happening): void {
    const { state, phase } = this.#record;
    if (state === undefined || this.#closed || phase === "stock" || phase === "stopping") return;
    this.#seat.ask(happening, state, (decision) => this.#carryOut(decision, state));
  }

  #carryOut(decision: Decision, state: EngineState): void {
    const { memory, session } = this.#options;
    const { reason } = decision;
    switch (decision.type) {
      case "start": {
        if (this.#started || state.ready) return;
        const more = moreFor(decision, session().version);
        this.#started = true;
        session().send({
          type: "start",
          ...memory.start(decision.graphs),
          ...rulesAlone(state, this.#options.rules),
          ...more,
        });
        break;
      }
      case "dispatch":
        session().send({ type: "dispatch", ...decision.table });
        break;
      case "capture":
        this.#captures.capture(decision, state, session());
        return;
      case "settled":
        this.#settled(reason, state);
        break;
      case "wait":
        this.#wait(decision.seconds);
        break;
    }
    announceDecision(this.#record, { decision: decision.type, reason });
  }

  #settled(reason: string, state: EngineState): void {
    if (state.settled) return;
    state.settled = true;
    this.#cancelSettle?.();
    const { clock, session, plan } = this.#options;
    const { readyAtSeconds } = this.#record;
    if (readyAtSeconds !== undefined) {
      this.#record.readyToSettledSeconds ??= clock.now() - readyAtSeconds;
    }
    if (!state.frozen) session().send({ type: "freeze", reason: sentence(reason) });
    plan()?.settled();
    announceSettled(this.#record, reason, state);
  }

  #wait(seconds: number): void {
    if (!Number.isFinite(seconds)) throw new RangeError(`wait has ${seconds} seconds`);
    this.#cancelWait?.();
    const bounded = Math.min(WAIT_SECONDS_MAX, Math.max(0.001, seconds));
    this.#cancelWait = this.#options.clock.after(bounded, () => this.happen({ type: "tick" }));
  }

  // ---------------------------------------------------------------- by the clock

  /** Starts the time in which captures may happen, once: no return of the engine puts its end off. */
  settleLater(): void {
    const { settleWithinSeconds, clock } = this.#options;
    if (settleWithinSeconds === undefined || this.#record.state?.settled === true) return;
    if (this.#cancelSettle !== undefined) return;
    const end = (): void => this.freeze(`settleWithinSeconds (${settleWithinSeconds}) is over`);
    if (settleWithinSeconds === 0) end();
    else this.#cancelSettle = clock.after(settleWithinSeconds, end);
  }

  // ---------------------------------------------------------------- for want of memory

  /** Gives up a tier: its graphs are marked already, and the table names them no more. */
  drop(graphs: readonly Graph[]): void {
    this.#captures.drop(graphs, this.#options.session());
  }

  /** Captures had ended before a tier was given up; with room for it again they go on. */
  reopen(): void {
    const { state, mode, frozenReason } = this.#record;
    if (state === undefined || frozenReason !== undefined) return;
    state.settled = false;
    this.#seat.vacate();
    this.#options.session().send({ type: "mode", mode });
    this.happen({ type: "ready" });
    this.#options.onChange();
  }
}

/** Text of the user's or of a policy's as the protocol takes it: bounded, and well-formed. */
function sentence(text: string): string {
  return Buffer.from(String(text).slice(0, LIMITS.textChars)).toString();
}

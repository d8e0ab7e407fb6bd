/**
 * A controller in virtual time: the step that drives real engines drives a simulated one.
 *
 * What `EngineDriver` does with a session, a queue, and timers is done here on the engine's clock,
 * in one process: messages arrive at once, and a command has its turn as soon as the one before it
 * was answered. Nothing is decided here.
 */

import { createEngineRecord, type EngineRecord } from "../../engine/record.ts";
import type {
  CaptureEffect,
  Effect,
  EngineInput,
  EngineMessage,
  PublishEffect,
  StepTools,
  Timer,
} from "../../engine/step/effects.ts";
import { step } from "../../engine/step/step.ts";
import { MemoryGuard } from "../../memory/guard.ts";
import { MemoryLedger } from "../../memory/ledger.ts";
import { EnginePlans } from "../../plan/engine-plan.ts";
import type { PolicyMaker } from "../../schedule/choice.ts";
import type { Mode } from "../../wire/protocol.ts";
import type { EngineModel } from "../model/engine.ts";
import type { CaptureOutcome, DropOutcome } from "../model/engine-options.ts";
import { helloOf, inventoryOf, ranksOf, readyOf } from "../model/self-report.ts";
import { StepCounts, type StepSeen } from "../model/step-counts.ts";

export interface VirtualControllerOptions {
  readonly model: EngineModel;
  readonly policy: PolicyMaker;
  /** @default "idle" */
  readonly mode?: Mode;
  /** Whether captures pass the memory guard, as all of ours do. @default true */
  readonly guarded?: boolean;
  /** What captures leave free. @default an allowance for serving */
  readonly marginBytes?: number;
  /** Where learned plans come from. @default none are; costs start from the model's profile */
  readonly plans?: EnginePlans;
  /** Called with what a controller would publish. */
  readonly onEvent?: (event: PublishEffect, atSeconds: number) => void;
  /** Called with each input of the step before it is taken, and with each effect that came of it. */
  readonly onStep?: (what: EngineInput | Effect, atSeconds: number) => void;
}

const TELEMETRY_SECONDS = 0.1;
const HEARTBEAT_SECONDS = 1;
/** What waits for a second to be over, as a drop does, is done by the second one. */
const QUIET_BEATS_MIN = 2;
/** Of all simulated engines: each has a ledger of its own. */
const SESSION = "virtual";

type Drop = Extract<Effect, { type: "drop" }>;

export class VirtualController {
  readonly record: EngineRecord;
  /** When captures had ended for the first time. */
  settledSeconds: number | undefined;
  readonly #options: VirtualControllerOptions;
  readonly #model: EngineModel;
  readonly #tools: StepTools;
  readonly #steps = new StepCounts();
  readonly #timers = new Map<Timer, number>();
  readonly #queue: (CaptureEffect | Drop)[] = [];
  /** The command that the engine has not answered yet; of a drop, its graphs. */
  #open: { readonly command: number; readonly graphs: Drop["graphs"] } | undefined;
  #now = 0;
  #telemetrySeconds = Number.POSITIVE_INFINITY;
  #timerSeconds = Number.POSITIVE_INFINITY;
  #heartbeatSeconds = HEARTBEAT_SECONDS;
  /** Heartbeats since anything else came in, or came of one. */
  #quietBeats = 0;
  #telemetrySequence = 0;
  #command = 0;
  /** What was reserved for the capture whose turn it is. */
  #granted: number | undefined;

  constructor(options: VirtualControllerOptions) {
    const { model, policy, mode = "idle", guarded = true, marginBytes, plans } = options;
    this.#options = options;
    this.#model = model;
    const now = (): number => this.#now;
    const hello = helloOf(model, {
      engine: "simulated",
      session: SESSION,
      mode,
      orders: undefined,
    });
    const guard = new MemoryGuard({
      engine: SESSION,
      ledger: new MemoryLedger(),
      marginBytes,
      driverFree: () => undefined,
      now,
    });
    this.record = createEngineRecord(hello, mode, guarded ? { guard } : {});
    this.#tools = {
      now,
      unixMs: () => Math.round(this.#now * 1000),
      policy,
      settleWithinSeconds: undefined,
      rules: {},
      plans: plans ?? new EnginePlans(undefined, "simulate", model.profile),
      watchesGpus: false,
      hears: () => true,
    };
    this.#take({ type: "join" });
  }

  /** NaN before it is. */
  get readySeconds(): number {
    return this.record.readyAtSeconds ?? Number.NaN;
  }

  get stallSecondsMax(): number {
    return this.record.longestStallMs / 1000;
  }

  /**
   * When anything happens next: at the engine by itself, or here. Heartbeats are nothing that a run
   * would go on for.
   *
   * @param engineSeconds when the engine does something; Infinity: only from outside
   */
  nextSeconds(engineSeconds: number): number {
    const due = Math.min(engineSeconds, this.#telemetrySeconds, this.#timerSeconds);
    return due === Number.POSITIVE_INFINITY ? due : Math.min(due, this.#heartbeatSeconds);
  }

  /**
   * Leaves out heartbeats that would change nothing before the engine does something by itself, all
   * but the last: an idle year has millions.
   */
  skipBeats(engineSeconds: number): void {
    const waits = this.#open !== undefined || this.#timers.size > 0;
    if (waits || this.#quietBeats < QUIET_BEATS_MIN || engineSeconds === Number.POSITIVE_INFINITY) {
      return;
    }
    const due = Math.min(engineSeconds, this.#telemetrySeconds);
    // One by one: they are at the same times, to the last bit, as those that are not left out.
    while (this.#heartbeatSeconds + HEARTBEAT_SECONDS <= due) {
      this.#heartbeatSeconds += HEARTBEAT_SECONDS;
    }
  }

  /** Does what is due; true when something was: an idle engine has to look then. */
  advance(now: number): boolean {
    let acted = false;
    if (this.#heartbeatSeconds <= now) {
      this.#heartbeatSeconds = now + HEARTBEAT_SECONDS;
      acted = true;
      // Before the KV cache exists an engine has no figures to tell.
      const ranks = this.record.inventory && ranksOf(this.#model, SESSION);
      this.#receive({ type: "heartbeat", ...(ranks === undefined ? {} : { ranks }) }, now);
    }
    if (this.#telemetrySeconds <= now) {
      acted = true;
      this.#flush(now);
    }
    while (this.#timerSeconds <= now) {
      acted = true;
      for (const [timer, seconds] of this.#timers) {
        if (seconds > now) continue;
        this.#cancel(timer);
        this.#take({ type: "timer", timer }, now);
        this.#next();
      }
    }
    return acted;
  }

  // ---------------------------------------------------------------- what the engine tells

  loaded(now: number): void {
    // A real engine has no queue yet: the gateway that holds these requests back announces them.
    const requests = this.#model.waiting;
    if (requests > 0) this.#take({ type: "announce", inSeconds: 0, requests }, now);
    this.#receive(inventoryOf(this.#model, SESSION), now);
    // A policy without an opinion starts with nothing: the engine must not wait for ever.
    if (!this.#model.started) this.#model.start([]);
  }

  ready(now: number): void {
    this.#receive(readyOf(this.#model, SESSION), now);
  }

  stepped(seen: StepSeen, now: number): void {
    if (this.#steps.empty) this.#telemetrySeconds = now + TELEMETRY_SECONDS;
    this.#steps.add(seen);
  }

  edge(state: "idle" | "busy", now: number): void {
    const { running, waiting } = this.#model;
    this.#receive({ type: "edge", state, running, waiting }, now);
  }

  answered(result: CaptureOutcome, now: number): void {
    const ranks = ranksOf(this.#model, SESSION);
    const { epoch } = this.#model;
    const answers = this.#answers(result.command) !== undefined;
    this.#receive({ type: "result", ...result, ranks, epoch }, now, answers);
  }

  dropped(result: DropOutcome, now: number): void {
    const ranks = ranksOf(this.#model, SESSION);
    const answer = { type: "dropped", ...result, ranks, epoch: this.#model.epoch } as const;
    const graphs = this.#answers(result.command);
    this.#take({ type: "message", message: answer, answers: graphs !== undefined }, now);
    if (graphs === undefined) return;
    if (answer.outcome === "dropped") this.#take({ type: "dropped", graphs, answer }, now);
    else {
      const reason = answer.reason ?? `the engine ${answer.outcome} the drop`;
      this.#take({ type: "kept", graphs, reason }, now);
    }
    this.#next();
  }

  #flush(now: number): void {
    this.#telemetrySeconds = Number.POSITIVE_INFINITY;
    const { running, waiting } = this.#model;
    const { dropped } = this.#steps;
    const steps = this.#steps.take();
    const sequence = this.#telemetrySequence++;
    this.#receive({ type: "telemetry", sequence, dropped, steps, running, waiting }, now);
  }

  #receive(message: EngineMessage, now: number, answers = false): void {
    this.#take({ type: "message", message, answers }, now);
    this.#next();
  }

  // ---------------------------------------------------------------- the step, and what it asks for

  #take(input: EngineInput, now: number = this.#now): void {
    const { onStep } = this.#options;
    this.#now = now;
    const isBeat = input.type === "message" && input.message.type === "heartbeat";
    this.#quietBeats = isBeat ? this.#quietBeats + 1 : 0;
    onStep?.(input, now);
    for (const effect of step(this.record, input, this.#tools)) {
      onStep?.(effect, now);
      this.#carryOut(effect);
    }
  }

  #carryOut(effect: Effect): void {
    if (effect.type !== "thresholds" && effect.type !== "cancel") this.#quietBeats = 0;
    switch (effect.type) {
      case "send":
        this.#send(effect.message);
        break;
      case "capture":
      case "drop":
        this.#queue.push(effect);
        break;
      case "granted":
        this.#granted = effect.needBytes;
        break;
      case "command": {
        this.#open = { command: ++this.#command, graphs: [] };
        // Without a guard nothing is reserved: the engine goes by its own free memory.
        const needBytes = this.record.guard === undefined ? undefined : effect.needBytes;
        this.#model.capture(this.#command, effect.graph, effect.whenIdle, needBytes);
        break;
      }
      case "wait":
        this.#timers.set(effect.timer, this.#now + effect.seconds);
        this.#timerSeconds = Math.min(...this.#timers.values());
        break;
      case "cancel":
        this.#cancel(effect.timer);
        break;
      case "publish":
        if (effect.name === "lazygraph:engine:settled") this.settledSeconds ??= this.#now;
        this.#options.onEvent?.(effect, this.#now);
        break;
      case "read":
        this.#take({ type: "review" });
        break;
      // A simulated GPU has no driver that could be asked, and nobody looks at snapshots.
      case "welcome":
      case "follow":
      case "thresholds":
      case "changed":
        break;
    }
  }

  #send(message: Extract<Effect, { type: "send" }>["message"]): void {
    switch (message.type) {
      case "start": {
        if (this.#model.started) return;
        const { graphs, tiers = [], more = [], budgetMs } = message;
        const budget = budgetMs === undefined ? {} : { budgetSeconds: budgetMs / 1000 };
        this.#model.start(graphs, tiers, { graphs: more, ...budget });
        break;
      }
      case "dispatch":
        this.#model.dispatch(message);
        break;
      case "freeze":
        this.#model.freeze(message.reason === "" ? "by the controller" : message.reason);
        break;
      case "mode":
        this.#model.freeze("");
        break;
    }
  }

  #cancel(timer: Timer): void {
    this.#timers.delete(timer);
    this.#timerSeconds = Math.min(...this.#timers.values());
  }

  /** Commands that change which graphs the engine has go one at a time. */
  #next(): void {
    while (this.#open === undefined) {
      const task = this.#queue.shift();
      if (task === undefined) return;
      if (task.type === "capture") this.#turn(task);
      else this.#drop(task);
    }
  }

  #drop({ graphs }: Drop): void {
    this.#open = { command: ++this.#command, graphs };
    const ids = graphs.map(({ id }) => id);
    this.#model.drop(this.#command, ids);
  }

  /** What it needs is reserved first, as by `EngineDriver`; it may not be sent after all. */
  #turn(capture: CaptureEffect): void {
    this.#granted = undefined;
    this.#take({ type: "turn", capture });
    const needBytes = this.#granted;
    if (needBytes !== undefined) this.#take({ type: "reserved", capture, needBytes, open: true });
  }

  /** Ends the open command, if it is this one: the graphs that it was to drop. */
  #answers(command: number): Drop["graphs"] | undefined {
    if (this.#open?.command !== command) return undefined;
    const { graphs } = this.#open;
    this.#open = undefined;
    return graphs;
  }
}

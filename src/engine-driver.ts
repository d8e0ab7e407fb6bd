/**
 * Drives one engine process: messages change its record, the policy decides, and what it decided
 * is carried out here. A driver outlives its connection and ends with the engine's process.
 *
 *   message ─▶ engine-record ─▶ policy.decide ─▶ decisions ─▶ session (table, start, freeze)
 *                                                       └──▶ p-queue, one capture at a time
 */

import PQueue from "p-queue";
import type { Clock } from "./clock.ts";
import { EarlyArrivals } from "./early-arrivals.ts";
import { announceMemory, announceResult, countsOf, eventBase } from "./engine-announce.ts";
import { EngineMemory, type MemoryDesk, memoryDesk } from "./engine-memory.ts";
import type { ExplainingPolicy, PolicyMaker } from "./engine-policy.ts";
import {
  applyInventory,
  applyMode,
  applyReady,
  applyResult,
  applyTelemetry,
  createEngineRecord,
  type EngineRecord,
  noteDecision,
  setRanks,
  setStatus,
} from "./engine-record.ts";
import { codeOf, type LazygraphError } from "./errors.ts";
import { type DecisionEvent, publish } from "./events.ts";
import type { Graph } from "./graph.ts";
import type { EnginePlan, PlanDesk } from "./plan/engine-plan.ts";
import type { Decision, EngineEvent } from "./schedule/policy.ts";
import {
  EXCLUDED_REASON,
  excludedGraphs,
  type PlanRules,
  unmatchedRules,
} from "./schedule/rules.ts";
import type { EngineState } from "./schedule/state.ts";
import {
  type CaptureResult,
  type FromEngine,
  type Hello,
  type Inventory,
  LIMITS,
  type Mode,
  type Ready,
  type Telemetry,
} from "./wire/protocol.ts";
import type { Session } from "./wire/session.ts";

/** Seconds between two resyncs that this side asks for, however much the engine gets wrong. */
const RESYNC_SECONDS_MIN = 1;
const WAIT_SECONDS_MAX = 3600;

/** An event of the policy's, without its time. */
type Happening = EngineEvent extends infer E
  ? E extends EngineEvent
    ? Omit<E, "atSeconds">
    : never
  : never;

type CaptureDecision = Extract<Decision, { type: "capture" }>;

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
  readonly #options: DriverOptions;
  readonly #queue = new PQueue({ concurrency: 1 });
  readonly #memory: EngineMemory;
  readonly #early = new EarlyArrivals();
  #session: Session;
  #policy: ExplainingPolicy | undefined;
  #plan: EnginePlan | undefined;
  #started = false;
  /** Whether a mode was set after the engine joined; it may have missed the message. */
  #modeSet = false;
  #closed = false;
  #resyncAtSeconds = Number.NEGATIVE_INFINITY;
  #cancelWait: (() => void) | undefined;
  #cancelSettle: (() => void) | undefined;

  constructor(hello: Hello, mode: Mode, session: Session, options: DriverOptions) {
    this.record = createEngineRecord(hello, mode);
    this.#session = session;
    this.#options = options;
    this.#memory = new EngineMemory(this.record, {
      clock: options.clock,
      desk: options.memory ?? memoryDesk(),
      onChange: (graphs) => this.#happen({ type: "memory", graphs }),
      onSurplus: (graphs) => this.#drop(graphs),
      onReopen: () => this.#reopen(),
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
    this.#cancelWait?.();
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
    const { goodbye } = this.record;
    publish("lazygraph:engine:lost", {
      ...eventBase(this.record),
      code,
      reason: message,
      ...(goodbye === undefined ? {} : { goodbye }),
    });
    this.#options.onChange();
  }

  /** Ends the driver: its process is gone for good, or the controller closes. */
  close(): void {
    this.#closed = true;
    this.#cancelWait?.();
    this.#cancelSettle?.();
    this.#queue.clear();
    this.#memory.close();
    this.#plan?.end();
  }

  /**
   * The mode that it has already lifts a freeze and asks again for what was refused, maybe by an
   * engine that an earlier controller froze. Else what the policy remembers is kept.
   */
  setMode(mode: Mode): void {
    if (mode === this.record.mode && !hasEnded(this.record)) return;
    applyMode(this.record, mode);
    this.#exclude();
    this.#policy = undefined;
    this.#modeSet = true;
    this.#cancelSettle?.();
    this.#cancelSettle = undefined;
    this.#session.send({ type: "mode", mode });
    this.#decided({ decision: "mode", reason: `the mode is ${mode} now` });
    const { state } = this.record;
    if (state?.ready === true) {
      this.#settleLater();
      this.#happen({ type: "ready" });
    }
    this.#options.onChange();
  }

  freeze(why: string): void {
    if (this.record.frozenReason !== undefined) return;
    const reason = sentence(why);
    const { state } = this.record;
    this.record.frozenReason = reason;
    // Without a plan there is nothing to end yet: the engine is told when its inventory comes.
    if (state !== undefined) {
      state.frozen = true;
      this.#session.send({ type: "freeze", reason });
    }
    this.#decided({ decision: "freeze", reason });
    this.#happen({ type: "tick" });
    this.#options.onChange();
  }

  /** Free memory of this host's GPUs has crossed what is spoken for. */
  reviewMemory(): void {
    this.#memory.review();
    this.#options.onChange();
  }

  /** The gateway expects so many requests in so many seconds. */
  announce(inSeconds: number, requests: number): void {
    if (this.record.state === undefined) {
      this.#early.add(this.#options.clock.now(), { inSeconds, requests });
    } else this.#happen({ type: "announce", inSeconds, requests });
    this.#options.onChange();
  }

  #problem(code: string, message: string): void {
    const { engine } = this.record.hello;
    publish("lazygraph:problem", { engine, atUnixMs: Date.now(), code, message });
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
        this.#problem(message.code, message.message);
        break;
    }
    this.#options.onChange();
  }

  // ---------------------------------------------------------------- what happened

  #join(reconnected: boolean): void {
    const { hello, mode } = this.record;
    this.#session.welcome(mode);
    const simulated = hello.simulated !== undefined;
    publish("lazygraph:engine:join", {
      ...eventBase(this.record),
      model: hello.model,
      mode,
      reconnected,
      simulated,
    });
    this.#options.onChange();
  }

  #inventory(message: Inventory): void {
    const before = this.record.state;
    const unknown = applyInventory(this.record, message);
    const { state, frozenReason, mode } = this.record;
    // What a policy remembers is about a plan.
    if (state !== before) {
      this.#policy = undefined;
      this.#plan?.end();
      this.#plan = this.#recall(message);
    }
    this.#exclude();
    this.#memory.inventory(message, this.#plan?.bytes);
    // Asking again would bring the same inventory: report, and go on with what is known.
    if (unknown.length > 0) this.#unknownGraphs(unknown, "inventory", false);
    if (message.phase === "stock" || message.phase === "stopping") return;
    if (frozenReason !== undefined || state?.settled === true) {
      const reason = frozenReason ?? "captures had ended before";
      this.#session.send({ type: "freeze", reason });
    } else if (this.#modeSet) {
      // The welcome told the mode, but not that it has lifted a freeze.
      this.#session.send({ type: "mode", mode });
    }
    if (state?.ready === true) this.#settleLater();
    for (const arrival of this.#early.take(this.#options.clock.now())) {
      this.#happen({ type: "announce", ...arrival });
    }
    this.#happen({ type: "inventory" });
  }

  /** What earlier starts of such an engine learned. An engine that runs as stock learns nothing. */
  #recall(inventory: Inventory): EnginePlan | undefined {
    const { hello, state } = this.record;
    const { rules = {} } = this.#options;
    if (state === undefined || state.planned.length === 0) return undefined;
    const unmatched = unmatchedRules(state.planned, rules);
    if (unmatched.length > 0) {
      this.#problem(
        "ERR_LAZYGRAPH_OPTION",
        `Expected pinned and excluded graphs to be of ${hello.engine}'s plan, got ` +
          `${unmatched.slice(0, 3).join(", ")}${unmatched.length > 3 ? ", …" : ""}: ` +
          "what matches nothing is ignored.",
      );
    }
    const plan = this.#planOf(inventory, state);
    this.record.plan = plan?.snapshot;
    if (plan?.snapshot !== undefined && plan.snapshot.starts > 0) {
      const { starts, file, first } = plan.snapshot;
      const reason = `${starts} earlier starts needed ${first.length} graphs (${file})`;
      this.#decided({ decision: "plan", reason });
    }
    return plan;
  }

  /** An engine waits for its first set of graphs: no fault of a plan's may keep it from that. */
  #planOf(inventory: Inventory, state: EngineState): EnginePlan | undefined {
    try {
      return this.#options.plans?.engine(this.record.hello, inventory, state);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#problem(
        codeOf(error) ?? "ERR_LAZYGRAPH_INTERNAL",
        `Expected to look up what earlier starts of ${this.record.hello.engine} learned, ` +
          `but it starts without: ${why}`,
      );
      return undefined;
    }
  }

  #exclude(): void {
    const { state } = this.record;
    if (state === undefined) return;
    for (const id of excludedGraphs(state.planned, this.#options.rules ?? {})) {
      const entry = state.graphs.get(id);
      if (entry?.status === "planned") setStatus(entry, "refused", EXCLUDED_REASON);
    }
  }

  #ready(message: Ready): void {
    const unknown = applyReady(this.record, message, this.#options.clock.now());
    if (unknown.length > 0) this.#unknownGraphs(unknown, "ready", true);
    const { state } = this.record;
    if (state === undefined) {
      // An engine that is ready before it told its plan: the plan is all that is missing.
      this.#resync();
      return;
    }
    this.#memory.ready(message.captured);
    publish("lazygraph:engine:ready", {
      ...eventBase(this.record),
      captureSeconds: message.captureSeconds,
      ...countsOf(state),
    });
    announceMemory(this.record, state);
    this.#settleLater();
    this.#happen({ type: "ready" });
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
    this.#happen({ type: outcome === "already" ? "captured" : outcome, graph });
  }

  #telemetry(message: Telemetry): void {
    const unknown = applyTelemetry(this.record, message, this.#options.clock.now());
    if (unknown.length > 0) this.#unknownGraphs(unknown, "telemetry", true);
    const { running, waiting, steps } = message;
    publish("lazygraph:engine:steps", { ...eventBase(this.record), running, waiting, steps });
    const regretSeconds = this.#plan?.observe(message.steps, message.waiting) ?? 0;
    this.record.regretSeconds += regretSeconds;
    this.#happen({ type: "demand", steps: message.steps });
  }

  #edge(edge: "idle" | "busy", running: number, waiting: number): void {
    const { state } = this.record;
    if (state === undefined) return;
    state.idle = edge === "idle";
    state.running = running;
    state.waiting = waiting;
    this.#happen({ type: edge });
  }

  #unknownGraphs(graphs: readonly string[], where: string, resync: boolean): void {
    this.record.problems.unknownGraphs += graphs.length;
    this.#problem(
      "ERR_LAZYGRAPH_UNKNOWN_GRAPH",
      `Expected ${where} of ${this.record.hello.engine} to name graphs of its inventory, got ` +
        `${graphs.slice(0, 3).join(", ")}${graphs.length > 3 ? ", …" : ""}: ` +
        `${resync ? "asked for a fresh inventory" : "left them out"}.`,
    );
    if (resync) this.#resync();
  }

  #resync(): void {
    const now = this.#options.clock.now();
    if (now - this.#resyncAtSeconds < RESYNC_SECONDS_MIN) return;
    this.#resyncAtSeconds = now;
    this.#session.send({ type: "resync" });
  }

  // ---------------------------------------------------------------- what to do

  /** Asks the policy, and carries out what it decides. */
  #happen(happening: Happening): void {
    const { state, phase, mode } = this.record;
    if (state === undefined || this.#closed || phase === "stock" || phase === "stopping") return;
    const event = { ...happening, atSeconds: this.#options.clock.now() } as EngineEvent;
    try {
      this.#policy ??= this.#makePolicy(mode, state);
      const policy = this.#policy;
      for (const decision of policy.decide(state, event)) {
        // A listener may have changed the mode, and with it who decides.
        if (this.#policy !== policy) break;
        this.#carryOut(decision, state);
      }
    } catch (error) {
      // A policy may be the user's: what it throws must not take the gateway down.
      const why = error instanceof Error ? error.message : String(error);
      this.#problem(
        "ERR_LAZYGRAPH_POLICY",
        `Expected the policy to decide on "${event.type}", but it threw: ${why}.`,
      );
    }
  }

  #makePolicy(mode: Mode, state: EngineState): ExplainingPolicy {
    const policy = this.#options.policy(mode, this.#plan?.context);
    const { explain } = policy;
    this.record.policy = policy.name;
    this.record.explain =
      explain &&
      ((id) => this.#explained(() => explain.call(policy, state, id, this.#options.clock.now())));
    return policy;
  }

  /** A snapshot is everybody's: a policy that throws must not take that away. */
  #explained(explain: () => string): string {
    try {
      return explain();
    } catch (error) {
      return `the policy threw: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  #carryOut(decision: Decision, state: EngineState): void {
    const { reason } = decision;
    switch (decision.type) {
      case "start":
        if (this.#started || state.ready) return;
        this.#started = true;
        this.#session.send({ type: "start", ...this.#memory.start(decision.graphs) });
        break;
      case "dispatch":
        this.#session.send({ type: "dispatch", ...decision.table });
        break;
      case "capture":
        this.#capture(decision, state);
        return;
      case "settled":
        this.#settled(reason, state);
        break;
      case "wait":
        this.#wait(decision.seconds);
        break;
    }
    this.#decided({ decision: decision.type, reason });
  }

  #capture(decision: CaptureDecision, state: EngineState): void {
    const { graph, reason } = decision;
    const entry = state.graphs.get(graph.id);
    const breach = captureBreach(state, entry?.status);
    if (entry === undefined || breach !== undefined) {
      const sentence = `Expected the policy to capture a planned graph, got ${graph.id}, ${breach}.`;
      this.#problem("ERR_LAZYGRAPH_POLICY", sentence);
      return;
    }
    if (!this.record.connected) return;
    entry.reason = reason;
    state.capturing = graph.id;
    this.#decided({ decision: "capture", graph: graph.id, reason });
    const session = this.#session;
    void this.#queue.add(() => this.#ask(session, decision, state));
  }

  async #ask(session: Session, decision: CaptureDecision, state: EngineState): Promise<void> {
    const { graph, whenIdle, reason } = decision;
    const grant = await this.#memory.reserve(graph);
    if (grant === undefined) return;
    // While the GPU was read the engine may have left, or captures may have ended.
    if (this.#closed || !session.open || state.capturing !== graph.id) {
      this.#memory.abandon();
      return;
    }
    if (state.frozen) {
      this.#memory.abandon();
      state.capturing = undefined;
      this.#happen({ type: "tick" });
      return;
    }
    publish("lazygraph:capture:start", {
      ...eventBase(this.record),
      graph: graph.id,
      whenIdle,
      reason,
    });
    // The answer itself is booked where it arrives, in the order of messages.
    await session
      .capture(graph.id, whenIdle, grant.needBytes)
      .catch((error) => this.#unanswered(graph.id, error));
  }

  /** Gives up a tier: its graphs are marked already, and the table names them no more. */
  #drop(graphs: readonly Graph[]): void {
    const session = this.#session;
    void this.#queue.add(async () => {
      try {
        const answer = await session.drop(graphs.map((graph) => graph.id));
        if (answer.outcome === "dropped") this.#memory.dropped(answer);
        else this.#memory.kept(graphs, answer.reason ?? `the engine ${answer.outcome} the drop`);
      } catch (error) {
        // Lost in the middle of it: the next inventory tells what became of the tier.
        this.#memory.kept(graphs, error instanceof Error ? error.message : String(error));
      }
      this.#options.onChange();
    });
  }

  /** Captures had ended before a tier was given up; with room for it again they go on. */
  #reopen(): void {
    const { state, mode } = this.record;
    if (state === undefined || this.record.frozenReason !== undefined) return;
    state.settled = false;
    this.#policy = undefined;
    this.#session.send({ type: "mode", mode });
    this.#happen({ type: "ready" });
    this.#options.onChange();
  }

  /** The engine was lost with this capture open; `detach` has booked it. */
  #unanswered(graph: string, error: unknown): void {
    if (this.#closed) return;
    const code = codeOf(error) ?? "ERR_LAZYGRAPH_INTERNAL";
    const reason = error instanceof Error ? error.message : String(error);
    publish("lazygraph:capture:failed", { ...eventBase(this.record), graph, reason, code });
  }

  #settled(reason: string, state: EngineState): void {
    if (state.settled) return;
    state.settled = true;
    this.#cancelSettle?.();
    const { readyAtSeconds } = this.record;
    if (readyAtSeconds !== undefined) {
      this.record.readyToSettledSeconds ??= this.#options.clock.now() - readyAtSeconds;
    }
    if (!state.frozen) this.#session.send({ type: "freeze", reason: sentence(reason) });
    this.#plan?.settled();
    const seconds = this.record.readyToSettledSeconds;
    publish("lazygraph:engine:settled", {
      ...eventBase(this.record),
      reason,
      ...(seconds === undefined ? {} : { readyToSettledSeconds: seconds }),
      ...countsOf(state),
    });
  }

  #wait(seconds: number): void {
    if (!Number.isFinite(seconds)) throw new RangeError(`wait has ${seconds} seconds`);
    this.#cancelWait?.();
    const bounded = Math.min(WAIT_SECONDS_MAX, Math.max(0.001, seconds));
    this.#cancelWait = this.#options.clock.after(bounded, () => this.#happen({ type: "tick" }));
  }

  /** Starts the time in which captures may happen, once: no return of the engine puts its end off. */
  #settleLater(): void {
    const { settleWithinSeconds, clock } = this.#options;
    if (settleWithinSeconds === undefined || this.record.state?.settled === true) return;
    if (this.#cancelSettle !== undefined) return;
    const end = (): void => this.freeze(`settleWithinSeconds (${settleWithinSeconds}) is over`);
    if (settleWithinSeconds === 0) end();
    else this.#cancelSettle = clock.after(settleWithinSeconds, end);
  }

  #decided(decision: Pick<DecisionEvent, "decision" | "graph" | "reason">): void {
    noteDecision(this.record, { atUnixMs: Date.now(), ...decision });
    publish("lazygraph:decision", { ...eventBase(this.record), ...decision });
  }
}

/** Text of the user's or of a policy's as the protocol takes it: bounded, and well-formed. */
function sentence(text: string): string {
  return Buffer.from(String(text).slice(0, LIMITS.textChars)).toString();
}

/** Whether captures were ended from outside, all or some of them. */
function hasEnded({ frozenReason, state }: EngineRecord): boolean {
  if (frozenReason !== undefined) return true;
  return [...(state?.graphs.values() ?? [])].some(
    ({ status, reason }) => status === "refused" && reason !== EXCLUDED_REASON,
  );
}

/** Why a policy may not capture now, as the end of a sentence. */
function captureBreach(state: EngineState, status: string | undefined): string | undefined {
  if (status === undefined) return "which is not in the inventory";
  if (status !== "planned") return `which is ${status}`;
  if (state.capturing !== undefined) return `while ${state.capturing} is being captured`;
  if (state.frozen || state.settled) return "after captures have ended";
  return state.ready ? undefined : "before the engine is ready";
}

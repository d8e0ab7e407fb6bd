/**
 * A policy at work on a simulated engine: what happens becomes events, decisions become calls.
 * The controller does the same over sockets; here both sides share a clock and a process.
 */

import type { Decision, EngineEvent, Policy } from "../../schedule/policy.ts";
import { createEngineState, recordSteps, type WritableState } from "../../schedule/state.ts";
import type { EngineModel } from "../model/engine.ts";
import type { CaptureOutcome } from "../model/engine-options.ts";
import { StepCounts, type StepSeen } from "../model/step-counts.ts";

const TELEMETRY_SECONDS = 0.1;
/** A policy that answers its own events with ever new captures is a defect. */
const DEPTH_MAX = 8192;

/** An event before the time is put in; distributes over the union. */
type Happening = EngineEvent extends infer E
  ? E extends EngineEvent
    ? Omit<E, "atSeconds">
    : never
  : never;

export class PolicyRun {
  readonly state: WritableState;
  readySeconds: number = Number.NaN;
  settledSeconds: number | undefined;
  stallSecondsMax = 0;
  readonly #policy: Policy;
  readonly #model: EngineModel;
  readonly #steps = new StepCounts();
  #telemetrySeconds = Number.POSITIVE_INFINITY;
  #wakeSeconds = Number.POSITIVE_INFINITY;
  #command = 0;
  #depth = 0;

  constructor(policy: Policy, model: EngineModel) {
    this.#policy = policy;
    this.#model = model;
    this.state = createEngineState(model.planned);
  }

  /** When this side acts next by itself: a batch of demand, or a wait that ends. */
  get nextSeconds(): number {
    return Math.min(this.#telemetrySeconds, this.#wakeSeconds);
  }

  /** Does what is due; true when the policy was asked. */
  advance(now: number): boolean {
    const asked = this.nextSeconds <= now;
    if (this.#telemetrySeconds <= now) this.#flush(now);
    if (this.#wakeSeconds <= now) {
      this.#wakeSeconds = Number.POSITIVE_INFINITY;
      this.#happened({ type: "tick" }, now);
    }
    return asked;
  }

  loaded(now: number): void {
    this.#happened({ type: "inventory" }, now);
    // A policy without an opinion starts with nothing: the engine must not wait for ever.
    if (!this.#model.started) this.#model.start([]);
  }

  ready(now: number): void {
    this.readySeconds = now;
    this.state.ready = true;
    for (const { graph, ms, bytes } of this.#model.captured.values()) {
      this.#captured(graph.id, ms, bytes);
    }
    this.#happened({ type: "ready" }, now);
  }

  stepped(step: StepSeen, now: number): void {
    if (this.#steps.empty) this.#telemetrySeconds = now + TELEMETRY_SECONDS;
    this.#steps.add(step);
  }

  edge(edge: "idle" | "busy", now: number): void {
    this.state.idle = edge === "idle";
    this.#happened({ type: edge }, now);
  }

  answered(result: CaptureOutcome, now: number): void {
    this.state.capturing = undefined;
    const graph = this.state.graphs.get(result.graph);
    if (result.outcome === "captured" || result.outcome === "already") {
      this.#captured(result.graph, result.ms, result.bytes);
      this.stallSecondsMax = Math.max(this.stallSecondsMax, result.stallMs / 1000);
      this.#happened({ type: "captured", graph: result.graph }, now);
      return;
    }
    if (graph !== undefined) {
      if (result.outcome !== "deferred") graph.status = result.outcome;
      if (result.reason !== undefined) graph.reason = result.reason;
    }
    this.#happened({ type: result.outcome, graph: result.graph }, now);
  }

  #captured(id: string, ms: number, bytes: number): void {
    const graph = this.state.graphs.get(id);
    if (graph === undefined) return;
    graph.status = "captured";
    graph.captureMs = ms;
    graph.bytes = bytes;
  }

  #flush(now: number): void {
    this.#telemetrySeconds = Number.POSITIVE_INFINITY;
    const steps = this.#steps.take();
    for (const step of steps) recordSteps(this.state, step, step.served, step.count, now);
    this.#happened({ type: "demand", steps }, now);
  }

  #happened(event: Happening, now: number): void {
    this.state.running = this.#model.running;
    this.state.waiting = this.#model.waiting;
    if (this.#depth >= DEPTH_MAX) {
      throw new Error(`Policy ${this.#policy.name} never stops answering ${event.type}.`);
    }
    this.#depth++;
    try {
      const decisions = this.#policy.decide(this.state, { ...event, atSeconds: now });
      for (const decision of decisions) this.#carryOut(decision, now);
    } finally {
      this.#depth--;
    }
  }

  #start({ graphs, more = [], budgetMs }: Extract<Decision, { type: "start" }>): void {
    const ids = (some: typeof graphs): string[] => some.map(({ id }) => id);
    const budget = budgetMs === undefined ? {} : { budgetSeconds: budgetMs / 1000 };
    this.#model.start(ids(graphs), [], { graphs: ids(more), ...budget });
  }

  #carryOut(decision: Decision, now: number): void {
    switch (decision.type) {
      case "start":
        if (!this.#model.started) this.#start(decision);
        break;
      case "dispatch":
        this.#model.dispatch(decision.table);
        break;
      case "capture": {
        const graph = this.state.graphs.get(decision.graph.id);
        if (graph !== undefined) graph.reason = decision.reason;
        this.state.capturing = decision.graph.id;
        this.#model.capture(++this.#command, decision.graph.id, decision.whenIdle);
        break;
      }
      case "settled":
        this.state.settled = true;
        this.settledSeconds ??= now;
        break;
      case "wait":
        this.#wakeSeconds = now + decision.seconds;
        break;
    }
  }
}

/** A costed policy with a controller's part around it, for tests. */

import { expect } from "vitest";
import { covers, type Graph, type StepShape } from "../../src/base/graph.ts";
import { addLearned, agePlan } from "../../src/plan/merge.ts";
import type { Plan } from "../../src/plan/plan.ts";
import { learnedOf } from "../../src/plan/recorder.ts";
import {
  type CostPolicy,
  type CostPolicyOptions,
  createCostPolicy,
} from "../../src/schedule/costed/costed.ts";
import { StepObserver } from "../../src/schedule/costed/observer.ts";
import { dispatch } from "../../src/schedule/dispatch.ts";
import type { Decision, DispatchTable, EngineEvent, Policy } from "../../src/schedule/policy.ts";
import {
  EXCLUDED_REASON,
  excludedGraphs,
  type PlanRules,
  withRules,
} from "../../src/schedule/rules.ts";
import { createEngineState, recordSteps, type WritableState } from "../../src/schedule/state.ts";
import { SEED, seen } from "./seed.ts";

export type Answer = "captured" | "deferred" | "refused" | "failed";
type Without = EngineEvent extends infer E
  ? E extends EngineEvent
    ? Omit<E, "atSeconds">
    : never
  : never;

export interface RigOptions extends Partial<CostPolicyOptions> {
  readonly rules?: PlanRules;
  /** Requests that wait for the start. @default 0 */
  readonly waiting?: number;
  /** What each capture takes. @default 30 */
  readonly captureMs?: number;
}

/** Carries decisions out as a controller would, and checks the invariants on the way. */
export class Rig {
  readonly costed: CostPolicy;
  readonly policy: Policy;
  readonly state: WritableState;
  readonly captures: { id: string; whenIdle: boolean; reason: string }[] = [];
  readonly waits: number[] = [];
  readonly settled: string[] = [];
  start: readonly Graph[] = [];
  table: DispatchTable = { uniform: [], mixed: [] };
  tables = 0;
  atSeconds = 0;
  readonly #ids: ReadonlyMap<string, Graph>;
  readonly #recorder: StepObserver;
  readonly #captureMs: number;

  constructor(mode: "lazy" | "idle", planned: readonly Graph[], options: RigOptions = {}) {
    const { rules, waiting = 0, captureMs = 30, ...rest } = options;
    this.#captureMs = captureMs;
    this.costed = createCostPolicy({ mode, costs: SEED, ...rest });
    this.policy = rules === undefined ? this.costed : withRules(this.costed, rules);
    this.state = createEngineState(planned);
    this.state.waiting = waiting;
    this.#recorder = new StepObserver(planned, SEED);
    for (const id of excludedGraphs(planned, rules ?? {})) {
      const entry = this.state.graphs.get(id);
      if (entry === undefined) throw new Error(`no graph ${id}`);
      entry.status = "refused";
      entry.reason = EXCLUDED_REASON;
    }
    this.#ids = new Map(planned.map((graph) => [graph.id, graph]));
    this.event({ type: "inventory" });
  }

  event(event: Without, seconds = 0.1): void {
    this.atSeconds += seconds;
    const decisions = this.policy.decide(this.state, {
      ...event,
      atSeconds: this.atSeconds,
    } as EngineEvent);
    expect(decisions.filter(({ type }) => type === "capture").length).toBeLessThan(2);
    for (const decision of decisions) this.#carryOut(decision);
    for (const { graphs } of [...this.table.uniform, ...this.table.mixed]) {
      for (const id of graphs) expect(this.state.graphs.get(id)?.status).toBe("captured");
    }
  }

  #carryOut(decision: Decision): void {
    expect(decision.reason).not.toBe("");
    if (decision.type === "start") this.start = decision.graphs;
    else if (decision.type === "wait") {
      expect(decision.seconds).toBeGreaterThan(0);
      this.waits.push(decision.seconds);
    } else if (decision.type === "settled") {
      this.settled.push(decision.reason);
      this.state.settled = true;
    } else if (decision.type === "dispatch") {
      this.table = decision.table;
      this.tables++;
    } else {
      const { graph, whenIdle, reason } = decision;
      expect(this.state).toMatchObject({
        ready: true,
        frozen: false,
        settled: false,
        capturing: undefined,
      });
      expect(this.state.graphs.get(graph.id)?.status).toBe("planned");
      this.captures.push({ id: graph.id, whenIdle, reason });
      this.state.capturing = graph.id;
    }
  }

  ready(waiting = 0): void {
    for (const { id } of this.start) this.#set(id, "captured");
    this.state.ready = true;
    this.state.waiting = waiting;
    this.event({ type: "ready" });
  }

  /** Steps as the engine would run them by its table; ungraphed ones take `factor` times 10 ms. */
  steps(step: StepShape, count: number, factor = 1, seconds = 0.1): void {
    const graph = dispatch(this.table, this.#ids, step);
    if (graph !== undefined) expect(covers(graph, step)).toBe(true);
    recordSteps(this.state, step, graph?.id ?? "", count);
    this.state.running = step.requests;
    this.state.waiting = 0;
    const each = graph === undefined ? 0.01 * factor : 0.005;
    const steps = [seen(step, graph?.id ?? "", count, each)];
    this.#recorder.observe(steps, this.state.waiting, this.atSeconds);
    this.event({ type: "demand", steps }, seconds);
  }

  edge(idle: boolean, seconds = 0.1): void {
    this.state.idle = idle;
    if (idle) this.state.running = 0;
    this.event({ type: idle ? "idle" : "busy" }, seconds);
  }

  answer(outcome: Answer): void {
    const id = this.state.capturing;
    if (id === undefined) return;
    this.state.capturing = undefined;
    if (outcome !== "deferred") this.#set(id, outcome);
    this.event({ type: outcome, graph: id });
  }

  /** Answers captures until none is under way. */
  settle(): void {
    for (let round = 0; this.state.capturing !== undefined && round < 1000; round++) {
      this.answer("captured");
    }
  }

  /** The plan after this start. */
  plan(earlier: Plan): Plan {
    const learned = learnedOf(this.#recorder, this.state);
    if (learned === undefined) return earlier;
    return addLearned(agePlan(earlier, [learned]), [learned], 1);
  }

  #set(id: string, status: Answer): void {
    const entry = this.state.graphs.get(id);
    if (entry === undefined || status === "deferred") throw new Error(`no graph ${id}`);
    entry.status = status;
    if (status === "captured") {
      entry.captureMs = this.#captureMs;
      entry.bytes = 1 << 20;
    } else {
      entry.reason = `${status} by the test`;
    }
  }
}

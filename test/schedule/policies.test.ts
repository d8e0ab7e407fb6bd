import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { covers, type Graph, type StepShape } from "../../src/base/graph.ts";
import { dispatch } from "../../src/schedule/dispatch.ts";
import { createPolicy } from "../../src/schedule/modes/modes.ts";
import type { Decision, DispatchTable, EngineEvent, Policy } from "../../src/schedule/policy.ts";
import {
  capturedGraphs,
  createEngineState,
  missingGraphs,
  recordSteps,
  type WritableState,
} from "../../src/schedule/state.ts";
import { plan } from "../helpers/fake-engine.ts";

type Happening =
  | {
      readonly type: "steps";
      readonly tokens: number;
      readonly count: number;
      readonly mixed: boolean;
    }
  | { readonly type: "edge"; readonly idle: boolean }
  | { readonly type: "answer"; readonly outcome: "captured" | "deferred" | "refused" | "failed" }
  | { readonly type: "freeze" }
  | { readonly type: "tick" };

/** Carries decisions out as a controller would, and checks every invariant on the way. */
class Rig {
  readonly state: WritableState;
  readonly captures: string[] = [];
  readonly starts: (readonly Graph[])[] = [];
  readonly settled: string[] = [];
  waits = 0;
  table: DispatchTable = { uniform: [], mixed: [] };
  atSeconds = 0;
  readonly #policy: Policy;
  readonly #ids: ReadonlyMap<string, Graph>;

  constructor(policy: Policy, planned: readonly Graph[]) {
    this.#policy = policy;
    this.state = createEngineState(planned);
    this.#ids = new Map(planned.map((graph) => [graph.id, graph]));
    this.event({ type: "inventory" });
  }

  event(
    event: EngineEvent extends infer E
      ? E extends EngineEvent
        ? Omit<E, "atSeconds">
        : never
      : never,
  ): void {
    this.atSeconds += 0.25;
    const decisions = this.#policy.decide(this.state, {
      ...event,
      atSeconds: this.atSeconds,
    } as EngineEvent);
    expect(decisions.filter((decision) => decision.type === "capture").length).toBeLessThan(2);
    for (const decision of decisions) this.#carryOut(decision);
    for (const row of [...this.table.uniform, ...this.table.mixed]) {
      for (const id of row.graphs) expect(this.state.graphs.get(id)?.status).toBe("captured");
    }
  }

  #carryOut(decision: Decision): void {
    expect(decision.reason).not.toBe("");
    switch (decision.type) {
      case "start":
        this.starts.push(decision.graphs);
        break;
      case "capture": {
        const { id } = decision.graph;
        expect(this.state).toMatchObject({
          ready: true,
          frozen: false,
          settled: false,
          capturing: undefined,
        });
        expect(this.state.graphs.get(id)?.status).toBe("planned");
        this.captures.push(id);
        this.state.capturing = id;
        break;
      }
      case "dispatch":
        this.table = decision.table;
        break;
      case "settled":
        this.settled.push(decision.reason);
        this.state.settled = true;
        break;
      case "wait":
        this.waits += 1;
        break;
    }
  }

  ready(idle: boolean): void {
    for (const graph of this.starts[0] ?? []) this.#entry(graph.id).status = "captured";
    this.state.ready = true;
    this.state.idle = idle;
    this.event({ type: "ready" });
  }

  steps(step: StepShape, count: number): void {
    const graph = dispatch(this.table, this.#ids, step);
    if (graph !== undefined) expect(covers(graph, step)).toBe(true);
    recordSteps(this.state, step, graph?.id ?? "", count);
    this.event({ type: "demand" });
  }

  answer(outcome: "captured" | "deferred" | "refused" | "failed"): void {
    const graph = this.state.capturing;
    if (graph === undefined) return;
    this.state.capturing = undefined;
    if (outcome !== "deferred") this.#entry(graph).status = outcome;
    this.event({ type: outcome, graph });
  }

  edge(idle: boolean): void {
    this.state.idle = idle;
    this.event({ type: idle ? "idle" : "busy" });
  }

  freeze(): void {
    this.state.frozen = true;
    this.event({ type: "tick" });
  }

  apply(happening: Happening): void {
    switch (happening.type) {
      case "steps": {
        const { tokens, count, mixed } = happening;
        this.steps({ tokens, requests: mixed ? 1 : tokens, uniform: mixed ? 0 : 1 }, count);
        break;
      }
      case "edge":
        this.edge(happening.idle);
        break;
      case "answer":
        this.answer(happening.outcome);
        break;
      case "freeze":
        this.freeze();
        break;
      case "tick":
        this.event({ type: "tick" });
        break;
    }
  }

  #entry(graph: string): { status: string } {
    const entry = this.state.graphs.get(graph);
    if (entry === undefined) throw new Error(`no graph ${graph}`);
    return entry;
  }
}

const decodeStep = (tokens: number): StepShape => ({ tokens, requests: tokens, uniform: 1 });

describe("eager", () => {
  test("starts with everything, PIECEWISE first, largest first, and settles at ready", () => {
    const rig = new Rig(createPolicy("eager"), plan(1, 2, 4).reverse());
    expect(rig.starts[0]?.map((graph) => graph.id)).toEqual(plan(1, 2, 4).map((graph) => graph.id));
    rig.ready(true);
    expect(rig.settled).toEqual(["no graph is left to capture"]);
    expect(rig.captures).toEqual([]);
  });

  test("says what stays uncaptured", () => {
    const rig = new Rig(createPolicy("eager"), plan(1, 2));
    rig.starts[0] = [];
    rig.ready(true);
    expect(rig.settled).toEqual(["eager mode captures before ready, 4 graphs stay uncaptured"]);
    expect(rig.captures).toEqual([]);
  });
});

describe("lazy", () => {
  test("captures, even while busy, what three steps wanted, most wanted first", () => {
    const rig = new Rig(createPolicy("lazy"), plan(1, 2, 4, 8));
    expect(rig.starts[0]?.map((graph) => graph.id)).toEqual(["PIECEWISE:8", "FULL:8"]);
    rig.ready(false);
    rig.steps(decodeStep(1), 2);
    expect(rig.captures).toEqual([]);
    rig.steps(decodeStep(4), 9);
    rig.steps(decodeStep(2), 4);
    rig.steps(decodeStep(1), 1);
    expect(rig.captures).toEqual(["FULL:4"]);
    rig.answer("captured");
    rig.answer("captured");
    expect(rig.captures).toEqual(["FULL:4", "FULL:2", "FULL:1"]);
    rig.answer("captured");
    rig.edge(true);
    expect(rig.captures).toHaveLength(3);
    expect(rig.settled).toEqual([]);
  });

  test("after a deferral it waits a second, or for an idle edge", () => {
    const rig = new Rig(createPolicy("lazy"), plan(1, 8));
    rig.ready(false);
    rig.steps(decodeStep(1), 3);
    rig.answer("deferred");
    rig.steps(decodeStep(1), 1);
    expect([rig.captures.length, rig.waits]).toEqual([1, 1]);
    rig.edge(true);
    expect(rig.captures).toEqual(["FULL:1", "FULL:1"]);
    rig.answer("deferred");
    rig.atSeconds += 1;
    rig.event({ type: "tick" });
    expect(rig.captures).toHaveLength(3);
  });

  test("a fill that came to an engine with work keeps no earned capture waiting", () => {
    const rig = new Rig(createPolicy("idle"), plan(1, 8));
    // As the controller takes an engine that has just become ready, until its first edge.
    rig.ready(true);
    expect(rig.captures).toHaveLength(1);
    rig.edge(false);
    rig.steps(decodeStep(1), 3);
    rig.answer("deferred");
    expect(rig.captures).toHaveLength(2);
    expect(rig.captures[1]).toBe("FULL:1");
    // That one was not for an idle engine: now there is a second to wait.
    rig.answer("deferred");
    rig.steps(decodeStep(1), 1);
    expect(rig.captures).toHaveLength(2);
  });
});

describe("idle", () => {
  test("fills while idle: wanted, then the ladder from 64 up and down, then the largest", () => {
    const rig = new Rig(createPolicy("idle"), plan(1, 2, 24, 32, 48, 64, 128, 200, 256));
    rig.ready(false);
    expect(rig.captures).toEqual([]);
    rig.steps(decodeStep(20), 1);
    expect(rig.captures).toEqual([]);
    rig.edge(true);
    while (rig.state.capturing !== undefined) rig.answer("captured");
    expect(rig.captures).toEqual([
      ...["FULL:24", "FULL:64", "PIECEWISE:64", "FULL:128", "PIECEWISE:128"],
      ...["FULL:32", "PIECEWISE:32", "FULL:2", "PIECEWISE:2", "FULL:1", "PIECEWISE:1"],
      ...["PIECEWISE:200", "FULL:200", "PIECEWISE:48", "FULL:48", "PIECEWISE:24"],
    ]);
    expect(rig.settled).toEqual(["no graph is left to capture"]);
  });

  test("a busy engine gets only what its traffic has earned", () => {
    const rig = new Rig(createPolicy("idle"), plan(1, 2, 8));
    rig.ready(true);
    rig.edge(false);
    rig.answer("captured");
    expect(rig.captures).toHaveLength(1);
    rig.steps(decodeStep(1), 3);
    rig.answer("captured");
    const captured = capturedGraphs(rig.state).map((graph) => graph.id);
    expect(captured).toContain("FULL:1");
    expect(missingGraphs(rig.state).length).toBeGreaterThan(0);
    expect(rig.state.capturing).toBeUndefined();
  });
});

const happenings: fc.Arbitrary<Happening> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant("steps" as const),
      tokens: fc.integer({ min: 1, max: 40 }),
      count: fc.integer({ min: 1, max: 5 }),
      mixed: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ type: fc.constant("edge" as const), idle: fc.boolean() }) },
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constant("answer" as const),
      outcome: fc.constantFrom("captured", "captured", "captured", "deferred", "refused", "failed"),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ type: "tick" as const }) },
  { weight: 1, arbitrary: fc.constant({ type: "freeze" as const }) },
);

describe.for(["eager", "lazy", "idle"] as const)("%s, whatever happens", (mode) => {
  test("keeps every invariant", () => {
    const sequences = fc.record({
      sizes: fc.uniqueArray(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 }),
      idle: fc.boolean(),
      events: fc.array(happenings, { maxLength: 80 }),
    });
    fc.assert(
      fc.property(sequences, ({ sizes, idle, events }) => {
        const rig = new Rig(createPolicy(mode), plan(...sizes));
        rig.ready(idle);
        for (const event of events) rig.apply(event);
        expect(rig.settled.length).toBeLessThanOrEqual(1);
        // Left alone and idle, with answers, everything wanted ends somewhere.
        rig.edge(true);
        for (let left = 100; rig.state.capturing !== undefined && left > 0; left -= 1) {
          rig.answer("captured");
        }
        expect(rig.state.capturing).toBeUndefined();
        const stuck = missingGraphs(rig.state).filter(
          (graph) => (rig.state.graphs.get(graph.id)?.wanted ?? 0) >= 3,
        );
        if (!rig.state.frozen) expect(stuck).toEqual([]);
        if (mode !== "lazy" || rig.state.frozen) expect(rig.settled).toHaveLength(1);
      }),
      { numRuns: 600 },
    );
  });
});

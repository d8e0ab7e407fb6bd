import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { covers, type Graph, type StepShape } from "../../src/graph.ts";
import { type CostPolicy, createCostPolicy } from "../../src/schedule/costed.ts";
import { dispatch } from "../../src/schedule/dispatch.ts";
import type { Decision, DispatchTable, EngineEvent } from "../../src/schedule/policy.ts";
import type { StallBudget } from "../../src/schedule/stall-budget.ts";
import { createEngineState, type EngineState, recordSteps } from "../../src/schedule/state.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, mixed, SEED, seen } from "./seed.ts";

type Answer = "captured" | "deferred" | "refused" | "failed";
type Without = EngineEvent extends infer E
  ? E extends EngineEvent
    ? Omit<E, "atSeconds">
    : never
  : never;

/** Carries decisions out as a controller would, and checks the invariants on the way. */
class Rig {
  readonly policy: CostPolicy;
  readonly state: EngineState;
  readonly captures: { id: string; whenIdle: boolean; reason: string }[] = [];
  readonly waits: number[] = [];
  readonly settled: string[] = [];
  start: readonly Graph[] = [];
  table: DispatchTable = { uniform: [], mixed: [] };
  tables = 0;
  atSeconds = 0;
  readonly #ids: ReadonlyMap<string, Graph>;

  constructor(mode: "lazy" | "idle", planned: readonly Graph[], stallBudget: StallBudget = {}) {
    this.policy = createCostPolicy({ mode, costs: SEED, stallBudget });
    this.state = createEngineState(planned);
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
    recordSteps(this.state, step, graph?.id ?? "", count, this.atSeconds);
    this.state.running = step.requests;
    this.state.waiting = 0;
    const each = graph === undefined ? 0.01 * factor : 0.005;
    const steps = [seen(step, graph?.id ?? "", count, each)];
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

  #set(id: string, status: Answer): void {
    const entry = this.state.graphs.get(id);
    if (entry === undefined || status === "deferred") throw new Error(`no graph ${id}`);
    entry.status = status;
    if (status === "captured") {
      entry.captureMs = 30;
      entry.bytes = 1 << 20;
    } else {
      entry.reason = `${status} by the test`;
    }
  }
}

const SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

describe("earned", () => {
  test("lazy captures what has earned its price, and nothing while idle beyond that", () => {
    const rig = new Rig("lazy", plan(...SIZES));
    expect(rig.start.map(({ id }) => id)).toEqual(["PIECEWISE:512", "FULL:512"]);
    rig.ready();
    rig.steps(decode(3), 4);
    expect(rig.captures).toEqual([]);
    rig.steps(decode(3), 4);
    // 8 steps × 5 ms × 3 requests against 30 ms × 3; a graph of 16 is as fast, and covers more.
    expect(rig.captures).toMatchObject([{ whenIdle: false }]);
    expect(rig.captures[0]?.reason).toMatch(/account 0\.12 ≥ price 0\.090|earned/);
    rig.settle();
    rig.edge(true);
    expect(rig.state.capturing).toBeUndefined();
    rig.edge(false);
    rig.steps(decode(3), 50);
    expect(rig.captures).toHaveLength(1);
  });

  test("who waits at ready needs not earn the graph for its first decode steps", () => {
    const rig = new Rig("lazy", plan(...SIZES));
    rig.ready(7);
    expect(rig.captures).toHaveLength(1);
    // With very many waiting prompts go on for long, and nothing is booked ahead.
    const crowded = new Rig("lazy", plan(...SIZES));
    crowded.ready(200);
    expect(crowded.captures).toEqual([]);
  });

  test("the stall budget delays what has been earned, with a reason and an end", () => {
    const rig = new Rig("lazy", plan(...SIZES), { burstSeconds: 0.04, share: 0.01 });
    rig.ready(4);
    rig.settle();
    rig.steps(mixed(100), 100);
    expect(rig.captures).toHaveLength(1);
    expect(rig.waits.at(-1)).toBeGreaterThan(1);
    expect(rig.policy.explain(rig.state, "PIECEWISE:128", rig.atSeconds)).toContain(
      "the stall budget has",
    );
    rig.event({ type: "tick" }, rig.waits.at(-1));
    expect(rig.captures).toHaveLength(2);
  });

  test("no table before ready, one at ready", () => {
    const rig = new Rig("lazy", plan(1, 512));
    expect(rig.tables).toBe(0);
    rig.ready();
    expect(rig.tables).toBe(1);
  });

  test("steps measured otherwise than in the seed change the table", () => {
    const rig = new Rig("lazy", plan(1, 512));
    rig.ready();
    const { tables } = rig;
    expect(rig.table.uniform).toEqual([]);
    // Ungraphed steps turn out so slow that even the largest graph pays.
    for (let report = 0; report < 30; report++) rig.steps(decode(400), 8, 4);
    expect(rig.tables).toBeGreaterThan(tables);
    expect(rig.table.uniform).toEqual([{ upTo: 512, graphs: ["FULL:512"] }]);
    expect(rig.policy.costs?.ungraphedSeconds(decode(400)).value).toBeGreaterThan(0.02);
  });
});

describe("fill", () => {
  test("idle fills the whole plan where arrivals are rare, and settles", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.ready();
    rig.edge(true);
    for (let tick = 0; tick < 100 && rig.settled.length === 0; tick++) {
      rig.settle();
      rig.event({ type: "tick" }, rig.waits.at(-1) ?? 1);
    }
    expect(rig.settled).toEqual(["no graph is left to capture"]);
    expect(new Set(rig.captures.map(({ id }) => id)).size).toBe(2 * SIZES.length - 2);
    expect(rig.captures.every(({ whenIdle }) => whenIdle)).toBe(true);
    // It serves decode steps and mixed ones, six octaves of them without any padding cost.
    expect(rig.captures[0]?.reason).toContain("PIECEWISE:64: rung of the sparse ladder");
  });

  test("while arrivals are near only what is worth the risk", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.ready();
    // A gap of 20 ms after each 200 ms of work, some thousand times.
    for (let round = 0; round < 1000; round++) {
      rig.steps(decode(2), 20, 1, 0.2);
      rig.edge(true, 0.001);
      rig.edge(false, 0.02);
      rig.answer("captured");
    }
    const captured = rig.captures.length;
    rig.edge(true, 0.2);
    expect(rig.captures).toHaveLength(captured);
    expect(captured).toBeLessThan(2 * SIZES.length - 2);
    // After an hour's quiet nothing speaks against the rest.
    rig.event({ type: "tick" }, 3600);
    expect(rig.captures).toHaveLength(captured + 1);
  });

  test("a deferral is answered by waiting", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.ready();
    rig.edge(true);
    expect(rig.captures).toHaveLength(1);
    rig.answer("deferred");
    expect(rig.captures).toHaveLength(1);
    expect(rig.waits.at(-1)).toBe(1);
  });
});

describe("whatever happens", () => {
  type Happening =
    | { readonly type: "steps"; readonly tokens: number; readonly count: number; mixed: boolean }
    | { readonly type: "edge"; readonly idle: boolean }
    | { readonly type: "answer"; readonly outcome: Answer }
    | { readonly type: "freeze" | "tick" | "inventory" };
  const happening: fc.Arbitrary<Happening> = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        type: fc.constant("steps" as const),
        tokens: fc.integer({ min: 1, max: 600 }),
        count: fc.integer({ min: 1, max: 60 }),
        mixed: fc.boolean(),
      }),
    },
    { weight: 3, arbitrary: fc.record({ type: fc.constant("edge" as const), idle: fc.boolean() }) },
    {
      weight: 6,
      arbitrary: fc.record({
        type: fc.constant("answer" as const),
        outcome: fc.constantFrom<Answer>("captured", "captured", "deferred", "refused", "failed"),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        type: fc.constantFrom("tick" as const, "tick" as const, "inventory" as const),
      }),
    },
    { weight: 1, arbitrary: fc.record({ type: fc.constant("freeze" as const) }) },
  );

  function apply(rig: Rig, event: Happening, seconds: number): void {
    if (event.type === "steps") {
      rig.steps(event.mixed ? mixed(event.tokens) : decode(event.tokens), event.count, 1, seconds);
    } else if (event.type === "edge") rig.edge(event.idle, seconds);
    else if (event.type === "answer") rig.answer(event.outcome);
    else {
      if (event.type === "freeze") rig.state.frozen = true;
      rig.event({ type: event.type === "inventory" ? "inventory" : "tick" }, seconds);
    }
  }

  test("no graph twice, none after freeze, and a reason for every graph", () => {
    const sequences = fc.array(fc.tuple(happening, fc.constantFrom(0.001, 0.1, 1, 60)), {
      maxLength: 120,
    });
    fc.assert(
      fc.property(
        sequences,
        fc.constantFrom("lazy", "idle"),
        fc.constantFrom<StallBudget>({}, { burstSeconds: 0.05, share: 0.001 }),
        (events, mode, budget) => {
          const rig = new Rig(mode, plan(1, 8, 24, 64, 512), budget);
          rig.ready();
          let frozenAt = Number.POSITIVE_INFINITY;
          const done = new Set<string>();
          for (const [event, seconds] of events) {
            const under = rig.state.capturing;
            apply(rig, event, seconds);
            if (event.type === "freeze") frozenAt = Math.min(frozenAt, rig.captures.length);
            if (event.type === "answer" && event.outcome !== "deferred" && under !== undefined) {
              expect(done.has(under)).toBe(false);
              done.add(under);
            }
          }
          expect(rig.captures.length).toBeLessThanOrEqual(frozenAt);
          expect(rig.settled.length).toBeLessThan(2);
          for (const [id, { status }] of rig.state.graphs) {
            const why = rig.policy.explain(rig.state, id, rig.atSeconds);
            if (status !== "planned") expect(why).toContain(status);
            else expect(why).toMatch(/: (deferred, .+|its capture is under way)$/);
          }
          expect(rig.policy.explain(rig.state, "none", 0)).toBe("none: not in the plan");
        },
      ),
      { seed: 20261121, numRuns: 300 },
    );
  });

  test("steady demand ends with every wanted step served by a graph that pays", () => {
    const steps = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(steps, fc.constantFrom("lazy", "idle"), (sizes, mode) => {
        const rig = new Rig(mode, plan(...SIZES));
        rig.ready();
        for (let round = 0; round < 60; round++) {
          for (const tokens of sizes) {
            rig.steps(decode(tokens), 20);
            rig.answer("captured");
          }
        }
        for (const tokens of sizes) {
          const ids = new Map(rig.state.planned.map((graph) => [graph.id, graph]));
          expect(dispatch(rig.table, ids, decode(tokens))).toBeDefined();
        }
      }),
      { seed: 20261121, numRuns: 60 },
    );
  });
});

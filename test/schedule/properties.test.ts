import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { covers, type Graph } from "../../src/base/graph.ts";
import { emptyPlan } from "../../src/plan/merge.ts";
import { priorOf } from "../../src/plan/plan.ts";
import type { Prior } from "../../src/schedule/costed/prior.ts";
import { dispatch } from "../../src/schedule/dispatch.ts";
import { excludedGraphs, type PlanRules } from "../../src/schedule/rules.ts";
import { plan } from "../helpers/fake-engine.ts";
import { planOf } from "../plan/helpers.ts";
import { type Answer, Rig, type RigOptions } from "./rig.ts";
import { decode, mixed } from "./seed.ts";

/** What may happen to an engine, in any order; every property holds. */
type Happening =
  | { readonly type: "steps"; readonly tokens: number; readonly count: number; mixed: boolean }
  | { readonly type: "edge"; readonly idle: boolean }
  | { readonly type: "answer"; readonly outcome: Answer }
  | { readonly type: "announce"; readonly inSeconds: number; readonly requests: number }
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
      type: fc.constant("announce" as const),
      inSeconds: fc.constantFrom(0, 0.01, 1, 30, -1, Number.NaN, 1e9),
      requests: fc.constantFrom(1, 50, 0, Number.NaN),
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
const sequences = fc.array(fc.tuple(happening, fc.constantFrom(0.001, 0.1, 1, 60)), {
  maxLength: 120,
  // Else fast-check keeps to some ten events, and hardly anything is captured.
  size: "max",
});

/** How likely somebody was to meet this capture, as its reason says; 1: nobody asked. */
function shareOf(reason: string): number {
  const [, percent] = /an arrival is ([\d.]+) ?% likely/.exec(reason) ?? [];
  return percent === undefined ? 1 : Number(percent) / 100;
}

const SMALL = plan(1, 8, 24, 64, 512);
const ids = SMALL.map(({ id }) => id);
const entry = fc.constantFrom(...ids, "PIECEWISE", "FULL", "8", ">24", "<24", "nonsense");
const rules: fc.Arbitrary<PlanRules> = fc.record(
  {
    pin: fc.array(entry, { maxLength: 3 }),
    exclude: fc.array(entry, { maxLength: 2 }),
    graphsMax: fc.integer({ min: 0, max: 10 }),
  },
  { requiredKeys: [] },
);
const prior: fc.Arbitrary<Prior> = fc.record({
  traffic: fc.array(
    fc.record({
      tokens: fc.constantFrom(1, 8, 24, 64, 512, 1024),
      uniform: fc.constantFrom(0, 1, 3),
      requestSteps: fc.integer({ min: 0, max: 1e9 }),
      steps: fc.integer({ min: 0, max: 1e7 }),
    }),
    { maxLength: 8 },
  ),
  first: fc.uniqueArray(fc.constantFrom(...ids, "FULL:9999"), { maxLength: 6 }),
});
const options: fc.Arbitrary<RigOptions> = fc.record(
  {
    rules,
    prior,
    initOnly: fc.boolean(),
    firstSecondsMax: fc.constantFrom(0, 0.05, 10),
    stallBudget: fc.constantFrom({}, { burstSeconds: 0.05, share: 0.001 }),
  },
  { requiredKeys: [] },
);

function apply(rig: Rig, event: Happening, seconds: number): void {
  if (event.type === "steps") {
    rig.steps(event.mixed ? mixed(event.tokens) : decode(event.tokens), event.count, 1, seconds);
  } else if (event.type === "edge") rig.edge(event.idle, seconds);
  else if (event.type === "answer") rig.answer(event.outcome);
  else if (event.type === "announce") rig.event(event, seconds);
  else {
    if (event.type === "freeze") rig.state.frozen = true;
    rig.event({ type: event.type === "inventory" ? "inventory" : "tick" }, seconds);
  }
}

/** Announcements as the policy must remember them, by a simpler rule: all of them, for ever. */
class Ban {
  readonly #announced: number[] = [];

  add(atSeconds: number, event: Happening): void {
    if (event.type !== "announce") return;
    const { inSeconds, requests } = event;
    if (!(inSeconds >= 0) || inSeconds > 3600 || !(requests > 0)) return;
    // More than 16 at a time are not remembered; these sequences stay far below.
    this.#announced.push(atSeconds + inSeconds);
  }

  reaches(atSeconds: number, stallSeconds: number): boolean {
    return this.#announced.some((at) => at <= atSeconds + stallSeconds && atSeconds <= at + 1);
  }
}

const seeded = { seed: 20261121, numRuns: 200 };

describe("whatever happens", () => {
  test("no graph twice, none after freeze or when init-only, and a reason for every graph", () => {
    fc.assert(
      fc.property(sequences, fc.constantFrom("lazy", "idle"), options, (events, mode, rest) => {
        const rig = new Rig(mode, SMALL, rest);
        const started = new Set(rig.start.map(({ id }) => id));
        expect(started.size).toBe(rig.start.length);
        rig.ready();
        let frozenAt = rest.initOnly === true ? 0 : Number.POSITIVE_INFINITY;
        const done = new Set<string>(started);
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
        for (const [id, { status, reason }] of rig.state.graphs) {
          const why = rig.costed.explain(rig.state, id, rig.atSeconds);
          if (status === "planned") {
            expect(why).toMatch(/: (deferred, .+|its capture is under way)$/);
          } else {
            expect(why).toContain(status);
            if (status !== "captured") expect(why).toContain(reason);
          }
        }
        expect(rig.costed.explain(rig.state, "none", 0)).toBe("none: not in the plan");
      }),
      seeded,
    );
  });

  test("neither over the stall budget nor, but for what has been earned, into an arrival", () => {
    const burstSeconds = 0.05;
    // Next to no refill, so that the reserve of the start is nearly all; or a little.
    const shares = fc.constantFrom(1e-6, 0.001);
    const modes = fc.constantFrom("lazy" as const, "idle" as const);
    fc.assert(
      fc.property(sequences, modes, options, shares, (events, mode, rest, refill) => {
        // Without a freeze, which would end most sequences before the budget has its turn.
        const stallBudget = { burstSeconds, share: refill };
        const rig = new Rig(mode, SMALL, { ...rest, initOnly: false, stallBudget });
        rig.ready();
        const ban = new Ban();
        let seen = rig.captures.length;
        const readySeconds = rig.atSeconds;
        // What fills an engine that stays idle counts as far as somebody was likely to meet it.
        let spent = 0;
        let share = 1;
        for (const [event, seconds] of events) {
          if (event.type === "freeze") continue;
          const under = rig.state.capturing;
          const idle = rig.state.idle;
          apply(rig, event, seconds);
          const done = under !== undefined && rig.state.graphs.get(under)?.status === "captured";
          if (done) spent += 0.03 * (idle ? share : 1);
          ban.add(rig.atSeconds, event);
          const capture = rig.captures[seen];
          if (capture !== undefined) share = shareOf(capture.reason);
          seen = rig.captures.length;
          if (capture === undefined || /account|has earned/.test(capture.reason)) continue;
          // A capture takes 30 ms in these tests.
          expect(ban.reaches(rig.atSeconds, 0.03)).toBe(false);
        }
        const elapsed = rig.atSeconds - readySeconds;
        // The last one may overdraw the reserve by its own length.
        expect(spent).toBeLessThanOrEqual(burstSeconds + refill * elapsed + 0.03);
      }),
      seeded,
    );
  });

  test("within the rules: excluded never, pinned first, and no more than allowed", () => {
    fc.assert(
      fc.property(sequences, fc.constantFrom("lazy", "idle"), rules, (events, mode, within) => {
        const rig = new Rig(mode, SMALL, { rules: within });
        const excluded = excludedGraphs(SMALL, within);
        const graphsMax = within.graphsMax ?? Number.POSITIVE_INFINITY;
        const pinned = (within.pin ?? []).filter(
          (id) => ids.includes(id) && !excluded.includes(id),
        );
        const started = rig.start.map(({ id }) => id);
        expect(started.length).toBeLessThanOrEqual(graphsMax);
        if (graphsMax === Number.POSITIVE_INFINITY) {
          expect(started).toEqual(expect.arrayContaining(pinned));
        }
        rig.ready();
        for (const [event, seconds] of events) apply(rig, event, seconds);
        const captured = [...rig.state.graphs.values()].filter((g) => g.status === "captured");
        expect(captured.length).toBeLessThanOrEqual(graphsMax);
        const asked = new Set([...started, ...rig.captures.map(({ id }) => id)]);
        for (const id of excluded) expect(asked.has(id)).toBe(false);
      }),
      seeded,
    );
  });

  test("no step is served at a higher cost than the costs allow", () => {
    fc.assert(
      fc.property(sequences, fc.constantFrom("lazy", "idle"), options, (events, mode, rest) => {
        const rig = new Rig(mode, SMALL, rest);
        rig.ready();
        for (const [event, seconds] of events) apply(rig, event, seconds);
        const { costs } = rig.costed;
        if (costs === undefined) throw new Error("the plan is known");
        const captured = new Map<string, Graph>();
        for (const { graph, status } of rig.state.graphs.values()) {
          if (status === "captured") captured.set(graph.id, graph);
        }
        for (const step of [1, 5, 24, 60, 300, 512].flatMap((n) => [decode(n), mixed(n)])) {
          const chosen = dispatch(rig.table, captured, step);
          const ungraphed = costs.ungraphedSeconds(step).value;
          const choices = [...captured.values()]
            .filter((graph) => covers(graph, step))
            .map((graph) => costs.graphSeconds(graph).value);
          const cost = chosen === undefined ? ungraphed : costs.graphSeconds(chosen).value;
          expect(cost).toBe(Math.min(ungraphed, ...choices));
        }
      }),
      seeded,
    );
  });

  test("what a start learned is a prior for the next, however often", () => {
    fc.assert(
      fc.property(sequences, options, (events, rest) => {
        let known = emptyPlan(planOf());
        for (let start = 0; start < 3; start++) {
          const prior = start === 0 ? (rest.prior ?? priorOf(known)) : priorOf(known);
          const rig = new Rig("idle", SMALL, { ...rest, prior });
          if (start > 0 && rest.rules === undefined && known.first.length > 0) {
            const started = rig.start.map(({ id }) => id);
            expect(started.length).toBeGreaterThan(0);
            expect(new Set(started).size).toBe(started.length);
            expect(ids).toEqual(expect.arrayContaining(started));
            if (rest.initOnly === true) expect(started).toEqual(known.first);
            else if (rest.firstSecondsMax === 0) expect(started).toHaveLength(1);
          }
          rig.ready();
          for (const [event, seconds] of events) apply(rig, event, seconds);
          known = rig.plan(known);
          expect(new Set(known.first).size).toBe(known.first.length);
          expect(ids).toEqual(expect.arrayContaining([...known.first]));
          for (const { requestSteps, steps } of known.traffic) {
            expect(Number.isFinite(requestSteps) && requestSteps >= 0).toBe(true);
            expect(Number.isFinite(steps) && steps >= 0).toBe(true);
          }
        }
      }),
      { ...seeded, numRuns: 60 },
    );
  });

  test("steady demand ends with every wanted step served by a graph that pays", () => {
    const SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
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
        const known = new Map(rig.state.planned.map((graph) => [graph.id, graph]));
        for (const tokens of sizes) {
          expect(dispatch(rig.table, known, decode(tokens))).toBeDefined();
        }
      }),
      { ...seeded, numRuns: 60 },
    );
  });
});

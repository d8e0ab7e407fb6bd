import { describe, expect, test } from "vitest";
import { formatPlan, PLAN_BYTES_MAX, PlanFault, parsePlan } from "../../src/plan/check.ts";
import {
  fingerprintDifference,
  fingerprintKey,
  fingerprintOf,
} from "../../src/plan/fingerprint.ts";
import { addLearned, agePlan, emptyPlan, mergePlans } from "../../src/plan/merge.ts";
import { neededGraphs, serves } from "../../src/plan/needed.ts";
import { type PlanGraph, type PlanTraffic, planBytes, priorOf } from "../../src/plan/plan.ts";
import { FakeEngine, plan as graphsOf, RANK } from "../helpers/fake-engine.ts";
import { FINGERPRINT, graph, planOf, traffic } from "./helpers.ts";

const { hello } = new FakeEngine();
const told = { graphs: graphsOf(1, 2, 4, 8), ranks: [RANK], cudagraphMode: "FULL_AND_PIECEWISE" };

describe("fingerprint", () => {
  const key = fingerprintKey(fingerprintOf(hello, told));

  test("has the same key for the same engine, whatever the order of its fields", () => {
    expect(key).toMatch(/^[0-9a-f]{24}$/);
    expect(fingerprintKey(fingerprintOf({ ...hello, engine: "other" } as never, told))).toBe(key);
    const turned = Object.fromEntries(Object.entries(fingerprintOf(hello, told)).reverse());
    expect(fingerprintKey(turned as never)).toBe(key);
  });

  test.each([
    ["vllmVersion", { ...hello, vllmVersion: "0.27.0" }, told],
    ["pluginVersion", { ...hello, pluginVersion: "9.9.9" }, told],
    ["model", { ...hello, model: "another" }, told],
    ["tensorParallel", { ...hello, tensorParallel: 2 }, told],
    ["pipelineParallel", { ...hello, pipelineParallel: 2 }, told],
    ["gpuName", hello, { ...told, ranks: [{ ...RANK, gpuName: "Another GPU" }] }],
    ["cudagraphMode", hello, { ...told, cudagraphMode: "FULL" }],
    ["capture sizes", hello, { ...told, graphs: graphsOf(1, 2, 4) }],
  ])("differs with the %s", (name, its, inventory) => {
    const other = fingerprintOf(its, inventory);
    expect(fingerprintKey(other)).not.toBe(key);
    expect(fingerprintDifference(fingerprintOf(hello, told), other)).toContain(name);
  });

  test("two GPUs of one name are one name, however many ranks there are", () => {
    const ranks = [RANK, { ...RANK, rank: 1, gpuUuid: "GPU-2" }];
    expect(fingerprintOf(hello, { ...told, ranks }).gpuName).toBe(RANK.gpuName);
  });
});

describe("a plan's text", () => {
  test("is read back as it was, and by its key", () => {
    const plan = planOf({ simulated: "tiny" });
    expect(parsePlan(formatPlan(plan))).toEqual(plan);
    expect(fingerprintKey(parsePlan(formatPlan(plan)).fingerprint)).toBe(
      fingerprintKey(FINGERPRINT),
    );
    expect(formatPlan(plan)).toContain('\n    {"id":"FULL:8",');
  });

  test("keeps what engines did with their time, and can do without", () => {
    const plan = planOf({ load: { seconds: 10, workSeconds: 4 } });
    expect(parsePlan(formatPlan(plan))).toEqual(plan);
    expect(priorOf(plan).load).toEqual({ seconds: 10, workSeconds: 4 });
    expect(priorOf(planOf())).not.toHaveProperty("load");
    const bad = formatPlan(plan).replace('"workSeconds": 4', '"workSeconds": -4');
    expect(() => parsePlan(bad)).toThrow("$.load.workSeconds");
  });

  test("of 4,096 graphs stays within the limit", () => {
    const graphs = Array.from({ length: 4096 }, (_, index) =>
      graph("PIECEWISE", index + 1, { stepSeconds: 0.012345678901234567, regret: 123.456789 }),
    );
    const rows = graphs.map(({ tokens }) => traffic(tokens, 12345.678901234567));
    const text = formatPlan(planOf({ graphs, traffic: rows, first: [] }));
    expect(text.length).toBeLessThan(PLAN_BYTES_MAX);
    expect(parsePlan(text).graphs).toHaveLength(4096);
  });

  function changed(change: (document: Record<string, unknown>) => void): string {
    const document = JSON.parse(formatPlan(planOf()));
    change(document);
    return JSON.stringify(document);
  }

  test.each([
    ["", "expected JSON, got an empty file"],
    ["{", "expected JSON, got text that is none"],
    ["[]", "expected $ to be an object, got []"],
    ["null", "expected $ to be an object, got null"],
    ["{}", "expected $.lazygraphPlan to be 1 to 2, got nothing"],
    [changed((d) => delete d["fingerprint"]), "$.fingerprint to be an object, got nothing"],
    [changed((d) => Object.assign(d, { starts: -1 })), "$.starts to be a whole number from 0"],
    [changed((d) => Object.assign(d, { updatedAt: "today" })), "$.updatedAt to be a time such as"],
    [changed((d) => Object.assign(d, { learnedBy: "a\u001b[31m" })), "$.learnedBy to be a text"],
    [changed((d) => Object.assign(d, { graphs: {} })), "$.graphs to be a list of at most 4096"],
    [changed((d) => Object.assign(d, { first: ["FULL:3"] })), "$.first[0] to be one of $.graphs"],
    [
      changed((d) => Object.assign(d, { traffic: [{ ...traffic(1, 1), requestSteps: -1 }] })),
      "$.traffic[0].requestSteps to be a number from 0 up, got -1",
    ],
    [
      changed((d) => Object.assign(d, { traffic: [{ ...traffic(1, 1), tokens: 0 }] })),
      "$.traffic[0].tokens to be a whole number from 1",
    ],
    [
      changed((d) => Object.assign(d, { graphs: [graph("FULL", 1), graph("FULL", 1)] })),
      "$.graphs to name each once",
    ],
    [
      changed((d) => Object.assign(d, { graphs: [graph("FULL", 1, { bytes: "much" })] })),
      '$.graphs[0].bytes to be a number from 0 up, got "much"',
    ],
    [
      changed((d) => Object.assign(d, { graphs: [graph("FULL", 1, { captureMs: 1e15 })] })),
      "$.graphs[0].captureMs to be a number from 0 to 86400000",
    ],
  ])("%j is a fault", (text, sentence) => {
    expect(() => parsePlan(text)).toThrow(PlanFault);
    expect(() => parsePlan(text)).toThrow(sentence);
  });

  test("a newer version says so; any other doesn't", () => {
    const newer = changed((d) => Object.assign(d, { lazygraphPlan: 3 }));
    expect(() => parsePlan(newer)).toThrow(expect.objectContaining({ newer: true }));
    const older = changed((d) => Object.assign(d, { lazygraphPlan: 0 }));
    expect(() => parsePlan(older)).toThrow(expect.objectContaining({ newer: false }));
  });
});

/** The same greedy choice without any short cut. */
function slowly(
  graphs: readonly PlanGraph[],
  rows: readonly PlanTraffic[],
  top: string,
): readonly string[] {
  const held = graphs.filter(({ id }) => id === top);
  const cost = (with_: readonly PlanGraph[], row: PlanTraffic): number =>
    row.requestSteps *
    Math.min(
      row.ungraphedSeconds,
      ...with_.filter((g) => serves(g, row)).map(({ stepSeconds }) => stepSeconds),
    );
  const total = (with_: readonly PlanGraph[]): number =>
    rows.reduce((sum, row) => sum + cost(with_, row), 0);
  const needed: string[] = [];
  for (;;) {
    const rates = graphs
      .filter((g) => !held.includes(g))
      .map((g) => ({ g, rate: (total(held) - total([...held, g])) / ((g.captureMs ?? 0) / 1000) }))
      .sort((a, b) => b.rate - a.rate);
    const [best] = rates;
    if (best === undefined || best.rate <= 1) return needed;
    held.push(best.g);
    needed.push(best.g.id);
  }
}

describe("needed graphs", () => {
  const tops = new Set(["FULL:8", "PIECEWISE:8"]);
  const graphs = [1, 2, 4, 8].flatMap((tokens) => [
    graph("FULL", tokens, { stepSeconds: 0.004 + 0.001 * tokens }),
    graph("PIECEWISE", tokens, { stepSeconds: 0.005 + 0.001 * tokens }),
  ]);

  test("come by what they spare per second of capture, and neighbours share", () => {
    // 8 takes 12 ms, 2 takes 6 ms, 1 takes 5 ms: with 2 there, 1 spares one millisecond more.
    const rows = [traffic(1, 1000, { ungraphedSeconds: 0.1 }), traffic(2, 1000)];
    expect(neededGraphs(graphs, rows, tops)).toEqual(["FULL:2", "FULL:1"]);
    // Without the steps of 2 it is the graph of 1 alone.
    expect(neededGraphs(graphs, rows.slice(0, 1), tops)).toEqual(["FULL:1"]);
  });

  test("end where a graph spares less than its capture takes", () => {
    expect(neededGraphs(graphs, [traffic(1, 1)], tops)).toEqual([]);
    expect(neededGraphs(graphs, [traffic(1, 5)], tops)).toEqual(["FULL:1"]);
  });

  test("are those that looking at every graph each time finds, over many histograms", () => {
    let state = 3;
    const random = (): number => {
      state = (state * 1103515245 + 12345) % 2 ** 31;
      return state / 2 ** 31;
    };
    for (let round = 0; round < 100; round++) {
      const many = Array.from({ length: 24 }, (_, index) =>
        graph(index % 2 === 0 ? "FULL" : "PIECEWISE", 1 + (index >> 1), {
          stepSeconds: 0.004 + 0.002 * random() + 0.0002 * index,
          captureMs: 10 + 30 * random(),
        }),
      );
      const rows = Array.from({ length: 12 }, (_, index) =>
        traffic(index + 1, 200 * random() ** 2, { uniform: index % 3 === 0 ? 0 : 1 }),
      );
      expect(neededGraphs(many, rows, new Set(["FULL:12"]))).toEqual(slowly(many, rows, "FULL:12"));
    }
  });

  test("of mixed steps are those that take any mixture", () => {
    const rows = [traffic(1, 1000, { uniform: 0, ungraphedSeconds: 0.1 })];
    expect(neededGraphs(graphs, rows, tops)).toEqual(["PIECEWISE:1"]);
  });
});

describe("ageing and merging", () => {
  test("a start that saw as much halves what those before it saw, not what captures took", () => {
    const plan = planOf({ graphs: [graph("FULL", 8, { regret: 8 })] });
    // 1,500 steps are known.
    const aged = agePlan(plan, [{ traffic: [traffic(2, 3000)] }]);
    expect(aged.traffic.map(({ requestSteps }) => requestSteps)).toEqual([500, 2000]);
    expect(aged.graphs[0]).toMatchObject({ regret: 4, captureMs: 20, bytes: 1_000_000 });
    const more = agePlan(plan, [{ traffic: [traffic(1, 1e9)] }]);
    expect(more.traffic).toEqual(aged.traffic);
  });

  test("starts that saw nothing age nothing, and many busy ones let it be forgotten", () => {
    expect(agePlan(planOf(), [{ traffic: [] }])).toEqual(planOf());
    let plan = planOf();
    for (let start = 0; start < 20; start++) plan = agePlan(plan, [{ traffic: [traffic(2, 1e6)] }]);
    expect(plan.traffic).toEqual([]);
  });

  test("the time that engines worked ages and adds up likewise", () => {
    const load = { seconds: 10, workSeconds: 4 };
    const old = planOf({ load });
    const news = { traffic: old.traffic, graphs: old.graphs, load: { seconds: 2, workSeconds: 1 } };
    const aged = agePlan(old, [news]);
    expect(aged.load).toEqual({ seconds: 5, workSeconds: 2 });
    expect(addLearned(aged, [news], 1).load).toEqual({ seconds: 7, workSeconds: 3 });
    expect(mergePlans(old, planOf({ load })).load).toEqual({ seconds: 20, workSeconds: 8 });
    expect(mergePlans(old, planOf()).load).toEqual(load);
    expect(mergePlans(planOf(), planOf())).not.toHaveProperty("load");
  });

  test("a start's own traffic is added, and the order follows it", () => {
    const learned = {
      traffic: [traffic(2, 100_000)],
      graphs: planOf().graphs.map((g) => ({
        ...g,
        timed: 10,
        stepSeconds: g.id === "FULL:2" ? 0.003 : 0.009,
      })),
    };
    const plan = addLearned(agePlan(planOf(), [learned]), [learned], 1);
    expect(plan.starts).toBe(2);
    expect(plan.traffic.map(({ tokens, requestSteps }) => [tokens, requestSteps])).toEqual([
      [1, 500],
      [2, 100_000],
      [8, 2000],
    ]);
    expect(plan.first[0]).toBe("FULL:2");
  });

  test("merging adds traffic and starts, keeps the larger bytes and comes out the same both ways", () => {
    const a = planOf({ graphs: [graph("FULL", 8, { bytes: 5, replays: 1, timed: 10 })] });
    const b = planOf({
      updatedAt: "2026-11-22T00:00:00Z",
      learnedBy: "another host",
      starts: 3,
      graphs: [graph("FULL", 8, { bytes: 3, replays: 2, timed: 30, stepSeconds: 0.009 })],
    });
    const merged = mergePlans(a, b);
    expect(merged).toMatchObject({
      starts: 4,
      learnedBy: "a test; another host",
      updatedAt: "2026-11-22T00:00:00Z",
      graphs: [{ bytes: 5, replays: 3, timed: 40, stepSeconds: expect.closeTo(0.008, 9) }],
    });
    expect(merged.traffic[0]?.requestSteps).toBe(2000);
    expect(mergePlans(b, a)).toEqual(merged);
  });

  test("an empty plan is one that nothing has been learned for", () => {
    const empty = emptyPlan(planOf());
    expect(mergePlans(empty, planOf()).traffic).toEqual(planOf().traffic);
  });
});

test("a policy gets traffic and order, a forecast the bytes of what was captured", () => {
  const { captureMs: _, bytes: __, ...never } = graph("FULL", 1);
  const plan = planOf({ graphs: [graph("FULL", 8, { bytes: 7 }), never] });
  expect(priorOf(plan)).toEqual({
    traffic: [
      { tokens: 1, uniform: 1, requestSteps: 1000, steps: 1000 },
      { tokens: 8, uniform: 1, requestSteps: 4000, steps: 500 },
    ],
    first: ["FULL:1"],
  });
  expect([...planBytes(plan)]).toEqual([["FULL:8", 7]]);
});

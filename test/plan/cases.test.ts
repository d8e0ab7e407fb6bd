import { describe, expect, test } from "vitest";
import type { Graph } from "../../src/base/graph.ts";
import { formatPlan, parsePlan } from "../../src/plan/check.ts";
import { fingerprintKey, fingerprintOf } from "../../src/plan/fingerprint.ts";
import { addLearned, emptyPlan, mergePlans } from "../../src/plan/merge.ts";
import { neededGraphs } from "../../src/plan/needed.ts";
import { priorOf } from "../../src/plan/plan.ts";
import { learnedOf } from "../../src/plan/recorder.ts";
import { costSeedOf } from "../../src/profile/cost-seed.ts";
import { loadProfile } from "../../src/profile/load.ts";
import { stepOf } from "../../src/schedule/costed/earlier.ts";
import { StepObserver } from "../../src/schedule/costed/observer.ts";
import type { StepsSeen } from "../../src/schedule/policy.ts";
import { createEngineState } from "../../src/schedule/state.ts";
import { plan as graphsOf } from "../helpers/fake-engine.ts";
import { FINGERPRINT, graph, planOf, traffic } from "./helpers.ts";

const seed = costSeedOf(loadProfile());
const plain = graphsOf(1, 8);
const planned: Graph[] = [
  ...plain,
  ...plain.map((one) => ({ ...one, id: `${one.id}:l2`, loras: 2 })),
];

function seen(more: Partial<StepsSeen> = {}): StepsSeen {
  const shape = { tokens: 5, requests: 5, uniform: 1, served: "", count: 10 };
  return { ...shape, seconds: 0.2, timed: 10, contextTokens: 100, ...more };
}

describe("a plan of an engine with adapters", () => {
  const recorder = new StepObserver(planned, seed);
  recorder.observe([seen(), seen({ loras: 2, count: 4 }), seen({ loras: 1 })], 0, 0);
  const learned = learnedOf(recorder, createEngineState(planned));
  if (learned === undefined) throw new Error("nothing was learned");

  test("has the steps of each case apart; those that no graph is for are no plan's", () => {
    expect(learned.traffic).toMatchObject([
      { tokens: 8, uniform: 1, steps: 10 },
      { tokens: 8, uniform: 1, loras: 2, steps: 4 },
    ]);
    expect(learned.traffic[0]).not.toHaveProperty("loras");
    expect(learned.graphs.map(({ id, loras }) => [id, loras])).toEqual(
      planned.map(({ id, loras }) => [id, loras]),
    );
    const regrets = learned.graphs.filter(({ regret }) => regret > 0).map(({ id }) => id);
    expect(regrets).toEqual(["FULL:8", "FULL:8:l2"]);
  });

  test("is written, read and merged with its cases, under the newer schema", () => {
    const head = { fingerprint: FINGERPRINT, createdAt: "2026-11-21T12:00:00Z", learnedBy: "t" };
    const one = addLearned(emptyPlan(head), [learned], 1);
    const text = formatPlan(one);
    expect(JSON.parse(text)).toMatchObject({ lazygraphPlan: 2 });
    expect(parsePlan(text)).toEqual(one);
    const both = mergePlans(one, parsePlan(text));
    expect(both.traffic.map(({ loras, steps }) => [loras, steps])).toEqual([
      [undefined, 20],
      [2, 8],
    ]);
    expect(priorOf(both).traffic.map(stepOf)).toEqual([
      { tokens: 8, requests: 8, uniform: 1 },
      { tokens: 8, requests: 8, uniform: 1, loras: 2 },
    ]);
  });

  test("a case that is none names its place", () => {
    const text = (more: object): string => {
      const document = JSON.parse(formatPlan(planOf()));
      Object.assign(document, { lazygraphPlan: 2, traffic: [{ ...traffic(1, 1), ...more }] });
      return JSON.stringify(document);
    };
    expect(() => parsePlan(text({ loras: -1 }))).toThrow(
      "expected $.traffic[0].loras to be a whole number from 0 to 1048576, got -1",
    );
    expect(() => parsePlan(text({ queryLength: 0 }))).toThrow("$.traffic[0].queryLength");
    expect(() => parsePlan(text({ microbatches: "2" }))).toThrow("$.traffic[0].microbatches");
  });
});

test("a plan without cases is written as before, so that older readers take it", () => {
  expect(JSON.parse(formatPlan(planOf()))).toMatchObject({ lazygraphPlan: 1 });
});

test("a graph serves only rows of its own case", () => {
  const rows = [traffic(8, 1000, { loras: 2 }), traffic(8, 10)];
  const graphs = [
    graph("PIECEWISE", 8, { stepSeconds: 0.02 }),
    graph("FULL", 8, { captureMs: 0.1 }),
    graph("FULL", 8, { id: "FULL:8:l2", loras: 2, captureMs: 0.1 }),
  ];
  expect(neededGraphs(graphs, rows, new Set())).toEqual(["FULL:8:l2", "FULL:8"]);
});

test("regret is against the ideal graph of the step's own case", () => {
  const observer = new StepObserver(planned, seed);
  const regret = (steps: StepsSeen) => observer.observe([steps], 0, 0).regretSeconds;
  expect(regret(seen({ loras: 2, served: "FULL:8:l2" }))).toBe(0);
  expect(regret(seen({ loras: 2 }))).toBeGreaterThan(0);
  // Stock has no graph for it either.
  expect(regret(seen({ loras: 7 }))).toBe(0);
});

test("fingerprints tell cases apart, and are what they were without", () => {
  const hello = {
    ...{ vllmVersion: "0.33.0", pluginVersion: "0.2.0", model: "m" },
    ...{ tensorParallel: 1, pipelineParallel: 1 },
  };
  const of = (graphs: readonly Graph[]) =>
    fingerprintOf(hello, { cudagraphMode: "FULL_AND_PIECEWISE", graphs, ranks: [] });
  const withDefaults = plain.map((one) => ({ ...one, loras: 0, microbatches: 1 }));
  expect(fingerprintKey(of(withDefaults))).toBe(fingerprintKey(of(plain)));
  expect(Object.keys(of(plain).captureSizes)).toEqual(["PIECEWISE", "FULL, 1 a request"]);
  expect(fingerprintKey(of(planned))).not.toBe(fingerprintKey(of(plain)));
  const odd = { ...plain[0], id: "odd", queryLength: 4, microbatches: 2, loras: 8 } as Graph;
  expect(of([odd]).captureSizes).toEqual({
    "PIECEWISE, 8 adapters, at most 4 a request, 2 microbatches": [8],
  });
  // A graph with a drafter's takes another time and other bytes than the same one without.
  const pair = { ...plain[0], draftLayers: 3 } as Graph;
  expect(Object.keys(of([pair]).captureSizes)).toEqual(["PIECEWISE, with a drafter's"]);
});

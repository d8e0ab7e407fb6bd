import { describe, expect, test } from "vitest";
import { addLearned, emptyPlan } from "../../src/plan/merge.ts";
import { learnedOf } from "../../src/plan/recorder.ts";
import { costSeedFor } from "../../src/plan/seed.ts";
import { costSeedOf } from "../../src/profile/cost-seed.ts";
import { loadProfile } from "../../src/profile/load.ts";
import { StepObserver } from "../../src/schedule/costed/observer.ts";
import type { StepsSeen } from "../../src/schedule/policy.ts";
import { createEngineState } from "../../src/schedule/state.ts";
import { plan as graphsOf } from "../helpers/fake-engine.ts";
import { graph, planOf, traffic } from "./helpers.ts";

const profile = loadProfile();
const planned = graphsOf(1, 2, 4, 8);
const another = { ...profile.engine, model: "another" };

function seen(tokens: number, more: Partial<StepsSeen> = {}): StepsSeen {
  return {
    tokens,
    requests: tokens,
    uniform: 1,
    served: "",
    count: 10,
    seconds: 0.2,
    timed: 10,
    contextTokens: 100,
    ...more,
  };
}

describe("a recorder", () => {
  test("knows nothing until something happened", () => {
    const recorder = new StepObserver(planned, costSeedOf(profile));
    expect(learnedOf(recorder, createEngineState(planned))).toBeUndefined();
    // Beyond the largest graph there is nothing to choose.
    recorder.observe([seen(9)], 0, 0);
    expect(learnedOf(recorder, createEngineState(planned))).toBeUndefined();
  });

  test("counts the steps that round up to each size, with those who wait on them", () => {
    const recorder = new StepObserver(planned, costSeedOf(profile));
    recorder.observe([seen(3), seen(4, { count: 5 }), seen(8, { requests: 1, uniform: 8 })], 2, 0);
    const learned = learnedOf(recorder, createEngineState(planned));
    expect(learned?.traffic).toMatchObject([
      // A prompt of eight tokens is uniform in a way that no graph asks for.
      { tokens: 8, uniform: 0, steps: 10, requestSteps: 30 },
      { tokens: 4, uniform: 1, steps: 15, requestSteps: 10 * 5 + 5 * 6 },
    ]);
  });

  test("finds regret where a step ran without its ideal graph, and none where it had it", () => {
    const recorder = new StepObserver(planned, costSeedOf(profile));
    const state = createEngineState(planned);
    recorder.observe([seen(4, { served: "FULL:4", seconds: 5, count: 1000, timed: 1000 })], 0, 0);
    recorder.observe([seen(2, { count: 500, timed: 500, seconds: 10 })], 0, 0);
    const learned = learnedOf(recorder, state);
    const by = new Map(learned?.graphs.map((entry) => [entry.id, entry]));
    expect(by.get("FULL:4")).toMatchObject({ regret: 0, timed: 1000 });
    // 500 steps of two requests, at 20 ms each instead of some 5.
    expect(by.get("FULL:2")?.regret).toBeGreaterThan(500 * 2 * 0.01);
    expect(by.get("FULL:2")?.regret).toBeLessThan(500 * 2 * 0.02);
    if (learned === undefined) throw new Error("nothing was learned");
    // Tops are there anyway: a plan's order is about the others.
    expect(addLearned(emptyPlan(planOf()), [learned], 1).first).not.toContain("FULL:8");
  });

  test("books the time of all steps, and what of it went into tokens", () => {
    const recorder = new StepObserver(planned, costSeedOf(profile));
    const fixed = costSeedOf(profile).ungraphed[0]?.[1] ?? 0;
    recorder.observe([seen(4, { served: "FULL:4", seconds: 0.1, contextTokens: 0 })], 0, 0);
    // No graph is large enough for these, and they are mostly work.
    const long = { uniform: 0, requests: 1, count: 20, timed: 10, seconds: 2 };
    recorder.observe([seen(8192, long), seen(2, { timed: 0 })], 0, 0);
    const { load } = learnedOf(recorder, createEngineState(planned)) ?? {};
    expect(load?.seconds).toBeCloseTo(0.1 + 20 * 0.2, 9);
    expect(load?.workSeconds).toBeGreaterThan(20 * (0.2 - fixed) - 1e-9);
    expect(load?.workSeconds).toBeLessThan(20 * 0.2);
  });

  test("takes captures from the engine's state, growth below zero as none", () => {
    const recorder = new StepObserver(planned, costSeedOf(profile));
    const state = createEngineState(planned);
    const entry = state.graphs.get("FULL:8");
    if (entry === undefined) throw new Error("no FULL:8");
    Object.assign(entry, { status: "captured", captureMs: 33, bytes: -5, replays: 7 });
    const learned = learnedOf(recorder, state);
    expect(learned?.graphs.find(({ id }) => id === "FULL:8")).toMatchObject({
      captureMs: 33,
      bytes: 0,
      replays: 7,
    });
  });

  test("keeps no graph that the engine hasn't got", () => {
    const recorder = new StepObserver(planned, costSeedOf(profile));
    recorder.observe([seen(4, { served: "FULL:nonsense" })], 0, 0);
    const learned = learnedOf(recorder, createEngineState(planned));
    expect(learned?.graphs.map(({ id }) => id)).toEqual(planned.map(({ id }) => id));
  });
});

describe("the seed of a policy's costs", () => {
  const seed = costSeedOf(profile);

  test("is the profile's, and surer for its own model and version than for others", () => {
    expect(costSeedFor(profile, profile.engine).errorShare).toBeUndefined();
    expect(costSeedFor(profile, another).errorShare).toBe(0.5);
    const newer = { ...profile.engine, vllmVersion: "0.33.0" };
    expect(costSeedFor(profile, newer)).toMatchObject({ errorShare: 0.5, foreign: true });
    // A missing graph costs more than the factor of two that vLLM 0.26 pays.
    const [, seconds = 0] = costSeedFor(profile, newer).ungraphed[0] ?? [];
    expect(seconds).toBeCloseTo(2.5 * (seed.ungraphed[0]?.[1] ?? 0), 9);
    // 1.83 s for all without warm-up runs, 2.71 s one by one while serving.
    expect(costSeedFor(profile, another).beforeReadyShare).toBeCloseTo(1.83 / 2.71, 2);
  });

  test("is set right by what earlier starts measured", () => {
    const full = (tokens: number): number =>
      seed.full.find(([size]) => size === tokens)?.[1] ?? Number.NaN;
    const plan = planOf({
      graphs: [
        graph("FULL", 8, { stepSeconds: 3 * full(8), timed: 100, captureMs: 77, bytes: 5 }),
        // An hour of a process that was stopped.
        graph("FULL", 4, { stepSeconds: 9 * full(4), timed: 1, captureMs: 3_600_000 }),
      ],
      traffic: [traffic(1, 10, { ungraphedSeconds: 2 * 0.01004, ungraphedTimed: 100 })],
    });
    const learned = costSeedFor(profile, another, plan);
    expect(learned.errorShare).toBeUndefined();
    expect(learned.full[0]?.[1]).toBeCloseTo(3 * (seed.full[0]?.[1] ?? 0), 9);
    expect(learned.piecewise[0]?.[1]).toBeCloseTo(3 * (seed.piecewise[0]?.[1] ?? 0), 9);
    expect(learned.ungraphed[0]?.[1]).toBeCloseTo(2 * (seed.ungraphed[0]?.[1] ?? 0), 9);
    expect(learned.captures.get("FULL:8")).toEqual({ seconds: 0.077 });
    expect(learned.captures.get("FULL:4")).toEqual(seed.captures.get("FULL:4"));
  });

  test("is the profile's where the plan measured nothing", () => {
    const graphs = planOf().graphs.map(({ captureMs: _, bytes: __, ...rest }) => rest);
    const rows = [traffic(1, 10, { ungraphedTimed: 0 })];
    expect(costSeedFor(profile, another, planOf({ graphs, traffic: rows })).errorShare).toBe(0.5);
  });
});

import { describe, expect, test } from "vitest";
import type { RequestSample } from "../../src/sim/model/batcher.ts";
import { Drive, listArrivals } from "../../src/sim/model/drive.ts";
import { EngineModel } from "../../src/sim/model/engine.ts";
import type {
  CaptureOutcome,
  EngineObserver,
  EngineOptions,
} from "../../src/sim/model/engine-options.ts";
import type { StepSeen } from "../../src/sim/model/step-counts.ts";
import type { TraceRequest } from "../../src/trace/trace.ts";
import { type Change, set, tinyProfile } from "./helpers.ts";

interface Case extends Partial<EngineOptions> {
  readonly requests?: readonly (readonly [at: number, prompt: number, output: number])[];
  readonly start?: readonly string[];
  readonly change?: Change;
}

/** An engine that starts with `start`, and everything that happens to it. */
function engineOf(options: Case, more: EngineObserver = {}) {
  const log: string[] = [];
  const steps: StepSeen[] = [];
  const samples: RequestSample[] = [];
  const results: CaptureOutcome[] = [];
  const model = new EngineModel({
    ...options,
    profile: tinyProfile(options.change),
    observer: {
      onLoaded(at) {
        log.push(`${at} loaded`);
        model.start(options.start ?? []);
      },
      onReady: (at) => void log.push(`${at} ready`),
      onEdge: (state, at) => void log.push(`${at} ${state}`),
      onStep(step, at) {
        log.push(`${at} step ${step.tokens}x${step.requests} ${step.served || "ungraphed"}`);
        steps.push(step);
      },
      onRequest: (sample) => void samples.push(sample),
      onCaptureResult(result, at) {
        log.push(`${at} ${result.outcome} ${result.graph}`);
        results.push(result);
        more.onCaptureResult?.(result, at);
      },
    },
  });
  const requests: TraceRequest[] = (options.requests ?? []).map(([at, prompt, output]) => ({
    atSeconds: at,
    promptTokens: prompt,
    outputTokens: output,
  }));
  const drive = new Drive(model, listArrivals(requests));
  return { model, drive, log, steps, samples, results };
}

const all = ["PIECEWISE:4", "PIECEWISE:1", "FULL:4", "FULL:1"];
/** Exact or one size up, FULL before PIECEWISE. */
const table = {
  uniform: [
    { upTo: 1, graphs: ["FULL:1", "FULL:4"] },
    { upTo: 4, graphs: ["FULL:4", "PIECEWISE:4"] },
  ],
  mixed: [
    { upTo: 1, graphs: ["PIECEWISE:1", "PIECEWISE:4"] },
    { upTo: 4, graphs: ["PIECEWISE:4"] },
  ],
};

describe("start-up", () => {
  test("loads, captures in the order given and serves; requests wait for it", () => {
    const { model, drive, log, samples } = engineOf({
      requests: [[0, 3, 2]],
      start: ["PIECEWISE:4", "FULL:4"],
    });
    model.dispatch(table);
    drive.advance(100);
    // 10 s of loading, two first captures of 2 s; 3 prompt tokens by PIECEWISE:4 in 5 s; one
    // decode step by FULL:4 in 4 s.
    expect(log).toEqual([
      "10 loaded",
      "14 ready",
      "14 busy",
      "19 step 3x1 PIECEWISE:4",
      "23 step 1x1 FULL:4",
      "23 idle",
    ]);
    expect(model.captureSeconds).toBe(4);
    expect(samples).toEqual([
      {
        arrivalSeconds: 0,
        firstTokenSeconds: 19,
        completionSeconds: 23,
        promptTokens: 3,
        outputTokens: 2,
      },
    ]);
  });

  test("only the first capture of a kind has a warm-up run, unless all have", () => {
    const first = engineOf({ start: all });
    first.drive.advance(100);
    // 2 + 1 + 2 + 1 seconds: half of warm-up plus capture remains without a warm-up run.
    expect(first.log.slice(0, 2)).toEqual(["10 loaded", "16 ready"]);
    const every = engineOf({ start: all, warmUps: "all" });
    every.drive.advance(100);
    expect(every.log.slice(0, 2)).toEqual(["10 loaded", "18 ready"]);
  });

  test("holds until it is told what to capture, and names what it doesn't have", () => {
    const model = new EngineModel({ profile: tinyProfile() });
    const drive = new Drive(model, listArrivals([]));
    drive.advance(50);
    expect([model.phase, drive.nextSeconds]).toEqual(["loading", Number.POSITIVE_INFINITY]);
    expect(model.start(["FULL:1", "FULL:999"])).toEqual(["FULL:999"]);
    drive.poke(50);
    expect([model.phase, drive.nextSeconds]).toEqual(["capturing", 52]);
  });

  test("a graph that doesn't fit is left out before ready", () => {
    const { model, drive } = engineOf({
      start: ["PIECEWISE:4", "FULL:4"],
      marginBytes: 50,
    });
    drive.advance(100);
    expect([...model.captured.keys()]).toEqual(["PIECEWISE:4"]);
    expect([model.phase, model.freeBytes]).toEqual(["serving", 60]);
  });
});

describe("batching", () => {
  test("prompts are cut into chunks, decodes and prompts share a step", () => {
    const { drive, steps, samples } = engineOf({
      requests: [
        [10, 2, 3],
        [11, 12, 1],
      ],
    });
    drive.advance(200);
    // [10] 2 tokens ungraphed: 10 s. Then one decode and 7 of the 12 tokens, 8 in all: 10 + 4 s.
    // Then one decode and the other 5: 10 + 2 s.
    expect(steps.map((step) => [step.tokens, step.requests, step.uniform])).toEqual([
      [2, 1, 0],
      [8, 2, 0],
      [6, 2, 0],
    ]);
    expect(samples.map((s) => [s.firstTokenSeconds, s.completionSeconds])).toEqual([
      [20, 46],
      [46, 46],
    ]);
    // Mean tokens in the cache after the step: (3 + 7) / 2 and (4 + 12) / 2.
    expect(steps.map((step) => step.contextTokens)).toEqual([2, 5, 8]);
  });

  test("no more requests at once than the limit", () => {
    const { drive, steps } = engineOf({
      requests: Array.from({ length: 6 }, () => [10, 1, 1] as const),
    });
    drive.advance(200);
    expect(steps.map((step) => step.requests)).toEqual([4, 2]);
  });

  test("the youngest gives way when the cache is full, and starts over", () => {
    const { model, drive, samples, steps } = engineOf({
      requests: [
        [10, 4, 6],
        [10, 4, 6],
      ],
      // Four blocks of four tokens: 4 + 6 tokens need three blocks each.
      change: (document) => set(document, "limits.kvCacheTokens", 16),
    });
    drive.advance(1000);
    expect(model.preemptions).toBe(1);
    // Both prompts; four decodes of both fill two blocks each; the fifth needs a third block, so
    // the younger gives way. The older finishes, the younger computes its 4 + 5 tokens again.
    expect(steps.map((step) => `${step.tokens}x${step.requests}`)).toEqual([
      "8x2",
      "2x2",
      "2x2",
      "2x2",
      "2x2",
      "1x1",
      "8x1",
      "1x1",
    ]);
    expect(samples.map((sample) => sample.outputTokens)).toEqual([6, 6]);
    // Its first token came with the first step and stays the first.
    expect(samples.map((sample) => sample.firstTokenSeconds)).toEqual([24, 24]);
  });

  test("a step that took blocks away lets nobody in", () => {
    const { model, drive, steps } = engineOf({
      requests: [
        [10, 4, 10],
        [10, 11, 10],
      ],
      change: (document) => set(document, "limits.kvCacheTokens", 24),
    });
    drive.advance(1000);
    expect(model.preemptions).toBeGreaterThan(0);
    // In the sixth step the older request needs a third block: the younger gives four away, of
    // which two would do for its next chunk, but it has to wait for the seventh.
    expect(steps.slice(0, 7).map((step) => `${step.tokens}x${step.requests}`)).toEqual([
      "8x2",
      "8x2",
      "2x2",
      "2x2",
      "2x2",
      "1x1",
      "8x2",
    ]);
  });

  test("what can never fit, or finds too many waiting, is refused and counted", () => {
    const { model, drive, samples } = engineOf({
      requests: [
        [0, 60, 5],
        [0, 60, 4],
        [0, 1, 1],
        [0, 1, 1],
      ],
      waitingMax: 2,
    });
    drive.advance(1000);
    expect(model.requestsRefused).toBe(2);
    expect(samples.map((sample) => sample.promptTokens).sort()).toEqual([1, 60]);
  });
});

describe("dispatch", () => {
  test("a mixed step never takes a uniform graph, a graph not captured is passed over", () => {
    const { model, drive, steps } = engineOf({
      requests: [[16, 2, 2]],
      start: ["FULL:4", "FULL:1", "PIECEWISE:1"],
    });
    model.dispatch({
      uniform: table.uniform,
      mixed: [{ upTo: 4, graphs: ["FULL:4", "PIECEWISE:4", "PIECEWISE:1"] }],
    });
    drive.advance(200);
    expect(steps.map((step) => step.served)).toEqual(["", "FULL:1"]);
  });

  test("beyond the last row of the table a step runs ungraphed", () => {
    const { model, drive, steps } = engineOf({ requests: [[20, 5, 1]], start: all });
    model.dispatch(table);
    drive.advance(200);
    expect(steps.map((step) => [step.served, step.seconds])).toEqual([["", 11]]);
  });

  test("a padded step costs what its graph costs", () => {
    const { model, drive, steps } = engineOf({ requests: [[20, 1, 1]], start: ["FULL:4"] });
    model.dispatch(table);
    drive.advance(200);
    expect(steps.map((step) => [step.served, step.seconds])).toEqual([["FULL:4", 4]]);
  });
});

describe("captures after ready", () => {
  test("run between two steps, one step at least between two captures", () => {
    const { model, drive, log } = engineOf({ requests: [[10, 1, 3]] });
    drive.advance(15);
    model.capture(1, "FULL:1", false);
    model.capture(2, "FULL:4", false);
    model.dispatch(table);
    drive.advance(100);
    expect(log.slice(3)).toEqual([
      "20 step 1x1 ungraphed",
      // 2 s, and 1 s for the warm-up run that the kind's first capture needs.
      "23 captured FULL:1",
      "24 step 1x1 FULL:1",
      "26 captured FULL:4",
      "27 step 1x1 FULL:1",
      "27 idle",
    ]);
  });

  test("a capture for an idle engine is deferred while there is work", () => {
    const { model, drive, results } = engineOf({ requests: [[10, 1, 1]] });
    drive.advance(15);
    model.capture(1, "FULL:1", true);
    drive.advance(30);
    // Its turn comes when the step is over and nothing is left to do.
    expect(results.map((result) => result.outcome)).toEqual(["captured"]);
    const busy = engineOf({ requests: [[10, 1, 5]] });
    busy.drive.advance(15);
    busy.model.capture(1, "FULL:1", true);
    busy.drive.advance(30);
    expect(busy.results).toMatchObject([{ outcome: "deferred", reason: "The engine has work." }]);
  });

  test("a request that arrives meanwhile waits for this capture only", () => {
    const { model, drive, log } = engineOf({ requests: [[21, 1, 1]] });
    drive.advance(20);
    model.capture(1, "PIECEWISE:4", true);
    model.capture(2, "PIECEWISE:1", true);
    drive.poke(20);
    drive.advance(100);
    expect(log.slice(3)).toEqual([
      "24 captured PIECEWISE:4",
      "24 busy",
      "34 step 1x1 ungraphed",
      "34 idle",
      "37 captured PIECEWISE:1",
    ]);
  });

  test("already, frozen, unknown and too large are answered with a reason and cost nothing", () => {
    const { model, drive, results } = engineOf({ start: ["FULL:1"], marginBytes: 60 });
    drive.advance(20);
    model.capture(1, "FULL:1", false);
    model.capture(2, "FULL:7", false);
    model.capture(3, "PIECEWISE:4", false);
    model.freeze("enough");
    model.capture(4, "PIECEWISE:1", false);
    drive.poke(20);
    model.freeze("");
    expect(results.map(({ outcome, reason }) => [outcome, reason])).toEqual([
      ["already", undefined],
      ["refused", "This engine has no graph FULL:7."],
      ["refused", "Captures are frozen: enough"],
      ["refused", "Captures are frozen: enough"],
    ]);
    model.capture(5, "PIECEWISE:4", false);
    drive.poke(20);
    // FULL:1 took 10 of its own and, first in its pool, a quarter of what FULL:4 adds to it.
    expect(results.at(-1)).toMatchObject({
      reason: "Not enough GPU memory: 87 bytes are free, 40 are needed.",
      refusal: "headroom",
    });
    expect(drive.nextSeconds).toBe(Number.POSITIVE_INFINITY);
    expect([...model.captured.keys()]).toEqual(["FULL:1"]);
  });

  test("more commands than anybody should send are refused, not queued", () => {
    const { model, drive, results } = engineOf({ requests: [[10, 1, 9]] });
    drive.advance(15);
    for (let command = 1; command <= 70; command++) model.capture(command, "FULL:1", true);
    expect(results).toHaveLength(6);
    expect(results[0]).toMatchObject({ command: 65, outcome: "refused" });
  });
});

test("jitter repeats with its seed and differs with another", () => {
  const run = (seed: number): number[] => {
    const { drive, steps } = engineOf({ requests: [[10, 1, 9]], jitter: 0.1, seed });
    drive.advance(1000);
    return steps.map((step) => step.seconds);
  };
  expect(run(7)).toEqual(run(7));
  expect(run(7)).not.toEqual(run(8));
  for (const seconds of run(7)) expect(Math.abs(seconds - 10)).toBeLessThanOrEqual(3);
});

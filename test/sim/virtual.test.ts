import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { topGraphs } from "../../src/base/graph.ts";
import { loadProfile } from "../../src/profile/load.ts";
import { createPolicy } from "../../src/schedule/modes/modes.ts";
import type { Policy } from "../../src/schedule/policy.ts";
import type { RequestSample } from "../../src/sim/model/batcher.ts";
import { Sample } from "../../src/sim/virtual/figures.ts";
import { type SimulateOptions, simulate } from "../../src/sim/virtual/virtual.ts";
import { readTrace, type TraceRequest } from "../../src/trace/trace.ts";
import { MODES } from "../../src/wire/protocol.ts";
import { roomyProfile, set } from "./helpers.ts";

const conversation = "azure-llm-2023-conversation";
const profile = loadProfile();
/** Captures nothing, dispatches nothing, decides nothing. */
const passive: Policy = { name: "passive", decide: () => [] };

async function run(options: Partial<SimulateOptions>) {
  const samples: RequestSample[] = [];
  const figures = await simulate({
    profile,
    policy: passive,
    requests: [],
    onRequest: (sample) => void samples.push(sample),
    ...options,
  });
  return { figures, samples };
}

describe("a trace, a policy and the engine in virtual time", () => {
  test("a policy that decides nothing serves ungraphed, and the figures add up", async () => {
    const { figures } = await run({
      profile: roomyProfile(),
      requests: [
        { atSeconds: 0, promptTokens: 1, outputTokens: 3 },
        { atSeconds: 100, promptTokens: 1, outputTokens: 1 },
      ],
    });
    // Ready at 10; three steps of 10 s to 40; one step from 100 to 110.
    expect(figures).toMatchObject({
      policy: "passive",
      requests: 2,
      readySeconds: 10,
      captureBeforeReadySeconds: 0,
      completionSecondsSum: 150,
      graphsCaptured: 0,
      graphsPlanned: 4,
      stepsUngraphed: 4,
      stepsExact: 0,
    });
    expect(figures.ttftSeconds).toMatchObject({ p50: 15, max: 20 });
    expect(figures.tpotSeconds).toMatchObject({ p50: 10, max: 10 });
    expect(figures.settledSeconds).toBeUndefined();
  });

  test("an idle stretch costs no heartbeat for each second, and the last one is fresh", async () => {
    const beats: number[] = [];
    const { samples } = await run({
      policy: createPolicy("idle"),
      requests: [0, 20_000].map((atSeconds) => ({ atSeconds, promptTokens: 1, outputTokens: 2 })),
      onStep(what, atSeconds) {
        if (what.type === "message" && what.message.type === "heartbeat") beats.push(atSeconds);
      },
    });
    expect(samples).toHaveLength(2);
    expect(beats.length).toBeLessThan(200);
    expect(beats.findLast((at) => at < 20_001)).toBeGreaterThanOrEqual(19_999);
  });

  test("the three modes on a minute of the conversation trace", async () => {
    const [eager, lazy, idle] = await Promise.all(
      MODES.map(async (mode) => {
        const requests = readTrace(conversation, { seconds: 60, speed: 0.5 });
        return (await run({ policy: createPolicy(mode), requests })).figures;
      }),
    );
    if (!eager || !lazy || !idle) throw new Error("three modes, three runs");
    expect(new Set([eager.requests, lazy.requests, idle.requests]).size).toBe(1);
    expect(eager.requests).toBeGreaterThan(50);
    expect([eager.graphsCaptured, idle.graphsCaptured]).toEqual([102, 102]);
    expect(lazy.graphsCaptured).toBeGreaterThan(2);
    expect(lazy.graphsCaptured).toBeLessThan(102);
    expect(eager.readySeconds - profile.startupSeconds).toBeCloseTo(
      eager.captureBeforeReadySeconds,
    );
    expect(eager.captureBeforeReadySeconds).toBeGreaterThan(1);
    for (const late of [lazy, idle]) {
      expect(late.captureBeforeReadySeconds).toBeLessThan(eager.captureBeforeReadySeconds / 20);
      expect(late.ttftSeconds.max).toBeLessThan(eager.ttftSeconds.max);
      expect(late.stallSecondsMax).toBeGreaterThan(0);
      expect(late.stepsUngraphed).toBeGreaterThan(eager.stepsUngraphed);
    }
    expect(eager.stallSecondsMax).toBe(0);
    expect(idle.settledSeconds).toBeGreaterThan(idle.readySeconds);
    expect(lazy.settledSeconds).toBeUndefined();
  });

  test("the same run twice gives the same figures", async () => {
    const once = async () => {
      const requests = readTrace(conversation, { seconds: 20 });
      return (await run({ policy: createPolicy("idle"), requests, jitter: 0.05, seed: 3 })).figures;
    };
    expect(await once()).toEqual(await once());
  });

  test("a wait ends with a tick, and a policy that never settles is cut off", async () => {
    const ticks: number[] = [];
    const policy: Policy = {
      name: "restless",
      decide(state, event) {
        if (event.type === "inventory") {
          return [{ type: "start", graphs: topGraphs(state.planned), reason: "" }];
        }
        if (event.type === "tick") ticks.push(event.atSeconds);
        return state.ready ? [{ type: "wait", seconds: 1000, reason: "" }] : [];
      },
    };
    const { figures } = await run({ profile: roomyProfile(), policy });
    expect(figures.graphsCaptured).toBe(2);
    expect(ticks).toEqual([1014, 2014, 3014]);
  });

  test("every request that fits completes, in order and with all its tokens", async () => {
    const request = fc.record({
      gap: fc.integer({ min: 0, max: 30 }),
      promptTokens: fc.integer({ min: 1, max: 70 }),
      outputTokens: fc.integer({ min: 1, max: 20 }),
    });
    const memory = fc.constantFrom(32, 64, 256);
    await fc.assert(
      fc.asyncProperty(
        fc.array(request, { maxLength: 30 }),
        memory,
        fc.constantFrom(...MODES),
        async (drawn, kvCacheTokens, mode) => {
          let atSeconds = 0;
          const requests: TraceRequest[] = drawn.map(({ gap, promptTokens, outputTokens }) => {
            atSeconds += gap;
            return { atSeconds, promptTokens, outputTokens };
          });
          const small = roomyProfile((d) => set(d, "limits.kvCacheTokens", kvCacheTokens));
          const { figures, samples } = await run({
            profile: small,
            policy: createPolicy(mode),
            requests,
          });
          const fits = requests.filter((r) => r.promptTokens + r.outputTokens <= kvCacheTokens);
          expect(figures.requests).toBe(fits.length);
          expect(figures.requestsRefused).toBe(requests.length - fits.length);
          const tokens = (list: readonly { outputTokens: number; promptTokens: number }[]) =>
            list.map((r) => `${r.promptTokens}/${r.outputTokens}`).sort();
          expect(tokens(samples)).toEqual(tokens(fits));
          for (const sample of samples) {
            expect(sample.firstTokenSeconds).toBeGreaterThan(sample.arrivalSeconds);
            expect(sample.firstTokenSeconds).toBeGreaterThan(figures.readySeconds);
            expect(sample.completionSeconds).toBeGreaterThanOrEqual(sample.firstTokenSeconds);
          }
        },
      ),
      { seed: 20261121, numRuns: 60 },
    );
  });
});

describe("percentiles", () => {
  test("between ranks, over more values than one block holds", () => {
    const sample = new Sample();
    for (let value = 2000; value >= 1; value--) sample.add(value);
    const { p50, p90, p99, p999, max } = sample.spread();
    expect([p50, p90, p99, p999].map((value) => value.toFixed(3))).toEqual([
      ...["1000.500", "1800.100", "1980.010", "1998.001"],
    ]);
    expect(max).toBe(2000);
    expect(sample.spread().cv).toBeCloseTo(577.49 / 1000.5, 4);
  });

  test("of nothing, and of one value", () => {
    expect(new Sample().spread()).toMatchObject({ p50: 0, max: 0, cv: 0 });
    const one = new Sample();
    one.add(5);
    expect(one.spread()).toEqual({ p50: 5, p90: 5, p99: 5, p999: 5, max: 5, cv: 0 });
  });
});

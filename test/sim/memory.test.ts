import { describe, expect, test } from "vitest";
import { loadProfile } from "../../src/profile/load.ts";
import { EngineModel } from "../../src/sim/model/engine.ts";
import type { EngineOptions } from "../../src/sim/model/engine-options.ts";
import { EngineMemory, SimulatedGpu } from "../../src/sim/model/memory.ts";
import { set, tinyProfile } from "./helpers.ts";

const graphs = tinyProfile().captures.costs.map(({ graph }) => graph);
const graph = (id: string): (typeof graphs)[number] => {
  const found = graphs.find((one) => one.id === id);
  if (found === undefined) throw new Error(`no ${id}`);
  return found;
};

function memory(freeBytes = 100): EngineMemory {
  return new EngineMemory(tinyProfile(), new SimulatedGpu(freeBytes));
}

/** Serving, with these captured before ready; whatever else happens is in the lists. */
function serving(
  first: readonly string[],
  tiers: readonly (readonly string[])[] = [],
  options: Partial<EngineOptions> = {},
): { model: EngineModel; answers: object[]; run: () => void } {
  const answers: object[] = [];
  const model = new EngineModel({
    profile: tinyProfile(),
    ...options,
    observer: {
      onCaptureResult: (result) => void answers.push(result),
      onDropResult: (result) => void answers.push(result),
    },
  });
  let now = 0;
  const run = (): void => {
    for (;;) {
      const activity = model.begin(now);
      if (!("seconds" in activity)) return;
      now += activity.seconds;
      model.finish(now);
    }
  };
  run();
  model.start(first, tiers);
  run();
  return { model, answers, run };
}

describe("what graphs take", () => {
  test("in the profile's order, the largest first: the profile's own bytes", () => {
    const profile = loadProfile("llama-3.1-8b-h200");
    const engine = new EngineMemory(profile, new SimulatedGpu(profile.memory.freeBytes));
    for (const cost of profile.captures.costs) {
      expect([cost.graph.id, engine.take(cost.graph)]).toEqual([cost.graph.id, cost.bytes]);
    }
  });

  test("a larger graph after a smaller one pays for what the pool lacks, no more", () => {
    const engine = memory();
    // Of PIECEWISE:4's 40 bytes 10 are its own, like PIECEWISE:1's; 30 are the pool's at 4 tokens.
    expect(engine.take(graph("PIECEWISE:1"))).toBe(10 + 8);
    expect(engine.take(graph("PIECEWISE:4"))).toBe(10 + 22);
    expect(engine.graphBytes).toBe(50);
    expect(engine.gpu.freeBytes).toBe(50);
  });

  test("what a tier took comes back when it is dropped, and is taken anew later", () => {
    const engine = memory();
    engine.setTiers([["PIECEWISE:4"], ["PIECEWISE:1", "FULL:1"]]);
    for (const id of ["PIECEWISE:4", "PIECEWISE:1", "FULL:1"]) engine.take(graph(id));
    expect(engine.gpu.freeBytes).toBe(100 - 40 - 18 - 13);
    expect(engine.whyNotDrop(["FULL:1"])).toMatch(/PIECEWISE:1 shares the pool of FULL:1/);
    expect(engine.whyNotDrop(["FULL:4"])).toMatch(/FULL:4 is not captured/);
    expect(engine.whyNotDrop(["FULL:1", "PIECEWISE:1"])).toBeUndefined();
    expect(engine.drop(["FULL:1", "PIECEWISE:1"])).toBe(31);
    expect(engine.gpu.freeBytes).toBe(60);
    expect(engine.take(graph("FULL:1"))).toBe(13);
  });

  test("a stranger gets what is free at most, and gives all of it back", () => {
    const gpu = new SimulatedGpu(100);
    gpu.setStrangerBytes(130);
    expect([gpu.strangerBytes, gpu.freeBytes]).toEqual([100, 0]);
    gpu.setStrangerBytes(40);
    expect([gpu.strangerBytes, gpu.freeBytes]).toEqual([40, 60]);
    gpu.setStrangerBytes(0);
    expect([gpu.strangerBytes, gpu.freeBytes]).toEqual([0, 100]);
  });
});

describe("commands", () => {
  test("a capture that reserved more than the headroom is refused, and taken when it fits", () => {
    const profile = tinyProfile((document) =>
      set(document, "memory", {
        totalBytes: 1000,
        freeBytes: 100,
        reservedBytes: 900,
        activationPeakBytes: 60,
      }),
    );
    const { model, answers, run } = serving([], [], { profile, marginBytes: 5 });
    model.capture(1, "FULL:1", false, 36);
    run();
    expect(answers).toMatchObject([
      {
        outcome: "refused",
        refusal: "headroom",
        reason: expect.stringMatching(/^Not enough headroom: 35 bytes of 100 free .* 36 are/),
      },
    ]);
    model.capture(2, "FULL:1", false, 35);
    run();
    expect(answers[1]).toMatchObject({ outcome: "captured", bytes: 13 });
  });

  test("what the largest step so far used is held, and no longer missing from the headroom", () => {
    const profile = tinyProfile((document) => set(document, "memory.activationPeakBytes", 80));
    const { model, run } = serving([], [], { profile });
    expect(model.memory.headroomBytes(0)).toBe(20);
    model.arrive(10, 4, 1);
    run();
    // 4 of at most 8 tokens a step: half the peak.
    expect(model.memory.activationHeldBytes).toBe(40);
    expect(model.freeBytes).toBe(60);
    expect(model.memory.headroomBytes(0)).toBe(20);
  });

  test("a step whose activations find no memory is told", () => {
    const profile = tinyProfile((document) => set(document, "memory.activationPeakBytes", 200));
    let died = 0;
    const model = new EngineModel({ profile, observer: { onOutOfMemory: () => void died++ } });
    expect(model.memory.activate(4)).toBe(true);
    expect(model.memory.activate(8)).toBe(false);
    model.start([]);
    model.arrive(0, 8, 1);
    for (let now = 0, steps = 0; steps < 20; steps++) {
      const activity = model.begin(now);
      if (activity.type === "idle") break;
      now += "seconds" in activity ? activity.seconds : 0;
      model.finish(now);
    }
    expect([died, model.phase, model.begin(100).type]).toEqual([1, "stopping", "idle"]);
  });

  test("a drop ends replays of its graphs, bumps the epoch and frees; a part of a tier stays", () => {
    const tiers = [["PIECEWISE:4", "FULL:4"], ["PIECEWISE:1"]];
    const { model, answers, run } = serving(["PIECEWISE:4", "FULL:4", "PIECEWISE:1"], tiers);
    const before = { epoch: model.epoch, free: model.freeBytes };
    model.drop(1, ["FULL:4"]);
    run();
    expect(answers).toEqual([
      {
        command: 1,
        outcome: "refused",
        graphs: [],
        freedBytes: 0,
        reason: "PIECEWISE:4 shares the pool of FULL:4 and is not named",
      },
    ]);
    expect(model.epoch).toBe(before.epoch);
    model.drop(2, ["FULL:4", "PIECEWISE:4"]);
    run();
    expect(answers[1]).toMatchObject({ command: 2, outcome: "dropped", freedBytes: 60 });
    expect([...model.captured.keys()]).toEqual(["PIECEWISE:1"]);
    expect(model.epoch).toBeGreaterThan(before.epoch);
    expect(model.freeBytes).toBe(before.free + 60);
    model.capture(3, "FULL:4", false);
    run();
    expect(answers[2]).toMatchObject({ outcome: "captured", bytes: 20 });
  });

  test("a graph in no tier is not dropped", () => {
    const { model, answers, run } = serving(["FULL:4"], []);
    model.drop(1, ["FULL:4"]);
    run();
    expect(answers).toMatchObject([
      { outcome: "refused", reason: expect.stringMatching(/no tier/) },
    ]);
    expect(model.captured.has("FULL:4")).toBe(true);
  });
});

describe("a reservation", () => {
  test("comes off the KV cache before it exists, and not after", () => {
    const model = new EngineModel({ profile: tinyProfile() });
    model.reserve("top");
    // 900 bytes hold 64 tokens; the tops take 40 and 20 bytes.
    expect(model.memory.reserved).toEqual({ mode: "top", bytes: 60, kvTokens: 4 });
    expect([model.kvCacheTokens, model.freeBytes]).toEqual([60, 160]);
    model.reserve("plan");
    expect(model.memory.reserved?.bytes).toBe(60);
    // 61 tokens no longer fit.
    expect([model.arrive(0, 60, 1), model.arrive(0, 59, 1)]).toEqual([false, true]);
  });

  test("plan takes all graphs, or what the controller knows of them", () => {
    const plan = memory();
    expect(plan.reserve("plan", undefined)).toBe(6);
    expect(plan.reserved?.bytes).toBe(80);
    const known = memory();
    known.reserve("plan", 14);
    expect(known.reserved).toEqual({ mode: "plan", bytes: 14, kvTokens: 1 });
    expect(memory().reserve("none", 14)).toBe(0);
  });

  test("the least is what serving and small graphs don't find free", () => {
    const tight = (freeBytes: number): EngineMemory => {
      const profile = tinyProfile((document) => {
        set(document, "memory", {
          totalBytes: 1000,
          freeBytes,
          reservedBytes: 900,
          activationPeakBytes: 60,
        });
        set(document, "steps.piecewise", [
          [64, 1],
          [65, 1],
        ]);
        set(document, "captures.rows", [
          ["PIECEWISE", 65, 1000, 1000, 3000, 40],
          ["PIECEWISE", 64, 1000, 1000, 3000, 10],
        ]);
      });
      return new EngineMemory(profile, new SimulatedGpu(freeBytes));
    };
    // 10 for the graph of 64 tokens, 64/65 of 30 for its pool.
    const need = 60 + 10 + 30;
    expect(tight(need).reserve("least", 500)).toBe(0);
    expect(tight(need).reserved).toBeUndefined();
    const short = tight(need - 28);
    expect(short.reserve("least", 500)).toBe(2);
    expect(short.reserved).toEqual({ mode: "least", bytes: 28, kvTokens: 2 });
  });

  test("too late once the engine waits for its first set", () => {
    const { model } = serving([]);
    model.reserve("plan");
    expect([model.memory.reserved, model.kvCacheTokens]).toEqual([undefined, 64]);
  });
});

import { describe, expect, test } from "vitest";
import { type Graph, topGraphs } from "../../src/base/graph.ts";
import type { ControllerOptions } from "../../src/controller/options.ts";
import type { Decision, Policy } from "../../src/index.ts";
import type { Hello } from "../../src/wire/protocol.ts";
import { EventLog } from "../helpers/events.ts";
import { type FakeEngineOptions, plan } from "../helpers/fake-engine.ts";
import { joinEngine, startController } from "../helpers/joined.ts";

const V1: Partial<Hello> = { versionMin: 1, versionMax: 1 };
const V2: Partial<Hello> = { versionMin: 1, versionMax: 2, adapter: "v31" };
const ADAPTED = [
  ...plan(1, 8),
  ...plan(8).map((graph) => ({ ...graph, id: `${graph.id}:l2`, loras: 2 })),
];

/** Starts with the tops and all others within a budget, and no more. */
const budgeted: Policy = {
  name: "budgeted",
  decide: (state, event) =>
    event.type === "inventory" && !state.ready ? [start(state.planned)] : [],
};

function start(planned: readonly Graph[], budgetMs = 40): Decision {
  const graphs = topGraphs(planned);
  const more = planned.filter((graph) => !graphs.includes(graph));
  return { type: "start", graphs, more, budgetMs, reason: "a test" };
}

async function joined(engine: FakeEngineOptions, options: ControllerOptions = {}) {
  const controller = await startController({ policy: () => budgeted, ...options });
  const fake = await joinEngine(controller, engine);
  return {
    controller,
    engine: fake,
    async [Symbol.asyncDispose](): Promise<void> {
      fake.disconnect();
      await controller.close();
    },
  };
}

describe("engines of both versions with one controller, over real sockets", () => {
  test("version 1: welcomed in it and sent the tops alone: it knows no budget", async () => {
    await using rig = await joined({ hello: V1, graphs: plan(1, 2, 8) });
    expect(await rig.engine.got("welcome")).toMatchObject({ version: 1 });
    expect(await rig.engine.got("start")).toEqual({
      type: "start",
      graphs: ["PIECEWISE:8", "FULL:8"],
    });
    const snapshot = await rig.controller.waitForEngine({ phase: "serving" });
    expect(snapshot).toMatchObject({ protocolVersion: 1, adapter: undefined });
  });

  test("version 2: told the budget, and what it then left out is known", async () => {
    await using rig = await joined({ hello: V2, graphs: plan(1, 8) });
    expect(await rig.engine.got("welcome")).toMatchObject({ version: 2 });
    expect(await rig.engine.got("start")).toEqual({
      type: "start",
      graphs: ["PIECEWISE:8", "FULL:8"],
      more: ["PIECEWISE:1", "FULL:1"],
      budgetMs: 40,
    });
    await rig.controller.waitForEngine({ phase: "serving" });
    rig.engine.send({
      type: "ready",
      captureSeconds: 0.05,
      captured: [],
      ranks: [],
      epoch: 4,
      warmUpSeconds: 0.02,
      skipped: ["FULL:1", "FULL:77"],
      phases: [{ name: "weights", seconds: 2.5 }],
    });
    rig.engine.inventory({ captured: [] });
    await rig.engine.got("resync");
    const [snapshot] = rig.controller.engines();
    expect(snapshot).toMatchObject({
      protocolVersion: 2,
      adapter: "v31",
      warmUpBeforeReadySeconds: 0.02,
      startPhases: [{ name: "weights", seconds: 2.5 }],
    });
    // It names a graph that its inventory doesn't have.
    expect(snapshot?.problems.unknownGraphs).toBe(1);
  });

  test("what the budget left out says so, until it is captured", async () => {
    await using rig = await joined({ hello: V2, graphs: plan(1, 8) }, { mode: "lazy" });
    await rig.controller.waitForEngine({ phase: "serving" });
    rig.engine.captured.delete("FULL:1");
    rig.engine.inventory();
    const ranks = [] as const;
    const captured = [...rig.engine.captured.values()];
    using ready = new EventLog("lazygraph:engine:ready");
    const skipped = ["FULL:1"];
    rig.engine.send({ type: "ready", captureSeconds: 0, captured, ranks, epoch: 5, skipped });
    await ready.first();
    const graphs = rig.controller.engines()[0]?.graphs ?? [];
    expect(graphs.find(({ id }) => id === "FULL:1")).toMatchObject({
      status: "planned",
      reason: "left out before ready: the budget was used",
    });
  });

  test.for([
    [40.9, { budgetMs: 40 }],
    [1e12, { budgetMs: 86_400_000 }],
    [Number.POSITIVE_INFINITY, {}],
  ] as const)("a budget of %d ms is told as the protocol has it", async ([budgetMs, told]) => {
    const policy = (): Policy => ({
      ...budgeted,
      decide: (state, event) =>
        budgeted
          .decide(state, event)
          .map((one) => (one.type === "start" ? { ...one, budgetMs } : one)),
    });
    await using rig = await joined({ hello: V2, graphs: plan(1, 8) }, { policy });
    const graphs = ["PIECEWISE:8", "FULL:8"];
    const more = ["PIECEWISE:1", "FULL:1"];
    expect(await rig.engine.got("start")).toEqual({ type: "start", graphs, more, ...told });
  });

  test("a budget that is none is the policy's fault, and no start is sent", async () => {
    using problems = new EventLog("lazygraph:problem");
    const policy = (): Policy => ({
      name: "odd",
      decide: (state, event) => (event.type === "inventory" ? [start(state.planned, -1)] : []),
    });
    await using rig = await joined({ hello: V2 }, { policy });
    const problem = await problems.first();
    expect(problem).toMatchObject({ code: "ERR_LAZYGRAPH_POLICY" });
    expect(problem.message).toContain("start has a budget of -1 ms");
    expect(rig.engine.ofType("start")).toEqual([]);
  });

  test("one whose graphs need version 2 is served, graph by case", async () => {
    await using rig = await joined({ hello: { ...V2, versionMin: 2 }, graphs: ADAPTED });
    const snapshot = await rig.controller.waitForEngine({ phase: "serving" });
    expect(snapshot.graphs.map(({ id, loras }) => [id, loras])).toEqual(
      ADAPTED.map((graph) => [graph.id, graph.loras ?? 0]),
    );
    rig.engine.send({
      type: "telemetry",
      sequence: 1,
      dropped: 0,
      steps: [
        {
          ...{ tokens: 3, requests: 3, uniform: 1, loras: 2, served: "FULL:8:l2", count: 5 },
          ...{ seconds: 0, timed: 0, contextTokens: 0 },
        },
      ],
      running: 3,
      waiting: 0,
    });
    using steps = new EventLog("lazygraph:engine:steps");
    expect((await steps.first()).steps).toMatchObject([{ loras: 2, count: 5 }]);
    const after = rig.controller.engines()[0];
    expect(after?.graphs.find(({ id }) => id === "FULL:8:l2")).toMatchObject({ wanted: 5 });
    expect(after).toMatchObject({ stepsExact: 5, stepsPadded: 0, stepsUngraphed: 0 });
  });

  test("one that comes back with another range is spoken to accordingly", async () => {
    await using rig = await joined({ hello: V2, heartbeatMs: 0 });
    await rig.engine.got("start");
    rig.engine.send({ ...rig.engine.hello, ...V1 });
    expect(await rig.engine.got("welcome", 2)).toMatchObject({ version: 1 });
    expect(rig.controller.engines()).toMatchObject([{ connected: true, protocolVersion: 1 }]);
  });

  test("one that is refused after it was welcome is no longer there", async () => {
    using lost = new EventLog("lazygraph:engine:lost");
    await using rig = await joined({ hello: V2, heartbeatMs: 0 });
    await rig.engine.got("welcome");
    rig.engine.send({ ...rig.engine.hello, versionMin: 3, versionMax: 3 });
    expect((await rig.engine.got("refuse")).message).toBe(
      "Expected engine engine-0 to speak protocol versions 1 to 2, got version 3: " +
        "upgrade lazygraph, the controller.",
    );
    await lost.first();
    expect(rig.controller.engines()).toMatchObject([{ connected: false }]);
  });
});

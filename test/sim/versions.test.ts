import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Profile } from "../../src/profile/profile.ts";
import { LiveEngine, type LiveEvent } from "../../src/sim/live/live.ts";
import { EngineModel } from "../../src/sim/model/engine.ts";
import type { ToEngine } from "../../src/wire/protocol.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { HandController } from "./hand-controller.ts";
import { set, tinyProfile } from "./helpers.ts";

function profileOf(adapters = false): Profile {
  const profile = tinyProfile((document) => {
    set(document, "startupSeconds", 1);
    set(document, "memory.freeBytes", 500);
  });
  if (!adapters) return profile;
  const { costs } = profile.captures;
  const adapted = costs.map(({ graph, ...cost }) => ({
    ...cost,
    graph: { ...graph, id: `${graph.id}:l2`, loras: 2 },
  }));
  return { ...profile, captures: { ...profile.captures, costs: [...costs, ...adapted] } };
}

describe("a simulated engine of version 2, over real sockets", () => {
  let endpoint: string;
  let controller: HandController;
  let engine: LiveEngine | undefined;

  beforeEach(async () => {
    endpoint = `ipc://${join(await temporaryFolder(), "c")}`;
    controller = new HandController();
    await controller.socket.bind(endpoint);
  });

  afterEach(async () => {
    await engine?.close();
    engine = undefined;
    controller.socket.close();
  });

  function start(profile: Profile, onEvent: (event: LiveEvent) => void = () => {}): void {
    engine = new LiveEngine({
      profile,
      endpoint,
      speed: 100,
      // Longer than any test may take: a start that waits for it fails.
      handshakeMs: 600_000,
      mode: "lazy",
      onEvent,
    });
    engine.start();
  }

  function welcome(version: number): ToEngine {
    return { type: "welcome", version, incarnation: 100, heartbeatMs: 60_000, mode: "lazy" };
  }

  test.for([1, 2])("takes a welcome in version %i", async (version) => {
    start(profileOf());
    expect(await controller.next("hello")).toMatchObject({ versionMin: 1, versionMax: 2 });
    await controller.send(welcome(version));
    await controller.next("inventory");
    await controller.send({ type: "start", graphs: ["FULL:1"] });
    expect((await controller.next("ready")).captured).toMatchObject([{ graph: "FULL:1" }]);
    expect(engine?.connected).toBe(true);
  });

  test("refused by version 1, which can't tell its graphs apart, it serves by itself", async () => {
    const ready = new Promise<LiveEvent>((resolve) => {
      start(profileOf(true), (event) => {
        if (event.type === "ready") resolve(event);
      });
    });
    expect(await controller.next("hello")).toMatchObject({ versionMin: 2, versionMax: 2 });
    await controller.send({
      type: "refuse",
      code: "ERR_LAZYGRAPH_PROTOCOL_VERSION",
      message: "Expected version 1, got version 2: upgrade lazygraph, the controller.",
    });
    await ready;
    expect(engine?.connected).toBe(false);
    expect([...(engine?.model.captured.keys() ?? [])].sort()).toEqual([
      "FULL:4",
      "FULL:4:l2",
      "PIECEWISE:4",
      "PIECEWISE:4:l2",
    ]);
  });

  test("a welcome in a version that it doesn't offer is a problem, and no session", async () => {
    start(profileOf(true));
    await controller.next("hello");
    await controller.send(welcome(1));
    expect(await controller.next("problem")).toMatchObject({
      code: "ERR_LAZYGRAPH_PROTOCOL_VERSION",
      message:
        "Expected protocol version 2 to 2 in welcome, got 1: upgrade lazygraph, the controller.",
    });
    expect(engine?.connected).toBe(false);
    await controller.send(welcome(2));
    const { graphs } = await controller.next("inventory");
    expect(graphs.map(({ loras = 0 }) => loras)).toEqual([0, 0, 0, 0, 2, 2, 2, 2]);
  });

  test("keeps to the budget of a start, and says what it left out", async () => {
    start(profileOf());
    await controller.next("hello");
    await controller.send(welcome(2));
    await controller.next("inventory");
    // Each top takes 2 s, its warm-up run one of them, and what a kind took last is what its next
    // is expected to take: one more fits in the 6 s, and after it none.
    const graphs = ["PIECEWISE:4", "FULL:4"];
    const more = ["FULL:1", "PIECEWISE:1"];
    await controller.send({ type: "start", graphs, more, budgetMs: 6000 });
    expect(await controller.next("ready")).toMatchObject({
      captured: [{ graph: "PIECEWISE:4" }, { graph: "FULL:4" }, { graph: "FULL:1" }],
      skipped: ["PIECEWISE:1"],
      captureSeconds: 5,
      warmUpSeconds: 2,
    });
  });
});

describe("the budget of a start", () => {
  function captured(graphs: readonly string[], more: readonly string[], budgetSeconds?: number) {
    const model = new EngineModel({ profile: profileOf() });
    const budget = budgetSeconds === undefined ? {} : { budgetSeconds };
    model.start(graphs, [], { graphs: more, ...budget });
    for (let now = 0; model.phase !== "serving"; ) {
      const activity = model.begin(now);
      if (activity.type === "capture") now += activity.seconds;
      model.finish(now);
    }
    return { graphs: [...model.captured.keys()], skipped: model.skipped };
  }
  const TOPS = ["PIECEWISE:4", "FULL:4"];
  const MORE = ["FULL:1", "PIECEWISE:1"];

  test.for([
    ["0: what has none", 0, TOPS, MORE],
    // Both tops with their warm-up runs take 4 s; another is expected to take as long as its top.
    ["room for one", 6, [...TOPS, "FULL:1"], ["PIECEWISE:1"]],
    ["enough", 60, [...TOPS, ...MORE], []],
  ] as const)("%s", ([, budgetSeconds, graphs, skipped]) => {
    expect(captured(TOPS, MORE, budgetSeconds)).toEqual({ graphs, skipped });
  });

  test("the engine's own is a share of what stock would spend, far less than these", () => {
    expect(captured(TOPS, MORE)).toEqual({ graphs: TOPS, skipped: MORE });
  });

  test("what comes whatever it takes isn't skipped", () => {
    expect(captured([...TOPS, ...MORE], MORE, 0)).toEqual({
      graphs: [...TOPS, ...MORE],
      skipped: [],
    });
  });
});

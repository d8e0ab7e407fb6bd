/**
 * What was ordered for an engine holds over real restarts of the controller, of the engine, and of
 * both in turn, over real sockets.
 */

import { describe, expect, onTestFinished, test } from "vitest";
import { ordersFor } from "../../src/controller/orders.ts";
import { EngineDriver } from "../../src/engine/driver.ts";
import { type Controller, type ControllerOptions, createController } from "../../src/index.ts";
import { createPolicy } from "../../src/schedule/modes/modes.ts";
import { LiveEngine } from "../../src/sim/live/live.ts";
import type { ToEngine } from "../../src/wire/protocol.ts";
import { Session } from "../../src/wire/session.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { CONFIGURATION, FakeEngine, plan, RANK } from "../helpers/fake-engine.ts";
import { set, tinyProfile } from "../sim/helpers.ts";

const HEARTBEAT_MS = 20;

async function controllerAt(endpoint: string, options: ControllerOptions): Promise<Controller> {
  const controller = createController({
    plan: false,
    memory: { gpu: false },
    policy: "simple",
    heartbeatMs: HEARTBEAT_MS,
    endpoint,
    ...options,
  });
  onTestFinished(() => controller.close());
  await controller.start();
  return controller;
}

/** 14 simulated seconds to ready, each later capture takes 2 or 3, and memory is no matter. */
const PROFILE = tinyProfile((document) => {
  set(document, "memory.totalBytes", 150e9);
  set(document, "memory.freeBytes", 140e9);
});

function engineAt(endpoint: string): LiveEngine {
  const own = { profile: PROFILE, endpoint, engine: "one", speed: 400 };
  // However late a controller's answer is: an engine that starts without it knows of no limit.
  const engine = new LiveEngine({ ...own, handshakeMs: 60_000 });
  onTestFinished(() => engine.close());
  engine.start();
  return engine;
}

function one(controller: Controller) {
  return controller.engines().find(({ engine }) => engine === "one");
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2));
}

/** As many heartbeats as a controller that wants something needs to ask for it. */
async function someHeartbeats(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 10 * HEARTBEAT_MS));
}

const SERVING = { engine: "one", phase: "serving" } as const;

/** Each order, how it is given, and what shows that it holds while there is something to capture. */
const ORDERS: Record<
  string,
  {
    readonly options: ControllerOptions;
    readonly give: (controller: Controller) => void;
    readonly holds: (controller: Controller, engine: LiveEngine) => void;
  }
> = {
  "a mode": {
    options: {},
    give: (controller) => controller.setMode("one", "lazy"),
    holds(controller, engine) {
      expect(one(controller)).toMatchObject({ mode: "lazy", settled: false });
      expect(engine.mode).toBe("lazy");
      expect(engine.model.captured.size).toBe(2);
    },
  },
  "a freeze": {
    options: {},
    give: (controller) => controller.freeze("one", "for the benchmark"),
    holds(controller, engine) {
      expect(one(controller)).toMatchObject({ mode: "idle", frozen: true });
      expect(engine.model.captured.size).toBe(2);
    },
  },
  "a mode and a freeze": {
    options: {},
    give(controller) {
      controller.setMode("one", "lazy");
      controller.freeze("one");
    },
    holds(controller, engine) {
      expect(one(controller)).toMatchObject({ mode: "lazy", frozen: true });
      expect(engine.model.captured.size).toBe(2);
    },
  },
  "graphs left out": {
    options: { exclude: ["1"] },
    give: () => undefined,
    holds(controller, engine) {
      const out = one(controller)?.graphs.filter(({ reason }) => reason === "excluded by the user");
      expect(out?.map(({ id }) => id).sort()).toEqual(["FULL:1", "PIECEWISE:1"]);
      expect([...engine.model.captured.keys()].sort()).toEqual(["FULL:4", "PIECEWISE:4"]);
    },
  },
  "so many graphs at most": {
    options: { graphsMax: 2 },
    give: () => undefined,
    holds: (_controller, engine) => expect(engine.model.captured.size).toBe(2),
  },
  "pinned graphs": {
    options: { pin: ["FULL:1"], graphsMax: 3, mode: "lazy" },
    give: () => undefined,
    holds(_controller, engine) {
      const held = [...engine.model.captured.keys()].sort();
      expect(held).toEqual(["FULL:1", "FULL:4", "PIECEWISE:4"]);
    },
  },
  "a time for captures that is over": {
    options: { settleWithinSeconds: 0 },
    give: () => undefined,
    holds(controller, engine) {
      expect(one(controller)).toMatchObject({ frozen: true, settled: true });
      expect(engine.model.captured.size).toBe(2);
    },
  },
};

/** A controller and an engine that joined it, ordered before there is anything to capture. */
async function ordered(
  options: ControllerOptions,
  give: (controller: Controller) => void = () => undefined,
): Promise<{ first: Controller; engine: LiveEngine }> {
  const first = await controllerAt("tcp://127.0.0.1:0", options);
  const engine = engineAt(first.endpoint);
  await first.waitForEngine({ engine: "one" });
  give(first);
  await first.waitForEngine(SERVING);
  return { first, engine };
}

/** The controller that takes its place, once the engine serves with it. */
async function replaced(first: Controller, options: ControllerOptions): Promise<Controller> {
  const { endpoint } = first;
  await first.close();
  const second = await controllerAt(endpoint, options);
  await second.waitForEngine(SERVING);
  return second;
}

describe.for(Object.entries(ORDERS))("%s", ([name, { options, give, holds }]) => {
  const more = name === "pinned graphs" ? ({ mode: "lazy" } as const) : {};

  test("holds when the controller is replaced by one that names no option", async () => {
    const { first, engine } = await ordered(options, give);
    await someHeartbeats();
    holds(first, engine);
    const second = await replaced(first, more);
    await someHeartbeats();
    holds(second, engine);
  });

  test("holds when the engine starts anew, and then the controller", async () => {
    const { first, engine } = await ordered(options, give);
    await engine.close();
    await until(() => one(first)?.connected === false);
    const again = engineAt(first.endpoint);
    await first.waitForEngine(SERVING);
    await someHeartbeats();
    holds(first, again);
    const second = await replaced(first, more);
    await someHeartbeats();
    holds(second, again);
  });
});

test("the time for captures counts from the engine's ready, whoever keeps it", () => {
  const clock = new FakeClock();
  const sent: ToEngine[] = [];
  const fake = new FakeEngine({ graphs: plan(1, 4) });
  const session = new Session(fake.hello, {
    clock,
    send: (message) => sent.push(message) > 0,
    heartbeatMs: 600_000,
    captureTimeoutMs: 60_000,
    incarnation: 1,
    nextCommand: () => 1,
    onLost: () => undefined,
  });
  const driver = new EngineDriver(fake.hello, "lazy", session, {
    clock,
    policy: createPolicy,
    settleWithinSeconds: 60,
    onChange: () => undefined,
  });
  driver.join();
  const inventory = {
    ...CONFIGURATION,
    type: "inventory",
    phase: "serving",
    graphs: fake.graphs,
    captured: [],
    ranks: [RANK],
    epoch: 1,
  } as const;
  driver.receive({ ...inventory, settlingSeconds: 50 });
  clock.advance(9.9);
  expect(sent.filter(({ type }) => type === "freeze")).toEqual([]);
  // It is not told anew by every inventory.
  driver.receive({ ...inventory, settlingSeconds: 5 });
  clock.advance(0.2);
  const reason = "settleWithinSeconds (60) is over";
  expect(sent.filter(({ type }) => type === "freeze")).toContainEqual({ type: "freeze", reason });
  // Another process has its own time, so that is no order.
  expect(driver.record.orders).toEqual({});
});

test("an order right before the controller's end is known to the next", {
  repeats: 4,
}, async () => {
  const { first } = await ordered({});
  first.setMode("one", "lazy");
  first.freeze("one", "for the benchmark");
  const second = await replaced(first, {});
  expect(one(second)).toMatchObject({ mode: "lazy", frozen: true });
});

test("a mode that was set ends a freeze for the next controller too", async () => {
  const { first, engine } = await ordered({}, (controller) => controller.freeze("one"));
  first.setMode("one", "lazy");
  await someHeartbeats();
  const second = await replaced(first, {});
  expect(one(second)).toMatchObject({ mode: "lazy", frozen: false, settled: false });
  expect(engine.model.captured.size).toBe(2);
  second.setMode("one", "idle");
  await second.waitForEngine({ engine: "one", settled: true });
  expect(engine.model.captured.size).toBe(4);
});

test.for([
  ["is not asked again", 3, 3],
  ["is asked again by other rules", 4, 4],
] as const)("an engine that had nothing left to capture %s", async ([, graphsMax, captured]) => {
  const { first, engine } = await ordered({ graphsMax: 3 });
  await first.waitForEngine({ engine: "one", settled: true });
  const second = await replaced(first, { graphsMax });
  await second.waitForEngine({ engine: "one", settled: true });
  await someHeartbeats();
  expect(engine.model.captured.size).toBe(captured);
  expect(one(second)?.graphs.filter(({ status }) => status === "refused")).toEqual([]);
});

describe("what holds for an engine that joins", () => {
  const options = { mode: "idle", rules: {} } as const;

  test.for([
    ["nothing", undefined, undefined, {}],
    ["what it was told", undefined, { mode: "lazy", frozen: "x" }, { mode: "lazy", frozen: "x" }],
    [
      "this controller's own word before the engine's",
      { mode: "eager" },
      { mode: "lazy", frozen: "missed the mode" },
      { mode: "eager" },
    ],
    ["rules of the controller before", undefined, { pin: ["1"] }, { pin: ["1"] }],
  ] as const)("is %s", ([, known, told, expected]) => {
    expect(ordersFor(options, known, told)).toEqual(expected);
  });

  test("is what its controller's options name, an empty list included", () => {
    const named = { mode: "idle", settleWithinSeconds: 60, rules: { exclude: [], graphsMax: 9 } };
    const told = { settleWithinSeconds: 5, pin: ["1"], exclude: ["2"], graphsMax: 3 };
    expect(ordersFor(named as never, undefined, told)).toEqual({
      settleWithinSeconds: 60,
      pin: ["1"],
      exclude: [],
      graphsMax: 9,
    });
  });
});

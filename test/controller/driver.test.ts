import { describe, expect, test } from "vitest";
import { LazygraphError } from "../../src/base/errors.ts";
import { EngineDriver } from "../../src/engine/driver.ts";
import { onEvent } from "../../src/engine/events.ts";
import { snapshotOf } from "../../src/engine/snapshot.ts";
import { EnginePlans } from "../../src/plan/engine-plan.ts";
import type { ExplainingPolicy } from "../../src/schedule/choice.ts";
import { createPolicy } from "../../src/schedule/modes/modes.ts";
import type { Policy } from "../../src/schedule/policy.ts";
import { encode } from "../../src/wire/codec.ts";
import type { CaptureResult, Inventory, Mode, ToEngine } from "../../src/wire/protocol.ts";
import { Session } from "../../src/wire/session.ts";
import { EventLog } from "../helpers/events.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { CONFIGURATION, FakeEngine, plan, RANK } from "../helpers/fake-engine.ts";
import { noteSent, pinLogs } from "../helpers/pinned-log.ts";

pinLogs("controller");

interface RigOptions {
  readonly mode?: Mode;
  readonly settleWithinSeconds?: number;
  readonly policy?: Policy;
  readonly plans?: EnginePlans;
}

/** One driver without sockets: time and messages move only when told to. */
class Rig {
  readonly clock = new FakeClock();
  readonly sent: ToEngine[] = [];
  readonly hello = new FakeEngine().hello;
  readonly driver: EngineDriver;
  session: Session;
  #commands = 0;

  constructor({ mode = "idle", settleWithinSeconds, policy, plans }: RigOptions = {}) {
    this.session = this.#connect();
    this.driver = new EngineDriver(this.hello, mode, this.session, {
      clock: this.clock,
      policy: policy === undefined ? createPolicy : () => policy,
      settleWithinSeconds,
      ...(plans === undefined ? {} : { plans }),
      onChange: () => undefined,
    });
    this.driver.join();
  }

  #connect(): Session {
    return new Session(this.hello, {
      clock: this.clock,
      // What can't be written never reaches the engine, as in the controller.
      send: (message) => {
        this.sent.push(message);
        noteSent(message);
        return encode(message).byteLength > 0;
      },
      heartbeatMs: 600_000,
      captureTimeoutMs: 60_000,
      incarnation: 1,
      nextCommand: () => {
        this.#commands += 1;
        return this.#commands;
      },
      onLost: (error) => this.driver.detach(error),
    });
  }

  lose(): void {
    this.session.lose(new LazygraphError("ERR_LAZYGRAPH_ENGINE_LOST", "Gone."));
  }

  return(): void {
    this.session = this.#connect();
    this.driver.attach(this.hello, this.session);
  }

  inventory(more: Partial<Inventory> = {}): void {
    this.driver.receive({
      type: "inventory",
      phase: "serving",
      graphs: plan(1, 2, 4, 8),
      captured: ["PIECEWISE:8", "FULL:8"].map((graph) => ({ graph, ms: 1, bytes: 1 })),
      ranks: [RANK],
      ...CONFIGURATION,
      epoch: this.driver.record.epoch,
      ...more,
    });
  }

  ready(): void {
    this.driver.receive({
      type: "ready",
      captureSeconds: 1,
      captured: ["PIECEWISE:8", "FULL:8"].map((graph) => ({ graph, ms: 1, bytes: 1 })),
      ranks: [RANK],
      epoch: this.driver.record.epoch,
    });
  }

  /** Resolves with the nth capture command: the queue hands it over in a later microtask. */
  async capture(nth = 1): Promise<Extract<ToEngine, { type: "capture" }>> {
    for (let turn = 0; turn < 100; turn += 1) {
      const command = this.ofType("capture")[nth - 1];
      if (command !== undefined) return command;
      await Promise.resolve();
    }
    throw new Error(`no capture ${nth}`);
  }

  answer(command: number, graph: string, outcome: CaptureResult["outcome"] = "captured"): void {
    const cost = { stallMs: 1, ms: 1, bytes: 1, ranks: [RANK], epoch: this.driver.record.epoch };
    this.driver.receive({ type: "result", command, graph, outcome, ...cost });
  }

  ofType<T extends ToEngine["type"]>(type: T): Extract<ToEngine, { type: T }>[] {
    return this.sent.filter((message) => message.type === type) as Extract<ToEngine, { type: T }>[];
  }
}

describe("settleWithinSeconds", () => {
  test("runs from ready: resyncs and reconnects don't put it off", () => {
    const rig = new Rig({ mode: "lazy", settleWithinSeconds: 60 });
    rig.inventory({ phase: "capturing", captured: [] });
    rig.ready();
    rig.clock.advance(40);
    rig.inventory();
    rig.lose();
    rig.return();
    rig.inventory();
    rig.clock.advance(20);
    expect(rig.ofType("freeze")).toMatchObject([{ reason: expect.stringMatching(/is over$/) }]);
  });

  test("a new mode gives it anew", async () => {
    const rig = new Rig({ mode: "idle", settleWithinSeconds: 60 });
    rig.inventory();
    const { command, graph } = await rig.capture();
    rig.clock.advance(40);
    rig.driver.setMode("lazy");
    rig.answer(command, graph);
    rig.clock.advance(40);
    expect(rig.ofType("freeze")).toEqual([]);
    rig.clock.advance(20);
    expect(rig.ofType("freeze")).toHaveLength(1);
    rig.driver.setMode("idle");
    expect(rig.driver.record.state?.frozen).toBe(false);
    rig.clock.advance(60);
    expect(rig.ofType("freeze")).toHaveLength(2);
  });

  test("of zero lets nothing be captured after ready", async () => {
    const rig = new Rig({ settleWithinSeconds: 0 });
    rig.inventory({ phase: "capturing", captured: [] });
    rig.ready();
    rig.clock.advance(1);
    await expect(rig.capture()).rejects.toThrow("no capture");
    expect(rig.driver.record.state).toMatchObject({ frozen: true, settled: true });
  });

  test("that ends in mid-capture lets that capture end, and no other begin", async () => {
    const rig = new Rig({ settleWithinSeconds: 60 });
    rig.inventory();
    const first = await rig.capture();
    rig.clock.advance(59.9);
    expect(rig.ofType("freeze")).toHaveLength(0);
    rig.clock.advance(0.05);
    rig.driver.freeze("settle");
    expect(rig.driver.record.state).toMatchObject({ frozen: true, settled: false });
    rig.answer(first.command, first.graph);
    expect(rig.driver.record.state).toMatchObject({ settled: true, capturing: undefined });
    await expect(rig.capture(2)).rejects.toThrow("no capture");
  });
});

describe("the mode it has already", () => {
  test("reaches an engine that an earlier controller froze, and asks it again", async () => {
    const rig = new Rig();
    rig.inventory({ graphs: plan(1, 8) });
    for (let nth = 1; nth <= 2; nth += 1) {
      const { command, graph } = await rig.capture(nth);
      rig.answer(command, graph, "refused");
    }
    expect(rig.driver.record.state?.settled).toBe(true);
    rig.driver.setMode("idle");
    expect(rig.ofType("mode")).toEqual([
      { type: "mode", mode: "idle", orders: { serial: 1, mode: "idle" }, settlingSeconds: 0 },
    ]);
    await rig.capture(3);
  });

  test("starts nothing over", async () => {
    const rig = new Rig({ mode: "lazy", settleWithinSeconds: 60 });
    rig.inventory();
    rig.clock.advance(40);
    rig.sent.length = 0;
    rig.driver.setMode("lazy");
    // It is told as an order, and that the time for captures runs on.
    const orders = { serial: 1, mode: "lazy" };
    expect(rig.sent).toEqual([{ type: "mode", mode: "lazy", orders, settlingSeconds: 40 }]);
    rig.clock.advance(20);
    expect(rig.ofType("freeze")).toHaveLength(1);
  });

  test("leaves a settled engine settled", () => {
    using settled = new EventLog("lazygraph:engine:settled");
    const rig = new Rig({ mode: "idle" });
    rig.inventory({ captured: plan(1, 2, 4, 8).map(({ id }) => ({ graph: id, ms: 1, bytes: 1 })) });
    expect(settled.all).toHaveLength(1);
    rig.driver.setMode("idle");
    expect(settled.all).toHaveLength(1);
    rig.driver.setMode("lazy");
    expect(settled.all).toHaveLength(2);
  });
});

test("a mode that a listener sets while an inventory is taken in is the last word", () => {
  const rig = new Rig();
  rig.inventory();
  rig.driver.setMode("lazy");
  const stop = onEvent("lazygraph:problem", () => rig.driver.setMode("eager"));
  rig.sent.length = 0;
  rig.inventory({ captured: [{ graph: "FULL:999", ms: 1, bytes: 1 }] });
  stop();
  expect(rig.ofType("mode").length).toBeGreaterThan(0);
  expect(rig.ofType("mode").at(-1)).toMatchObject({ type: "mode", mode: "eager" });
});

test("readyToSettledSeconds is of the first time, whatever mode comes later", () => {
  const rig = new Rig({ mode: "lazy" });
  const captured = plan(1, 2, 4, 8).map(({ id }) => ({ graph: id, ms: 1, bytes: 1 }));
  rig.inventory({ phase: "capturing", captured: [] });
  rig.ready();
  rig.clock.advance(3);
  rig.inventory({ captured });
  expect(rig.driver.record.readyToSettledSeconds).toBe(3);
  rig.clock.advance(1000);
  rig.driver.setMode("idle");
  expect(rig.driver.record).toMatchObject({ readyToSettledSeconds: 3, state: { settled: true } });
});

describe("freeze", () => {
  test("before the engine has told its plan holds once it has", async () => {
    const rig = new Rig();
    rig.driver.freeze("not now");
    rig.inventory();
    expect(rig.ofType("freeze")).toMatchObject([
      { reason: "not now", orders: { frozen: "not now" } },
      { reason: "not now" },
    ]);
    await expect(rig.capture()).rejects.toThrow("no capture");
    expect(rig.driver.record.state).toMatchObject({ frozen: true, settled: true });
    rig.driver.setMode("idle");
    await rig.capture();
  });

  test("holds when the plan changes", async () => {
    const rig = new Rig({ mode: "lazy" });
    rig.inventory();
    rig.driver.freeze("by hand");
    rig.driver.receive({ type: "edge", state: "idle", running: 0, waiting: 0 });
    rig.inventory({ graphs: plan(1, 8) });
    expect(rig.driver.record.state).toMatchObject({ frozen: true, settled: true });
  });

  test.for([
    ["longer than a sentence may be", "x".repeat(5000)],
    ["that is no Unicode", "lone \ud800 surrogate"],
  ] as const)("with a reason %s reaches the engine", ([, reason]) => {
    const rig = new Rig();
    rig.inventory();
    rig.driver.freeze(reason);
    const [message] = rig.ofType("freeze");
    expect(message?.reason.length).toBeLessThanOrEqual(2048);
    expect(message?.reason.slice(0, 5)).toBe(reason.slice(0, 5));
    expect(rig.driver.record.state?.frozen).toBe(true);
  });
});

test("a mode that lifted a freeze while the engine was away is told when it is back", () => {
  const rig = new Rig({ mode: "lazy" });
  rig.inventory();
  rig.driver.freeze("by hand");
  rig.lose();
  rig.driver.setMode("lazy");
  rig.sent.length = 0;
  rig.return();
  rig.inventory();
  // The welcome names the same mode as before, which ends no freeze on the engine's side.
  expect(rig.ofType("mode")).toMatchObject([{ type: "mode", mode: "lazy", settlingSeconds: 0 }]);
  expect(rig.ofType("freeze")).toEqual([]);
});

test("a listener that changes the mode ends what the old mode had decided", async () => {
  let changed = false;
  const stop = onEvent("lazygraph:decision", ({ decision }) => {
    if (decision !== "dispatch" || changed) return;
    changed = true;
    rig.driver.setMode("idle");
  });
  const rig = new Rig({ mode: "eager" });
  try {
    rig.inventory();
    const first = await rig.capture();
    expect(rig.driver.record.state?.settled).toBe(false);
    rig.answer(first.command, first.graph);
    await rig.capture(2);
  } finally {
    stop();
  }
});

test("an engine is sent no table before it is ready", () => {
  const rig = new Rig();
  rig.inventory({ phase: "capturing", captured: [] });
  // It would keep an empty one, and serve ungraphed, should the controller end right here.
  expect(rig.sent.map((message) => message.type)).toEqual(["welcome", "start"]);
  rig.ready();
  expect(rig.ofType("dispatch")).toHaveLength(1);
});

test("a start that may be lost with its connection is sent once more with the next, until ready", () => {
  const rig = new Rig();
  const told = (): void => rig.inventory({ phase: "capturing", captured: [] });
  told();
  told();
  expect(rig.ofType("start")).toHaveLength(1);
  for (const isNoticed of [true, false]) {
    if (isNoticed) rig.lose();
    rig.return();
    told();
    told();
  }
  const [first, ...again] = rig.ofType("start");
  expect(again).toEqual([first, first]);
  rig.ready();
  rig.lose();
  rig.return();
  rig.inventory();
  expect(rig.ofType("start")).toHaveLength(3);
});

test("an inventory older than ready doesn't take ready back", async () => {
  const rig = new Rig();
  rig.inventory({ phase: "capturing", captured: [] });
  rig.ready();
  rig.inventory({ phase: "capturing" });
  expect(rig.driver.record).toMatchObject({ phase: "serving", state: { ready: true } });
  const first = await rig.capture();
  rig.answer(first.command, first.graph);
  await rig.capture(2);
});

test("an answer after the deadline tells of its graph, and ends no other capture", async () => {
  const rig = new Rig();
  rig.inventory();
  const late = await rig.capture();
  rig.clock.advance(60);
  expect(rig.driver.record.connected).toBe(false);
  rig.return();
  rig.inventory();
  const second = await rig.capture(2);
  expect(second.graph).not.toBe(late.graph);
  const status = (): unknown => rig.driver.record.state?.graphs.get(late.graph)?.status;
  expect(status()).toBe("failed");
  rig.answer(late.command, late.graph);
  expect(status()).toBe("captured");
  expect(rig.driver.record.state?.capturing).toBe(second.graph);
  await expect(rig.capture(3)).rejects.toThrow("no capture");
  rig.answer(second.command, second.graph);
  await rig.capture(3);
});

test("a policy that waits for no number of seconds is reported, and asked no more often", () => {
  let asked = 0;
  const problems: string[] = [];
  const stop = onEvent("lazygraph:problem", ({ code }) => problems.push(code));
  const policy: Policy = {
    name: "restless",
    decide: () => {
      asked += 1;
      return [{ type: "wait", seconds: Number.NaN, reason: "no reason" }];
    },
  };
  const rig = new Rig({ policy });
  rig.inventory();
  rig.clock.advance(10);
  stop();
  expect(asked).toBe(1);
  expect(problems).toEqual(["ERR_LAZYGRAPH_POLICY"]);
});

test("thousands of reconnects leave no timer behind", async () => {
  const rig = new Rig({ settleWithinSeconds: 3600 });
  rig.inventory();
  await rig.capture();
  const before = rig.clock.pending;
  for (let round = 0; round < 2000; round += 1) {
    rig.lose();
    rig.return();
    rig.inventory();
    await rig.capture(round + 2);
  }
  expect(rig.clock.pending).toBe(before);
  rig.lose();
  rig.driver.close();
  expect(rig.clock.pending).toBe(0);
});

test("a plan that can't be looked up costs an engine nothing but the plan", async () => {
  class BrokenDesk extends EnginePlans {
    override engine(): never {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_PROFILE",
        "Profile p: expected the file, got ENOENT.",
      );
    }
  }
  using problems = new EventLog("lazygraph:problem", "engine-0");
  const rig = new Rig({ plans: new BrokenDesk(undefined, "a test") });
  rig.inventory({ phase: "loading", captured: [] });
  expect(rig.sent.map(({ type }) => type)).toContain("start");
  expect(rig.driver.record.plan).toBeUndefined();
  expect(problems.all).toEqual([
    expect.objectContaining({
      code: "ERR_LAZYGRAPH_PROFILE",
      message: expect.stringMatching(/engine-0 learned, but it starts without: Profile p: /),
    }),
  ]);
});

test("a policy that throws when it is asked why leaves a snapshot that says so", () => {
  const policy: ExplainingPolicy = {
    ...createPolicy("lazy"),
    explain() {
      throw new Error("no idea");
    },
  };
  const rig = new Rig({ policy });
  rig.inventory();
  const reasons = snapshotOf(rig.driver.record).graphs.map(({ reason }) => reason);
  expect(reasons).toContain("the policy threw: no idea");
});

test.for([
  ["a mistake of its own", { type: "wait", seconds: Number.NaN }, "ERR_LAZYGRAPH_POLICY"],
  ["no graph to capture", { type: "capture", whenIdle: false }, "ERR_LAZYGRAPH_POLICY"],
  ["no decision", null, "ERR_LAZYGRAPH_POLICY"],
  ["what this side fails to carry out", { type: "dispatch", table: {} }, "ERR_LAZYGRAPH_INTERNAL"],
] as const)("a policy is blamed for its own faults alone: %s", ([, decision, code]) => {
  using problems = new EventLog("lazygraph:problem", "engine-0");
  const policy: Policy = {
    name: "odd",
    decide: (_, { type }) =>
      type === "idle" ? [(decision && { ...decision, reason: "why not" }) as never] : [],
  };
  const rig = new Rig({ policy });
  rig.inventory();
  rig.session.send = () => {
    throw new Error("no socket");
  };
  rig.driver.receive({ type: "edge", state: "idle", running: 0, waiting: 0 });
  expect(problems.all.map((problem) => problem.code)).toEqual([code]);
});

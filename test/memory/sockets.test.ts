/** Over real sockets, with engines that are processes of their own. */

import { describe, expect, onTestFinished, test, vi } from "vitest";
import { type Controller, createController } from "../../src/controller/controller.ts";
import type { ControllerOptions } from "../../src/controller/options.ts";
import type { EngineSnapshot } from "../../src/engine/snapshot.ts";
import { loadProfile } from "../../src/profile/load.ts";
import { type SimulatedEngine, startSimulatedEngine } from "../../src/sim/live/child.ts";
import type {
  SimulatedEngineEvent,
  SimulatedEngineOptions,
} from "../../src/sim/live/child-options.ts";
import { FAKE_NVML, LiveValue, nvmlScript, scratch } from "../gpu-memory/fake.ts";
import { EventLog } from "../helpers/events.ts";
import { joinEngine } from "../helpers/joined.ts";
import { claimOf, MIB } from "./rig.ts";

const TRACE = "azure-llm-2023-conversation";
/** What serving needs on the simulated GPU: its peak and the whole allowance. */
const CLAIM = claimOf(loadProfile().memory.activationPeakBytes);
/** No shorter than the tests' own limits. */
const WAIT = { timeout: 120_000, interval: 20 };
const TIGHT = CLAIM + 400 * MIB;
/** Loads for two seconds, in which the welcome comes that says what to reserve: not later. */
const RESERVING = { speed: 4 };

async function controllerOf(options: ControllerOptions = {}): Promise<Controller> {
  const controller = createController({ heartbeatMs: 100, plan: false, ...options });
  onTestFinished(() => controller.close());
  await controller.start();
  return controller;
}

async function engineOf(
  controller: Controller,
  options: SimulatedEngineOptions,
): Promise<SimulatedEngine & { events: SimulatedEngineEvent[] }> {
  const events: SimulatedEngineEvent[] = [];
  const engine = await startSimulatedEngine({
    endpoint: controller.endpoint,
    // Without the controller's answer, however late, an engine captures what it likes.
    handshakeMs: 60_000,
    speed: 20,
    onEvent: (event) => void events.push(event),
    ...options,
  });
  onTestFinished(async () => {
    await engine.close();
  });
  return Object.assign(engine, { events });
}

/** The engine's picture once it is as asked for; vitest's own limit ends a wait without end. */
function picture(
  controller: Controller,
  engine: string,
  matches: (snapshot: EngineSnapshot) => boolean,
): Promise<EngineSnapshot> {
  const look = (): EngineSnapshot => {
    const snapshot = controller.engines().find((one) => one.engine === engine);
    if (snapshot === undefined || !matches(snapshot)) throw new Error("not yet");
    return snapshot;
  };
  return vi.waitFor(look, WAIT);
}

/** Nothing more is asked for: every graph is captured or waits for memory. */
const done = ({ graphs, capturing }: EngineSnapshot): boolean =>
  capturing === undefined && graphs.length > 0 && graphs.every((g) => g.status !== "planned");

describe("a simulated engine on a full GPU", () => {
  test("keeps what fits, gives up tiers for a stranger, and has them back when it goes", async () => {
    using refused = new EventLog("lazygraph:memory:refused", "tight");
    using dropped = new EventLog("lazygraph:memory:dropped", "tight");
    using room = new EventLog("lazygraph:memory:room", "tight");
    const controller = await controllerOf();
    const engine = await engineOf(controller, {
      engine: "tight",
      freeBytes: TIGHT,
      trace: { file: TRACE, speed: 1, seconds: 60 },
    });
    const full = await picture(controller, "tight", (snapshot) => {
      return snapshot.phase === "serving" && done(snapshot) && snapshot.graphsCaptured > 20;
    });
    expect((await refused.first()).line).toMatch(/not captured for want of memory: .* To have/);
    expect(full.graphsWaiting).toBe(102 - full.graphsCaptured);
    expect(full.headroomBytes).toBeGreaterThanOrEqual(0);

    await engine.setStrangerBytes(TIGHT);
    const { graphs, freedBytes } = await dropped.first();
    expect(graphs.length).toBeGreaterThan(0);
    expect(freedBytes).toBeGreaterThan(0);
    expect(controller.engines()[0]).toMatchObject({ connected: true, phase: "serving" });

    await engine.setStrangerBytes(0);
    await room.first();
    const back = await picture(controller, "tight", (snapshot) => {
      return done(snapshot) && snapshot.graphsCaptured >= full.graphsCaptured;
    });
    expect(back.connected).toBe(true);
    expect(engine.events.filter(({ type }) => type === "outOfMemory")).toEqual([]);
  });

  test("serves the load that stock dies of in the same memory", async () => {
    const { captures, memory } = loadProfile();
    const graphs = captures.costs.reduce((sum, { bytes }) => sum + bytes, 0);
    // Too little for all graphs and a full step, enough for a full step.
    const freeBytes = memory.activationPeakBytes + Math.round(graphs / 2);
    const load = { freeBytes, trace: { file: TRACE, speed: 60, seconds: 4 } };
    vi.stubEnv("LAZYGRAPH_DISABLE", "1");
    const told: SimulatedEngineEvent[] = [];
    const onEvent = (event: SimulatedEngineEvent): void => void told.push(event);
    const stock = await startSimulatedEngine({ engine: "stock", speed: 20, onEvent, ...load });
    vi.unstubAllEnvs();
    expect((await stock.exited).exitCode).not.toBe(0);
    expect(told.some(({ type }) => type === "outOfMemory")).toBe(true);

    const controller = await controllerOf();
    const engine = await engineOf(controller, { engine: "ours", ...load });
    const isDrained = (): boolean => engine.events.some(({ type }) => type === "drained");
    await vi.waitFor(() => expect(isDrained()).toBe(true), WAIT);
    expect(engine.events.filter(({ type }) => type === "outOfMemory")).toEqual([]);
    expect(controller.engines()[0]).toMatchObject({ connected: true, phase: "serving" });
  });

  test("with plenty of memory everything is captured in one pool", async () => {
    using refused = new EventLog("lazygraph:memory:refused", "plenty");
    using memory = new EventLog("lazygraph:engine:memory", "plenty");
    const controller = await controllerOf();
    await engineOf(controller, { engine: "plenty", freeBytes: 12_000 * MIB });
    const settled = await picture(controller, "plenty", (snapshot) => snapshot.settled);
    expect(settled.graphsCaptured).toBe(102);
    expect((await memory.first()).verdict).toBe("fits");
    expect(refused.all).toEqual([]);
  });

  test("eager: what fits is captured before ready, and the engine serves", async () => {
    const controller = await controllerOf({ mode: "eager" });
    const engine = await engineOf(controller, { engine: "eager", freeBytes: TIGHT });
    const ready = await picture(controller, "eager", (snapshot) => snapshot.phase === "serving");
    expect(ready.graphsCaptured).toBeGreaterThan(20);
    expect(ready.graphsWaiting).toBe(102 - ready.graphsCaptured);
    expect(engine.events.filter(({ type }) => type === "outOfMemory")).toEqual([]);
  });

  test("what is reserved is told, with the tokens of KV cache that it costs", async () => {
    const controller = await controllerOf({ memory: { reserve: "plan" } });
    await engineOf(controller, { engine: "reserved", freeBytes: CLAIM + 200 * MIB, ...RESERVING });
    const settled = await picture(controller, "reserved", (snapshot) => snapshot.settled);
    expect(settled.graphsCaptured).toBe(102);
    expect(settled.reserve?.mode).toBe("plan");
    expect(settled.reserve?.kvTokens).toBeGreaterThan(0);
  });

  test("who knows how much graphs take has that reserved, and not the forecast", async () => {
    const reserveBytes = 300 * MIB;
    const controller = await controllerOf({ memory: { reserve: "plan", reserveBytes } });
    await engineOf(controller, { engine: "known", freeBytes: CLAIM + 200 * MIB, ...RESERVING });
    const serving = await picture(controller, "known", ({ phase }) => phase === "serving");
    expect(serving.reserve).toMatchObject({ mode: "plan", bytes: reserveBytes });
  });

  test("what is reserved goes to graphs where serving itself has less than it claims", async () => {
    const controller = await controllerOf({ memory: { reserve: "plan" } });
    const freeBytes = CLAIM - 100 * MIB;
    await engineOf(controller, { engine: "scarce", freeBytes, ...RESERVING });
    const filled = await picture(controller, "scarce", (snapshot) => {
      return snapshot.phase === "serving" && done(snapshot);
    });
    // The simulated engine keeps what graphs take and no bar, so that a last one or two may wait.
    expect(filled.graphsCaptured).toBeGreaterThan(95);
    expect(filled.graphs.find(({ id }) => id === "FULL:512")?.status).toBe("captured");
    const taken = filled.graphs.reduce((sum, { bytes = 0 }) => sum + bytes, 0);
    expect(taken).toBeLessThanOrEqual(filled.reserve?.bytes ?? 0);
  });
});

describe("two engines on one GPU", () => {
  test("each leaves what the other's serving needs", async () => {
    const controller = await controllerOf();
    // Room enough for one of them with all its graphs.
    const shared = { freeBytes: CLAIM + 2600 * MIB, gpuUuid: "GPU-shared", sizes: [1, 2, 4] };
    await engineOf(controller, { engine: "first", ...shared });
    const alone = await picture(controller, "first", (snapshot) => snapshot.settled);
    const before = alone.headroomBytes ?? 0;
    await engineOf(controller, { engine: "second", ...shared });
    await picture(controller, "second", (snapshot) => snapshot.phase === "serving");
    const after = await picture(controller, "first", (snapshot) => {
      return (snapshot.headroomBytes ?? 0) <= before - CLAIM;
    });
    expect(after.graphsCaptured).toBe(6);
  });
});

describe("with this host's driver", () => {
  /** A stand-in driver for controllers that are made from here on. */
  function driver(freeBytes: number): LiveValue {
    const folder = scratch();
    const free = new LiveValue(folder, freeBytes);
    const script = [`device GPU-1 name=Fake total=150000000000 free=@${free.path}`];
    vi.stubEnv("LAZYGRAPH_NVML_PATH", FAKE_NVML);
    vi.stubEnv("LAZYGRAPH_FAKE_NVML", nvmlScript(script, folder));
    onTestFinished(() => void vi.unstubAllEnvs());
    return free;
  }

  test("its figure stops captures that the engine's would allow, and its watch resumes them", async () => {
    using refused = new EventLog("lazygraph:memory:refused", "engine-0");
    const free = driver(100 * MIB);
    const controller = await controllerOf({ mode: "lazy", policy: "simple" });
    await using engine = await joinEngine(controller);
    // The engine itself says that 10 GB are free.
    await picture(controller, "engine-0", ({ headroomBytes = 1e12 }) => headroomBytes < 0);
    engine.steps(4, 10);
    expect(await refused.first()).toMatchObject({ repeated: false });
    expect(engine.ofType("capture")).toEqual([]);
    free.set(9_000_000_000);
    const capture = await engine.got("capture");
    expect(capture.graph).toBe("FULL:4");
    expect(capture.needBytes).toBeGreaterThan(0);
  });

  test("turned off, it is not asked", async () => {
    driver(100 * MIB);
    const controller = await controllerOf({
      mode: "lazy",
      policy: "simple",
      memory: { gpu: false },
    });
    await using engine = await joinEngine(controller);
    await controller.waitForEngine({ phase: "serving" });
    engine.steps(4, 10);
    expect((await engine.got("capture")).graph).toBe("FULL:4");
  });

  test("a close in the middle of it ends at once, and leaves nothing behind", async () => {
    driver(100 * MIB);
    const controller = await controllerOf();
    await using _engine = await joinEngine(controller);
    await controller.waitForEngine();
    await controller.close();
    await controller.close();
  });
});

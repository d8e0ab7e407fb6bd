/** Who takes whose place among controllers, whatever their clocks say. */

import { expect, test, vi } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { startSimulatedEngine } from "../../src/testing.ts";
import { EventLog } from "../helpers/events.ts";
import { FakeEngine } from "../helpers/fake-engine.ts";
import { startController } from "../helpers/joined.ts";

const HOUR_MS = 3_600_000;
const YEAR_MS = 31_536_000_000;

test("a controller whose clock is an hour back has the engines of the one before", async () => {
  const first = await startController({ heartbeatMs: 20 });
  const { endpoint, incarnation } = first;
  const handshakeMs = 60_000;
  const engine = await startSimulatedEngine({ endpoint, engine: "e", speed: 100, handshakeMs });
  try {
    // It serves, so it was welcomed: else it knows of no controller before.
    await first.waitForEngine({ engine: "e", phase: "serving" });
    await first.close();
    vi.spyOn(Date, "now").mockReturnValue(Date.now() - HOUR_MS);
    // Another process would begin with its clock; this one remembers the last start.
    vi.resetModules();
    const fresh = await import("../../src/controller/controller.ts");
    await using second = fresh.createController({ endpoint, heartbeatMs: 20 });
    expect(second.incarnation).toBeLessThan(incarnation);
    await second.start();
    await second.waitForEngine({ engine: "e" });
    expect(second.incarnation).toBe(incarnation + 1);
  } finally {
    vi.restoreAllMocks();
    await engine.close();
  }
});

test("a controller that was replaced leaves the engine to the other one, and says so", async () => {
  await using controller = await startController({ heartbeatMs: 20 });
  const own = new FakeEngine({ name: "own" });
  let other: FakeEngine | undefined;
  using problems = new EventLog("lazygraph:problem", "other");
  try {
    await own.connect(controller.endpoint);
    const { incarnation } = await own.got("welcome");
    other = new FakeEngine({ name: "other", hello: { incarnation: incarnation + 5 } });
    const now = systemClock.now;
    vi.spyOn(systemClock, "now").mockImplementation(() => now() + 61);
    await other.connect(controller.endpoint);
    const { code, message } = await problems.first();
    expect(code).toBe("ERR_LAZYGRAPH_INCARNATION");
    expect(message).toContain(`${incarnation + 5}`);
    expect(controller.incarnation).toBe(incarnation);
  } finally {
    vi.restoreAllMocks();
    own.disconnect();
    other?.disconnect();
  }
});

test("who waits for an engine that served before its controller learns what it holds", async () => {
  await using controller = await startController();
  await using engine = new FakeEngine();
  engine.phase = "serving";
  engine.capture("FULL:8");
  const serving = controller.waitForEngine({ phase: "serving" });
  await engine.connect(controller.endpoint);
  expect(await serving).toMatchObject({ graphsCaptured: 1, graphsPlanned: 8 });
});

test("nobody's word lifts an incarnation by more than a year", async () => {
  await using controller = await startController({ heartbeatMs: 20 });
  const { incarnation } = controller;
  const engine = new FakeEngine({
    name: "liar",
    hello: { incarnation: incarnation + 2 * YEAR_MS },
  });
  using problems = new EventLog("lazygraph:problem", "liar");
  try {
    await engine.connect(controller.endpoint);
    expect((await problems.first()).code).toBe("ERR_LAZYGRAPH_INCARNATION");
    expect(controller.incarnation).toBe(incarnation);
  } finally {
    engine.disconnect();
  }
});

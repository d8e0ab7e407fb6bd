/** What a heartbeat says of its engine, against what the controller takes it for. */

import { expect, test } from "vitest";
import { EngineDriver } from "../../src/engine/driver.ts";
import { createPolicy } from "../../src/schedule/modes/modes.ts";
import type { Heartbeat, Inventory, ToEngine } from "../../src/wire/protocol.ts";
import { Session } from "../../src/wire/session.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { CONFIGURATION, FakeEngine, plan, RANK } from "../helpers/fake-engine.ts";

const HEARTBEAT_MS = 1000;

function rig() {
  const clock = new FakeClock();
  const sent: ToEngine[] = [];
  const fake = new FakeEngine({ graphs: plan(1, 4), hello: { phase: "serving" } });
  const session = new Session(fake.hello, {
    clock,
    send: (message) => sent.push(message) > 0,
    heartbeatMs: HEARTBEAT_MS,
    captureTimeoutMs: 60_000,
    incarnation: 1,
    nextCommand: () => 1,
    onLost: () => undefined,
  });
  const options = { clock, policy: createPolicy, settleWithinSeconds: undefined };
  const onChange = (): void => undefined;
  const driver = new EngineDriver(fake.hello, "idle", session, { ...options, onChange });
  driver.join();
  const inventory: Inventory = {
    ...CONFIGURATION,
    type: "inventory",
    phase: "serving",
    graphs: fake.graphs,
    captured: [],
    ranks: [RANK],
    epoch: 4,
  };
  const sound: Heartbeat = {
    type: "heartbeat",
    phase: "serving",
    mode: "idle",
    epoch: 4,
    captured: 0,
    state: "idle",
    orders: 0,
  };
  /** Heartbeats of this kind, and the types of what they bring about. */
  const beats = (more: Partial<Heartbeat>, count: number): string[] => {
    sent.length = 0;
    for (let beat = 0; beat < count; beat++) {
      clock.advance(HEARTBEAT_MS / 1000);
      session.heard();
      driver.receive({ ...sound, ...more });
    }
    return sent.map(({ type }) => type).filter((type) => type !== "heartbeat");
  };
  const tell = (more: Partial<Inventory> = {}): void => driver.receive({ ...inventory, ...more });
  return { driver, beats, tell, sent };
}

test.for([
  ["another epoch", { epoch: 5 }, ["resync"]],
  ["another number of graphs", { captured: 1 }, ["resync"]],
  ["an end of captures", { frozen: true }, ["resync"]],
  ["a sleep", { asleep: true }, ["resync"]],
  ["another mode", { mode: "lazy" }, ["mode", "resync"]],
  ["orders that it was not told", { orders: 7 }, ["mode", "resync"]],
] as const)("%s, twice in a row, is looked into", ([, more, wanted]) => {
  const { beats, tell } = rig();
  tell();
  expect(beats(more, 1)).toEqual([]);
  expect(beats({}, 1)).toEqual([]);
  expect(beats(more, 1)).toEqual([]);
  expect(beats(more, 1)).toEqual(wanted);
});

test("an engine that stays of another opinion is asked ever more rarely", () => {
  const { beats, tell } = rig();
  tell();
  for (const count of [2, 4, 8, 16, 32, 64, 64]) {
    expect(beats({ epoch: 9 }, count - 1)).toEqual([]);
    expect(beats({ epoch: 9 }, 1)).toEqual(["resync"]);
  }
  // Once they have agreed, the next doubt is as the first.
  beats({}, 1);
  expect(beats({ epoch: 9 }, 2)).toEqual(["resync"]);
});

test("an inventory that got lost is asked for", () => {
  expect(rig().beats({}, 2)).toEqual(["resync"]);
});

test("an edge that got lost is made up for", () => {
  const { beats, tell, driver } = rig();
  tell();
  driver.receive({ type: "edge", state: "busy", running: 1, waiting: 0 });
  beats({ state: "idle" }, 2);
  expect(driver.record.state?.idle).toBe(true);
});

test("an older engine says nothing, and is left alone", () => {
  const { beats, tell, driver } = rig();
  tell();
  driver.setMode("lazy");
  const silent = { phase: undefined, mode: undefined, epoch: undefined, state: undefined };
  const older = { ...silent, captured: undefined, orders: undefined } as unknown as Heartbeat;
  expect(beats(older, 10)).toEqual([]);
});

test("an inventory that was overtaken is not taken for the truth", () => {
  const { tell, driver, sent } = rig();
  tell({ epoch: 6, captured: [{ graph: "FULL:4", ms: 1, bytes: 1 }] });
  sent.length = 0;
  tell({ epoch: 5 });
  expect(driver.record.state?.graphs.get("FULL:4")?.status).toBe("captured");
  expect(sent).toEqual([{ type: "resync" }]);
});

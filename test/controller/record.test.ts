import { expect, test } from "vitest";
import { EngineRegistry } from "../../src/controller/registry.ts";
import type { EngineDriver } from "../../src/engine/driver.ts";
import { createEngineRecord, type EngineRecord } from "../../src/engine/record.ts";
import { applyInventory } from "../../src/engine/step/booking.ts";
import type { EngineState, GraphState } from "../../src/schedule/state.ts";
import { CONFIGURATION, FakeEngine, plan, RANK } from "../helpers/fake-engine.ts";

function recordOf(): EngineRecord {
  const { hello } = new FakeEngine();
  const record = createEngineRecord(hello, "idle");
  const held = { captured: [], ranks: [RANK], epoch: 0, ...CONFIGURATION };
  applyInventory(record, { type: "inventory", phase: "serving", graphs: plan(1, 8), ...held });
  return record;
}

/** Each would be an error that `npm run typecheck` misses if the field could be written. */
const WRITES: readonly [string, (record: EngineRecord) => void][] = [
  [
    "a field",
    (record) => {
      // @ts-expect-error: read-only but for booking.ts
      record.phase = "stopping";
    },
  ],
  [
    "what the step remembers",
    (record) => {
      // @ts-expect-error: read-only but for booking.ts
      record.course.dropping = true;
    },
  ],
  [
    "a count of problems",
    (record) => {
      // @ts-expect-error: read-only but for booking.ts
      record.problems.malformed += 1;
    },
  ],
  [
    "a decision",
    (record) => {
      // @ts-expect-error: read-only but for booking.ts
      record.decisions.add({ atUnixMs: 0, decision: "none", reason: "none" });
    },
  ],
  [
    "the capture under way",
    ({ state }) => {
      // @ts-expect-error: read-only but for booking.ts
      (state as EngineState).capturing = undefined;
    },
  ],
  [
    "a graph's status",
    ({ state }) => {
      // @ts-expect-error: read-only but for booking.ts
      (state?.graphs.get("FULL:8") as GraphState).status = "captured";
    },
  ],
];

test.for(WRITES)("the types of a record let nobody write %s", ([, write]) => {
  // They are types alone: the same object is written by booking.ts, in place.
  expect(() => write(recordOf())).not.toThrow();
});

test("pictures of many engines leave out why graphs are missing; one of them has it", () => {
  const registry = new EngineRegistry();
  const record = { ...recordOf(), explain: () => "a reason" };
  const told = (many: number) => {
    for (let at = 0; at < many; at++) {
      const hello = { ...record.hello, engine: `engine-${at}` };
      registry.add({ record: { ...record, hello } } as unknown as EngineDriver);
    }
    return registry.snapshots().at(-1)?.graphs[0]?.reason;
  };
  expect([told(128), told(129)]).toEqual(["a reason", undefined]);
  expect(registry.lookUp("engine-128").found?.graphs[0]?.reason).toBe("a reason");
});

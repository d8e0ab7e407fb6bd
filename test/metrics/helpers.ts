import { Registry } from "prom-client";
import { createEngineRecord, type EngineRecord } from "../../src/engine/record.ts";
import { type EngineSnapshot, snapshotOf } from "../../src/engine/snapshot.ts";
import { applyInventory, applyReady } from "../../src/engine/step/booking.ts";
import type { WritableState } from "../../src/schedule/state.ts";
import type { Captured } from "../../src/wire/protocol.ts";
import { CONFIGURATION, FakeEngine, type FakeEngineOptions, RANK } from "../helpers/fake-engine.ts";

function captured(graph: string, ms = 20, bytes = 4 << 20): Captured {
  return { graph, ms, bytes };
}

/** A record to change by hand. */
export type TestRecord = {
  -readonly [K in Exclude<keyof EngineRecord, "state">]: EngineRecord[K];
} & {
  state: WritableState | undefined;
};

/** An engine that is ready with both tops. */
export function recordOf(options: FakeEngineOptions = {}): TestRecord {
  const { hello, graphs } = new FakeEngine(options);
  const record = createEngineRecord(hello, "idle");
  const tops = [captured("PIECEWISE:8", 40), captured("FULL:8")];
  const common = { captured: tops, ranks: [RANK], epoch: 2 };
  const inventory = { type: "inventory", phase: "capturing", graphs } as const;
  applyInventory(record, { ...inventory, ...common, ...CONFIGURATION });
  applyReady(record, { type: "ready", captureSeconds: 0.06, ...common }, 0);
  return record as TestRecord;
}

/** Of a controller, what metrics use. */
export function controllerOf(records: EngineRecord[]): { engines(): readonly EngineSnapshot[] } {
  return { engines: () => records.map((record) => snapshotOf(record)) };
}

/** As scraped: `name{label="value",…}` to number. */
export async function scrape(registry: Registry): Promise<Map<string, number>> {
  const values = new Map<string, number>();
  for (const line of (await registry.metrics()).split("\n")) {
    const match = /^(\w+(?:\{.*\})?) (\S+)$/.exec(line);
    if (match !== null) values.set(match[1] ?? "", Number(match[2]));
  }
  return values;
}

export { Registry };

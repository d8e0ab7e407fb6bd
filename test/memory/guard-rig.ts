/** A guard without a driver: figures go in as they are told, in MiB free. */

import type { Graph } from "../../src/base/graph.ts";
import { MemoryGuard } from "../../src/memory/guard.ts";
import { MemoryLedger } from "../../src/memory/ledger.ts";
import { createEngineState, type WritableState } from "../../src/schedule/state.ts";
import type { RankMemory } from "../../src/wire/protocol.ts";
import { plan, RANK } from "../helpers/fake-engine.ts";
import { claimOf, MIB } from "./rig.ts";

export const PLANNED: readonly Graph[] = plan(1, 2, 4, 8, 16, 32, 64, 128, 256, 512);
export const PEAK: number = 100 * MIB;
export const CLAIM: number = claimOf(PEAK);

export interface Rig {
  readonly guard: MemoryGuard;
  readonly state: WritableState;
  atSeconds: number;
  driver: number | undefined;
  report(freeMib: number, more?: Partial<RankMemory>): void;
  capture(id: string, bytes: number): void;
}

export function rig(engine = "a", ledger = new MemoryLedger(), marginBytes?: number): Rig {
  const state = createEngineState(PLANNED);
  const self: Rig = {
    atSeconds: 0,
    driver: undefined,
    state,
    guard: new MemoryGuard({
      engine,
      ledger,
      marginBytes,
      driverFree: () => self.driver,
      now: () => self.atSeconds,
    }),
    report(freeMib, more = {}) {
      const rank = { ...RANK, activationPeakBytes: PEAK, freeBytes: freeMib * MIB, ...more };
      self.guard.report([rank]);
    },
    capture(id, bytes) {
      const entry = state.graphs.get(id);
      if (entry === undefined) throw new Error(id);
      entry.status = "captured";
      self.guard.captured([{ graph: entry.graph, bytes }], state);
    },
  };
  self.guard.plan(PLANNED, { layers: 32, ranks: 1, activationPeakBytes: PEAK });
  return self;
}

export function graph(id: string): Graph {
  return PLANNED.find((entry) => entry.id === id) as Graph;
}

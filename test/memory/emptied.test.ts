/** What torch's allocator keeps beyond serving's needs is room: a rank empties the cache for it. */

import { describe, expect, test } from "vitest";
import { FLOOR_BYTES } from "../../src/memory/headroom.ts";
import { MemoryLedger } from "../../src/memory/ledger.ts";
import type { RankMemory } from "../../src/wire/protocol.ts";
import { RANK } from "../helpers/fake-engine.ts";
import { CLAIM, graph, PEAK, PLANNED, type Rig, rig } from "./guard-rig.ts";
import { MIB } from "./rig.ts";

const room = (one: Rig): number => one.guard.headroom()?.bytes ?? Number.NaN;

/** What a rank says whose allocator has taken so much for serving, and uses none of it now. */
function grown(cachedBytes: number): Partial<RankMemory> {
  const reservedBytes = RANK.reservedBytes + cachedBytes;
  return { reservedBytes, cachedBytes, activationHeldBytes: Math.min(PEAK, cachedBytes) };
}

/** An engine that had plenty at first, and whose allocator has grown since. */
function waves(freeMib: number, cachedBytes: number, one: Rig = rig()): Rig {
  one.report(9000, { cachedBytes: 0 });
  one.report(freeMib, grown(cachedBytes));
  return one;
}

describe("torch's cache", () => {
  test("is room as far as it and free memory exceed the peak and the whole allowance", () => {
    const one = waves(4, CLAIM + 50 * MIB);
    expect(room(one)).toBe(54 * MIB);
    const fresh = rig();
    fresh.report(4, { cachedBytes: CLAIM + 50 * MIB });
    expect(room(fresh)).toBe(54 * MIB);
    expect(one.guard.headroom()?.freeBytes).toBe(4 * MIB);
    const grant = one.guard.reserve(graph("FULL:8"), one.state);
    expect(grant.granted).toBe(true);
    // A capture under way is booked once.
    if (grant.granted) expect(room(one)).toBe(54 * MIB - grant.needBytes);
  });

  test("is serving's up to there, and to the byte", () => {
    const needBytes = ((): number => {
      const grant = waves(9000, 0).guard.reserve(graph("FULL:8"), rig().state);
      return grant.granted ? grant.needBytes : Number.NaN;
    })();
    const asked = (cachedBytes: number): boolean => {
      const one = waves(0, cachedBytes);
      return one.guard.reserve(graph("FULL:8"), one.state).granted;
    };
    expect(needBytes).toBeGreaterThan(MIB);
    expect(asked(CLAIM + Math.ceil(needBytes))).toBe(true);
    expect(asked(CLAIM + Math.floor(needBytes) - 1)).toBe(false);
  });

  test("changes nothing where there is room without it, or where nobody tells of it", () => {
    const plenty = waves(1000, PEAK);
    expect(room(plenty)).toBe(1000 * MIB - (CLAIM - PEAK));
    const untold = rig();
    untold.report(9000);
    const { reservedBytes, activationHeldBytes = 0 } = { ...RANK, ...grown(CLAIM + 50 * MIB) };
    untold.report(4, { reservedBytes, activationHeldBytes });
    expect(room(untold)).toBe(4 * MIB - FLOOR_BYTES);
  });

  test("leaves serving the user's margin instead of the allowance", () => {
    const one = waves(0, PEAK + 80 * MIB, rig("a", new MemoryLedger(), 70 * MIB));
    expect(room(one)).toBe(10 * MIB);
  });

  test("is not counted again where the driver sees what came out of it", () => {
    const one = waves(4, CLAIM - 20 * MIB);
    expect(room(one)).toBe(-16 * MIB);
    one.atSeconds = 60;
    one.driver = 44 * MIB;
    expect(room(one)).toBe(-16 * MIB);
    // What somebody else has taken meanwhile is gone.
    one.driver = MIB;
    expect(room(one)).toBe(-19 * MIB);
  });

  test("gives nothing of what other engines on the GPU need and have kept", () => {
    const ledger = new MemoryLedger();
    const other = rig("b", ledger);
    const reserve = { mode: "plan" as const, bytes: 30 * MIB };
    other.guard.plan(PLANNED, { layers: 32, ranks: 1, activationPeakBytes: PEAK, reserve });
    other.report(CLAIM / MIB);
    const one = waves(CLAIM / MIB, CLAIM + 50 * MIB, rig("a", ledger));
    expect(room(one)).toBe(20 * MIB);
    other.guard.hold(5 * MIB);
    expect(room(one)).toBe(15 * MIB);
    other.guard.close();
    expect(room(one)).toBeGreaterThan(CLAIM);
  });

  test("brings graphs back that waited for memory", () => {
    const one = waves(4, CLAIM + 50 * MIB);
    const entry = one.state.graphs.get("FULL:8");
    if (entry !== undefined) Object.assign(entry, { status: "refused", retryable: true });
    expect(one.guard.returning(one.state)).toEqual({ graphs: ["FULL:8"], probe: false });
  });

  test("is no shortage: a tier stays while the allocator keeps what serving needs", () => {
    const one = rig();
    one.guard.adopt([["PIECEWISE:64", "FULL:64"]]);
    waves(4, CLAIM, one);
    one.capture("PIECEWISE:64", 2 * MIB);
    expect(one.guard.surplus(one.state)).toEqual([]);
    one.report(4, grown(CLAIM - 5 * MIB));
    expect(one.guard.surplus(one.state).map(({ id }) => id)).toEqual(["PIECEWISE:64"]);
  });

  test("has what was reserved for graphs, and serving's first waves took", () => {
    const RESERVED = 300 * MIB;
    const one = rig();
    const reserve = { mode: "plan" as const, bytes: RESERVED };
    one.guard.plan(PLANNED, { layers: 32, ranks: 1, activationPeakBytes: PEAK, reserve });
    one.report((CLAIM + RESERVED) / MIB, { cachedBytes: 0 });
    one.capture("PIECEWISE:512", 200 * MIB);
    // 100 are not taken yet, and the allocator has 96 of them.
    one.report(4, grown(CLAIM + 96 * MIB));
    expect(room(one)).toBe(100 * MIB);
  });
});

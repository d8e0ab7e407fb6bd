import { describe, expect, test } from "vitest";
import { freeReading, servingClaim } from "../../src/memory/headroom.ts";
import { MemoryLedger } from "../../src/memory/ledger.ts";
import type { RankMemory } from "../../src/wire/protocol.ts";
import { RANK } from "../helpers/fake-engine.ts";

const MIB = 1024 * 1024;
const FIRST: RankMemory = {
  ...RANK,
  freeBytes: 3000 * MIB,
  reservedBytes: 130_000 * MIB,
  poolBytes: 0,
  activationPeakBytes: 896 * MIB,
  activationHeldBytes: 0,
};

function claim(change: Partial<RankMemory>, marginBytes?: number) {
  const { peakBytes, marginBytes: margin } = servingClaim(
    { ...FIRST, ...change },
    FIRST,
    marginBytes,
  );
  return { peak: peakBytes / MIB, margin: margin / MIB };
}

describe("what serving still needs", () => {
  test("at first the whole peak and the allowance, bounded for large peaks and small ones", () => {
    expect(claim({})).toEqual({ peak: 896, margin: 1088 });
    expect(claim({ activationPeakBytes: 400 * MIB })).toEqual({ peak: 400, margin: 500 });
    expect(claim({ activationPeakBytes: 8 * MIB })).toEqual({ peak: 8, margin: 256 });
  });

  test("what the allocator has taken is not needed again; the peak first, then the allowance", () => {
    const taken = (mib: number) => ({ reservedBytes: FIRST.reservedBytes + mib * MIB });
    expect(claim(taken(500))).toEqual({ peak: 396, margin: 1088 });
    expect(claim(taken(1500))).toEqual({ peak: 0, margin: 484 });
    expect(claim(taken(9000))).toEqual({ peak: 0, margin: 64 });
    // Told at quiescence, or seen as growth: the same bytes, counted once.
    expect(claim({ ...taken(500), activationHeldBytes: 500 * MIB })).toEqual(claim(taken(500)));
  });

  test("graphs are no growth of serving", () => {
    const graphs = { reservedBytes: FIRST.reservedBytes + 700 * MIB, poolBytes: 700 * MIB };
    expect(claim(graphs)).toEqual({ peak: 896, margin: 1088 });
  });

  test("a margin of the user's stays whatever serving takes", () => {
    const taken = { reservedBytes: FIRST.reservedBytes + 9000 * MIB };
    expect(claim(taken, 300 * MIB)).toEqual({ peak: 0, margin: 300 });
    expect(claim({}, 0)).toEqual({ peak: 896, margin: 0 });
  });
});

describe("free memory", () => {
  test("is the smaller figure, and the driver's alone once the engine's word is old", () => {
    const free = (driver: number | undefined, old = false): number =>
      freeReading(FIRST, driver, old).freeBytes / MIB;
    expect(free(undefined)).toBe(3000);
    expect(free(2000 * MIB)).toBe(2000);
    expect(free(4000 * MIB)).toBe(3000);
    expect(free(4000 * MIB, true)).toBe(4000);
    expect(free(undefined, true)).toBe(3000);
  });

  test("what went since the engine spoke may be serving's own", () => {
    expect(freeReading(FIRST, 2000 * MIB, false).sinceBytes / MIB).toBe(1000);
    expect(freeReading(FIRST, 4000 * MIB, false).sinceBytes).toBe(0);
  });
});

describe("the ledger", () => {
  test("adds up claims and reservations of all engines on a GPU", () => {
    const ledger = new MemoryLedger();
    ledger.claim("GPU-1", "a", 100);
    ledger.claim("GPU-1", "b", 10);
    ledger.claim("GPU-2", "b", 1);
    const release = ledger.reserve(["GPU-1", "GPU-2"], "b", 5);
    expect(ledger.spokenFor("GPU-1")).toBe(115);
    expect(ledger.spokenFor("GPU-2")).toBe(6);
    expect(ledger.reserved("GPU-1")).toBe(5);
    release();
    release();
    expect(ledger.spokenFor("GPU-1")).toBe(110);
    ledger.claim("GPU-1", "a", 50);
    expect(ledger.spokenFor("GPU-1")).toBe(60);
    expect(ledger.spokenFor("GPU-3")).toBe(0);
  });

  test("two ranks on one GPU take twice as much of it", () => {
    const ledger = new MemoryLedger();
    ledger.reserve(["GPU-1", "GPU-1"], "a", 5);
    expect(ledger.spokenFor("GPU-1")).toBe(10);
  });

  test("forgets an engine with all it had", () => {
    const ledger = new MemoryLedger();
    ledger.claim("GPU-1", "a", 100);
    const release = ledger.reserve(["GPU-1"], "a", 5);
    ledger.forget("a");
    release();
    expect(ledger.spokenFor("GPU-1")).toBe(0);
  });
});

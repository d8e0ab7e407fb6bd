import { describe, expect, test } from "vitest";
import {
  FLOOR_BYTES,
  freeReading,
  servingClaim,
  wholeClaimBytes,
} from "../../src/memory/headroom.ts";
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

/** As docs/gpu-memory.md states them. */
const OF_PEAK = 0.6;
const LEAST = 256;
const MOST = 1088;
const LEFT = FLOOR_BYTES / MIB;
/** What a Llama-3.1-8B was seen to do on an H200, in MiB. */
const SEEN = { peak: 896, died: 1057, served: 1399, tight: 1773 };

const peakOf = (mib: number): RankMemory => ({ ...FIRST, activationPeakBytes: mib * MIB });

describe("what serving still needs", () => {
  test("at first the whole peak and the allowance, bounded for large and small peaks", () => {
    const between = (LEAST + MOST) / 2 / OF_PEAK;
    for (const [peak, margin] of [
      [8, LEAST],
      [between, (LEAST + MOST) / 2],
      [100_000, MOST],
    ] as const) {
      const at = claim(peakOf(peak));
      expect(at.peak).toBeCloseTo(peak, 5);
      expect(at.margin).toBeCloseTo(margin, 5);
    }
  });

  test("no less than what was seen to serve, not all that a tight engine has", () => {
    const { peak, margin } = claim(peakOf(SEEN.peak));
    expect(peak + margin).toBeGreaterThan(SEEN.died);
    expect(peak + margin).toBeGreaterThanOrEqual(SEEN.served);
    // Something is left for graphs at 0.985.
    expect(peak + margin).toBeLessThan(SEEN.tight);
  });

  test("what the allocator has taken is not needed again; first the peak, then the allowance", () => {
    const taken = (mib: number) => ({ reservedBytes: FIRST.reservedBytes + mib * MIB });
    const { peak, margin } = claim({});
    expect(claim(taken(500))).toEqual({ peak: peak - 500, margin });
    const some = claim(taken(peak + 100));
    expect(some.peak).toBe(0);
    expect(some.margin).toBeCloseTo(margin - 100, 5);
    expect(claim(taken(9000))).toEqual({ peak: 0, margin: LEFT });
    // Told at quiescence or seen as growth: the same bytes, once.
    expect(claim({ ...taken(500), activationHeldBytes: 500 * MIB })).toEqual(claim(taken(500)));
    expect(claim({ activationHeldBytes: 500 * MIB })).toEqual(claim(taken(500)));
    const holding = { ...FIRST, activationHeldBytes: 300 * MIB };
    const { peakBytes } = servingClaim({ ...FIRST, ...taken(100) }, holding, 0);
    expect(peakBytes / MIB).toBe(peak - 400);
  });

  test("graphs are no growth of serving", () => {
    const graphs = { reservedBytes: FIRST.reservedBytes + 700 * MIB, poolBytes: 700 * MIB };
    expect(claim(graphs)).toEqual(claim({}));
    expect(claim({ ...graphs, poolBytes: 600 * MIB }).peak).toBe(claim({}).peak - 100);
  });

  test("a margin of the user's stays whatever serving takes", () => {
    const taken = { reservedBytes: FIRST.reservedBytes + 9000 * MIB };
    expect(claim(taken, 300 * MIB)).toEqual({ peak: 0, margin: 300 });
    expect(claim({}, 0)).toEqual({ peak: 896, margin: 0 });
  });
});

describe("with torch's cache emptied", () => {
  test("serving needs what it needed at first, whatever it holds now", () => {
    const { peak, margin } = claim({});
    const grown = { ...FIRST, reservedBytes: 140_000 * MIB, activationHeldBytes: 896 * MIB };
    expect(wholeClaimBytes(grown, undefined) / MIB).toBeCloseTo(peak + margin, 5);
    expect(wholeClaimBytes(grown, 300 * MIB) / MIB).toBe(896 + 300);
    expect(wholeClaimBytes(grown, 0) / MIB).toBe(896);
  });
});

describe("free memory", () => {
  test("is the smaller figure; the driver's alone once the engine's word is old", () => {
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

  describe("what can't be so counts for who says it alone", () => {
    const total = 1000;
    const fill = (claim: number, kept: number, held: number): MemoryLedger => {
      const ledger = new MemoryLedger();
      ledger.claim("GPU-1", "honest", 50, undefined, { totalBytes: total, heldBytes: 500 });
      const keeps = { bytes: kept, untakenBytes: kept };
      ledger.claim("GPU-1", "liar", claim, keeps, { totalBytes: total, heldBytes: held });
      return ledger;
    };

    test.for([
      ["a claim of more than the GPU has", 1e15, 0, 0],
      ["more kept for graphs than the GPU has", 0, 1e15, 0],
      ["more than the GPU has together with what it holds", 400, 300, 600],
    ] as const)("%s", ([, claim, kept, held]) => {
      const ledger = fill(claim, kept, held);
      expect(ledger.offLimits("GPU-1", "honest", 400)).toBe(50);
      expect(ledger.spokenFor("GPU-1")).toBe(50);
      expect(ledger.least("GPU-1", "honest")).toBe(50);
      expect(ledger.keptByOthers("GPU-1", "honest")).toBe(0);
      expect(ledger.spokenFor("GPU-1", "liar")).toBe(50 + claim);
    });

    test("nor does a capture that is as large", () => {
      const ledger = fill(10, 0, 0);
      const release = ledger.reserve(["GPU-1"], "liar", 1e15);
      expect(ledger.offLimits("GPU-1", "honest", 400)).toBe(50);
      release();
      expect(ledger.offLimits("GPU-1", "honest", 400)).toBe(60);
    });

    test("what may be so counts for all, where memory is tight, too", () => {
      expect(fill(300, 0, 700).offLimits("GPU-1", "honest", 400)).toBe(350);
      expect(fill(340, 0, 700).offLimits("GPU-1", "honest", 400)).toBe(390);
    });
  });

  describe("what an engine's captures must leave", () => {
    const ledgerOf = (claims: Record<string, [claim: number, kept: number, untaken: number]>) => {
      const ledger = new MemoryLedger();
      for (const [engine, [claim, bytes, untakenBytes]] of Object.entries(claims)) {
        ledger.claim("GPU-1", engine, claim, { bytes, untakenBytes });
      }
      return ledger;
    };

    test.for([
      // What is free, what must be left.
      [2000, 800, "plenty: the claim, and no more"],
      [1100, 800, "just enough for both"],
      [1000, 700, "tight: all but what was kept for graphs"],
      [850, 550, "the same, though less is free than serving claims"],
      [600, 500, "a stranger took it: the claim less what was kept"],
      [400, 500, "and then there is no room at all"],
    ] as const)("with %d bytes free %d: %s", ([free, left]) => {
      const ledger = ledgerOf({ a: [800, 300, 300] });
      expect(ledger.offLimits("GPU-1", "a", free)).toBe(left);
    });

    test("once graphs have taken what was kept, the claim counts again", () => {
      expect(ledgerOf({ a: [800, 300, 100] }).offLimits("GPU-1", "a", 850)).toBe(750);
      expect(ledgerOf({ a: [800, 300, 0] }).offLimits("GPU-1", "a", 750)).toBe(800);
      expect(ledgerOf({ a: [800, 0, 0] }).offLimits("GPU-1", "a", 750)).toBe(800);
    });

    test("what another engine kept is not to be had, in plenty or not", () => {
      const ledger = ledgerOf({ a: [800, 300, 200], b: [100, 0, 0] });
      // b may have 2000 − 900 for serving − 200 for a's graphs; a has its own besides.
      expect(ledger.offLimits("GPU-1", "b", 2000)).toBe(1100);
      expect(ledger.offLimits("GPU-1", "a", 2000)).toBe(900);
      expect(ledger.offLimits("GPU-1", "b", 1000)).toBe(1100);
      expect(ledger.offLimits("GPU-1", "a", 1000)).toBe(800);
      expect([ledger.keptByOthers("GPU-1", "a"), ledger.keptByOthers("GPU-1", "b")]).toEqual([
        0, 200,
      ]);
      const release = ledger.reserve(["GPU-1"], "b", 7);
      expect(ledger.offLimits("GPU-1", "a", 1000)).toBe(807);
      release();
      ledger.forget("a");
      expect(ledger.offLimits("GPU-1", "b", 1000)).toBe(100);
      expect(ledger.offLimits("GPU-2", "b", 1000)).toBe(0);
    });

    test("its least is serving's without what was kept, taken or not", () => {
      expect(ledgerOf({ a: [800, 300, 300], b: [100, 0, 0] }).least("GPU-1")).toBe(600);
      expect(ledgerOf({ a: [800, 300, 0], b: [100, 200, 0] }).least("GPU-1")).toBe(500);
    });
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

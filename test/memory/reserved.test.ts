import { describe, expect, test } from "vitest";
import { sharedMemory } from "../../src/engine/shared-memory.ts";
import { MemoryLedger } from "../../src/memory/ledger.ts";
import type { Captured, Reserve } from "../../src/wire/protocol.ts";
import { CONFIGURATION, RANK } from "../helpers/fake-engine.ts";
import { CLAIM, graph, PEAK, PLANNED, type Rig, rig } from "./guard-rig.ts";
import { MemoryRig, MIB, PLANNED as SMALL } from "./rig.ts";

describe("what was reserved for graphs", () => {
  const RESERVED = 300 * MIB;
  const TOPS = [graph("PIECEWISE:512"), graph("FULL:512")];

  /** @param freeBytes what is free when nothing is captured yet, what was reserved included */
  function reserved(
    freeBytes: number,
    mode: Reserve = "plan",
    engine = "a",
    ledger?: MemoryLedger,
  ): Rig {
    const one = rig(engine, ledger);
    const reserve = { mode, bytes: RESERVED };
    one.guard.plan(PLANNED, { layers: 32, ranks: 1, activationPeakBytes: PEAK, reserve });
    one.report(freeBytes / MIB);
    return one;
  }
  /** Less than serving needs by our reckoning, were it not for the reservation. */
  const tight = (): Rig => reserved(CLAIM - 100 * MIB + RESERVED);
  const room = (one: Rig): number => one.guard.headroom()?.bytes ?? Number.NaN;

  test("with plenty of memory it makes no difference: free less serving's claim, and no more", () => {
    let free = CLAIM + 2 * RESERVED;
    const one = reserved(free);
    expect(room(one)).toBe(free - CLAIM);
    for (const [id, bytes] of [
      ["PIECEWISE:512", 200 * MIB],
      ["FULL:512", 90 * MIB],
      ["FULL:256", 10 * MIB],
      ["FULL:128", 5 * MIB],
    ] as const) {
      free -= bytes;
      one.capture(id, bytes);
      one.report(free / MIB);
      // What a graph has taken comes off once, be it of its own or not.
      expect(room(one)).toBe(free - CLAIM);
    }
  });

  test("is theirs where memory is tight, down to its last byte", () => {
    let free = CLAIM - 100 * MIB + RESERVED;
    const one = tight();
    let own = RESERVED;
    expect(room(one)).toBe(own);
    for (const [id, bytes] of [
      ["PIECEWISE:512", 200 * MIB],
      ["FULL:512", 60 * MIB],
      ["FULL:256", 30 * MIB],
    ] as const) {
      free -= bytes;
      own -= bytes;
      one.capture(id, bytes);
      one.report(free / MIB);
      expect(room(one)).toBe(own);
    }
    expect(one.guard.reserve(graph("FULL:8"), one.state).granted).toBe(true);
  });

  test("is theirs, whatever serving is short of", () => {
    const one = tight();
    expect(one.guard.start(TOPS, one.state)).toMatchObject({
      graphs: TOPS,
      blocked: [],
      tiers: undefined,
    });
    expect(room(one)).toBe(RESERVED);
    one.capture("PIECEWISE:512", RESERVED);
    one.report(CLAIM / MIB - 100);
    // All of it is taken: from here on it is serving's.
    expect(room(one)).toBe(-100 * MIB);
    expect(one.guard.reserve(graph("FULL:8"), one.state).granted).toBe(false);
  });

  test("for the tops alone, or with less free than was reserved, the plan gets tiers", () => {
    const tops = reserved(CLAIM - 100 * MIB + RESERVED, "top");
    expect(tops.guard.start(TOPS, tops.state).tiers).toBeDefined();
    const robbed = reserved(CLAIM / 2);
    expect(robbed.guard.start(TOPS, robbed.state).tiers).toBeDefined();
  });

  test("takes a reading of the driver's that is newer than the engine's word", () => {
    const one = tight();
    one.atSeconds = 60;
    // Somebody left the GPU: serving's claim is not what it had to do with before.
    one.driver = CLAIM + 2 * RESERVED;
    expect(room(one)).toBe(2 * RESERVED);
    // Somebody came: serving has what it would have without graphs, if it is its least.
    one.driver = CLAIM - 150 * MIB + RESERVED;
    expect(room(one)).toBe(RESERVED);
    one.driver = CLAIM - RESERVED + 20 * MIB;
    expect(room(one)).toBe(20 * MIB);
  });

  test("is no reason to give up a tier, but a stranger is", () => {
    const one = tight();
    one.guard.adopt([["PIECEWISE:512", "FULL:512"]]);
    one.capture("PIECEWISE:512", RESERVED);
    one.report(CLAIM / MIB - 100);
    expect(one.guard.surplus(one.state)).toEqual([]);
    one.report((CLAIM - RESERVED) / MIB - 1);
    expect(one.guard.surplus(one.state).length).toBe(1);
  });

  test("captures stop for a stranger where tiers would be given up", () => {
    const one = tight();
    one.guard.adopt([["PIECEWISE:512", "FULL:512"], ["FULL:8"]]);
    one.capture("PIECEWISE:512", 100 * MIB);
    one.report((CLAIM - RESERVED) / MIB);
    expect(room(one)).toBe(0);
    expect(one.guard.reserve(graph("FULL:8"), one.state).granted).toBe(false);
    expect(one.guard.surplus(one.state)).toEqual([]);
  });

  test("on each rank, also where two of them share a GPU", () => {
    const one = tight();
    const rank = { ...RANK, activationPeakBytes: PEAK, freeBytes: 2 * (CLAIM + RESERVED) - MIB };
    one.guard.report([rank, { ...rank, rank: 1 }]);
    // A capture is booked on both.
    expect(room(one)).toBe(2 * RESERVED);
    one.guard.hold(RESERVED);
    expect(room(one)).toBe(0);
  });

  describe("by two engines on one GPU", () => {
    function both(freeBytes: number): { one: Rig; two: Rig; tell: (freeBytes: number) => void } {
      const ledger = new MemoryLedger();
      const one = reserved(freeBytes, "plan", "a", ledger);
      const two = reserved(freeBytes, "plan", "b", ledger);
      const tell = (bytes: number): void => {
        for (const each of [one, two]) each.report(bytes / MIB);
      };
      return { one, two, tell };
    }

    test("each has its own, and not the other's, however tight it is", () => {
      let free = 2 * (CLAIM + RESERVED) - 150 * MIB;
      const { one, two, tell } = both(free);
      expect([room(one), room(two)]).toEqual([RESERVED, RESERVED]);
      // The first takes all of its own before the other has taken anything.
      free -= RESERVED;
      one.capture("PIECEWISE:512", RESERVED);
      tell(free);
      expect(room(one)).toBeLessThanOrEqual(0);
      expect(room(two)).toBe(RESERVED);
      expect(one.guard.reserve(graph("FULL:8"), one.state).granted).toBe(false);
      expect(two.guard.reserve(graph("FULL:8"), two.state).granted).toBe(true);
    });

    test("with plenty of memory both serve, and neither takes what the other has kept", () => {
      const extra = 70 * MIB;
      const { one, two, tell } = both(2 * (CLAIM + RESERVED) + extra);
      expect([room(one), room(two)]).toEqual([RESERVED + extra, RESERVED + extra]);
      one.capture("PIECEWISE:512", RESERVED + extra);
      tell(2 * CLAIM + RESERVED);
      expect([room(one), room(two)]).toEqual([0, RESERVED]);
      one.guard.close();
      expect(room(two)).toBe(RESERVED + CLAIM);
    });

    test("an engine without a reservation doesn't take it either", () => {
      const ledger = new MemoryLedger();
      const one = reserved(2 * CLAIM + RESERVED + 40 * MIB, "plan", "a", ledger);
      const two = rig("b", ledger);
      two.report(2 * (CLAIM / MIB) + RESERVED / MIB + 40);
      expect([room(one), room(two)]).toEqual([RESERVED + 40 * MIB, 40 * MIB]);
    });
  });
});

test("graphs that went with a sleep leave what was kept for them to nobody else", () => {
  const shared = sharedMemory();
  const { driver, ranks } = new MemoryRig({ freeBytes: 20 * CLAIM, shared });
  const reserve = { mode: "plan", bytes: 100 * MIB, kvTokens: 1 } as const;
  const tell = (captured: readonly Captured[], epoch: number): void => {
    const told = { graphs: SMALL, captured, ranks, reserve, epoch };
    driver.receive({ type: "inventory", phase: "serving", ...CONFIGURATION, ...told });
  };
  const kept = (): number => shared.ledger.keptByOthers("GPU-1", "another");
  tell([{ graph: "PIECEWISE:256", ms: 1, bytes: 60 * MIB }], 1);
  expect(kept()).toBe(40 * MIB);
  tell([], 2);
  expect(kept()).toBe(100 * MIB);
  // They come back, and are learned from once more.
  tell([{ graph: "PIECEWISE:256", ms: 1, bytes: 70 * MIB }], 3);
  expect(kept()).toBe(30 * MIB);
});

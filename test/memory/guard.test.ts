import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Graph } from "../../src/base/graph.ts";
import { FLOOR_BYTES } from "../../src/memory/headroom.ts";
import { MemoryLedger } from "../../src/memory/ledger.ts";
import { RANK } from "../helpers/fake-engine.ts";
import { CLAIM, graph, PEAK, PLANNED, type Rig, rig } from "./guard-rig.ts";
import { MIB } from "./rig.ts";

const FLOOR = FLOOR_BYTES / MIB;

const returning = (one: Rig): readonly string[] => one.guard.returning(one.state).graphs;

describe("reservations", () => {
  test("hold what a graph may take until they are released", () => {
    const { guard, state, report } = rig();
    report(1000);
    const before = guard.headroom()?.bytes ?? 0;
    expect(before).toBe(1000 * MIB - CLAIM);
    const grant = guard.reserve(graph("FULL:8"), state);
    if (!grant.granted) throw new Error("refused");
    expect(grant.needBytes).toBeGreaterThan(MIB);
    expect(guard.headroom()?.bytes).toBe(before - grant.needBytes);
    const later = guard.hold(MIB);
    grant.release();
    // Once: then it would be another's.
    grant.release();
    expect(guard.headroom()?.bytes).toBe(before - MIB);
    later();
    expect(guard.headroom()?.bytes).toBe(before);
  });

  test("what doesn't fit is refused with all its like, and smaller ones are not", () => {
    const { guard, state, report, capture } = rig();
    report(1000);
    capture("PIECEWISE:512", 50 * MIB);
    capture("FULL:512", 0);
    report(CLAIM / MIB + 6);
    const refusal = guard.reserve(graph("PIECEWISE:8"), state);
    if (refusal.granted) throw new Error("granted");
    expect(refusal.availableBytes).toBe(6 * MIB);
    expect(refusal.needBytes).toBeGreaterThan(6 * MIB);
    expect(refusal.graphs.every((id) => id.startsWith("PIECEWISE:"))).toBe(true);
    expect(refusal.graphs).toHaveLength(9);
    expect(guard.reserve(graph("FULL:8"), state).granted).toBe(true);
  });

  test("without any figure nothing is held up", () => {
    const { guard, state } = rig();
    expect(guard.headroom()).toBeUndefined();
    expect(guard.reserve(graph("PIECEWISE:512"), state).granted).toBe(true);
    expect(guard.start(PLANNED, state)).toMatchObject({ graphs: PLANNED, blocked: [] });
  });

  test("the driver's figure counts where it is the smaller one", () => {
    const one = rig();
    one.report(5000);
    one.driver = 1000 * MIB;
    expect(one.guard.headroom()?.freeBytes).toBe(1000 * MIB);
    one.driver = 9000 * MIB;
    expect(one.guard.headroom()?.freeBytes).toBe(5000 * MIB);
    one.atSeconds = 60;
    expect(one.guard.headroom()?.freeBytes).toBe(9000 * MIB);
  });

  test("graphs that the user excluded take no room and are no top", () => {
    const { guard, state, report } = rig();
    report(CLAIM / MIB + 60);
    for (const { graph: planned } of state.graphs.values()) {
      const entry = state.graphs.get(planned.id);
      if (entry !== undefined && planned.tokens > 2) entry.status = "refused";
    }
    const wanted = [graph("PIECEWISE:2"), graph("FULL:2")];
    const fit = guard.start(wanted, state);
    expect(fit).toMatchObject({ graphs: wanted, blocked: [], tiers: undefined });
  });

  test("the rank with the least room counts", () => {
    const { guard } = rig();
    const rank = { ...RANK, activationPeakBytes: PEAK };
    guard.report([
      { ...rank, rank: 0, gpuUuid: "GPU-1", freeBytes: 5000 * MIB },
      { ...rank, rank: 1, gpuUuid: "GPU-2", freeBytes: CLAIM + 44 * MIB },
    ]);
    expect(guard.headroom()).toMatchObject({ gpu: "GPU-2", bytes: 44 * MIB });
  });

  test("what can't be so of one GPU counts for others on its other GPU", () => {
    const ledger = new MemoryLedger();
    const rank = { ...RANK, activationPeakBytes: PEAK };
    rig("a", ledger).guard.report([
      { ...rank, gpuUuid: "GPU-1", totalBytes: 1000 * MIB, reservedBytes: 900 * MIB },
      { ...rank, rank: 1, gpuUuid: "GPU-2", totalBytes: 2000 * MIB, reservedBytes: 500 * MIB },
    ]);
    expect(["GPU-1", "GPU-2"].map((gpu) => ledger.spokenFor(gpu, "b"))).toEqual([0, CLAIM]);
  });

  test("two engines on one GPU: what one is about to take, and needs, the other may not", () => {
    const ledger = new MemoryLedger();
    const [one, two] = [rig("a", ledger), rig("b", ledger)];
    const both = 2 * (CLAIM / MIB);
    one.report(both + 12);
    two.report(both + 12);
    for (const { capture } of [one, two]) capture("PIECEWISE:512", 50 * MIB);
    const grant = one.guard.reserve(graph("PIECEWISE:8"), one.state);
    expect(grant.granted).toBe(true);
    expect(two.guard.reserve(graph("PIECEWISE:8"), two.state).granted).toBe(false);
    if (grant.granted) grant.release();
    expect(two.guard.reserve(graph("PIECEWISE:8"), two.state).granted).toBe(true);
    one.guard.close();
    expect(two.guard.headroom()?.bytes).toBeGreaterThan(CLAIM);
  });
});

describe("asking again", () => {
  function refused(): Rig {
    const one = rig();
    one.report(1000);
    one.capture("PIECEWISE:512", 50 * MIB);
    one.capture("FULL:512", 0);
    one.report(CLAIM / MIB);
    const answer = one.guard.reserve(graph("PIECEWISE:8"), one.state);
    if (answer.granted) throw new Error("granted");
    for (const id of answer.graphs) {
      const entry = one.state.graphs.get(id);
      if (entry !== undefined) Object.assign(entry, { status: "refused", retryable: true });
    }
    one.guard.refused();
    return one;
  }

  test("needs more room than the graphs do, and time", () => {
    const one = refused();
    expect(returning(one)).toEqual([]);
    one.report(5000);
    expect(returning(one)).toEqual([]);
    one.atSeconds = one.guard.retryAtSeconds;
    // One that waits for no memory, as the user's excluded ones.
    const excluded = one.state.graphs.get("PIECEWISE:1");
    Object.assign(excluded ?? {}, { retryable: undefined });
    expect(returning(one)).toHaveLength(17);
    Object.assign(excluded ?? {}, { retryable: true });
    one.report(CLAIM / MIB + 10);
    expect(returning(one)).toEqual([]);
    // With a little room only some: the most wanted first.
    const wanted = one.state.graphs.get("FULL:32");
    if (wanted !== undefined) wanted.wanted = 7;
    one.report(CLAIM / MIB + 32);
    const some = returning(one);
    expect(some[0]).toBe("FULL:32");
    expect(some.length).toBeLessThan(18);
  });

  test("at the edge of its room a large graph keeps no smaller ones waiting", () => {
    const came: number[] = [];
    for (let free = 20; free <= 1500; free += 1) {
      const one = rig();
      one.report(1000);
      one.capture("PIECEWISE:8", 20 * MIB);
      for (const [id, entry] of one.state.graphs) {
        if (id === "PIECEWISE:8") continue;
        // The largest ones are wanted most.
        const wanted = entry.graph.tokens;
        Object.assign(entry, { status: "refused", retryable: true, wanted });
      }
      one.guard.refused();
      one.atSeconds = one.guard.retryAtSeconds;
      one.report(CLAIM / MIB + free);
      came.push(returning(one).length);
    }
    const first = came.findIndex((count) => count > 0);
    expect(first).toBeGreaterThan(-1);
    expect(came.slice(first).filter((count) => count === 0)).toEqual([]);
    expect(came.at(-1)).toBe(19);
  });

  test("gets slower while it is refused, is bounded, and starts over after calm", () => {
    const one = refused();
    const waits: number[] = [];
    for (let round = 0; round < 12; round++) {
      waits.push(one.guard.retryAtSeconds - one.atSeconds);
      one.atSeconds = one.guard.retryAtSeconds;
      one.report(5000);
      expect(returning(one).length).toBeGreaterThan(0);
      // It was granted, and then the room was taken: of several, too.
      for (let graphs = 0; graphs < 3; graphs++) one.guard.refused();
    }
    expect(waits).toEqual([...waits].sort((a, b) => a - b));
    expect(waits[1]).toBe(2 * (waits[0] as number));
    expect(Math.max(...waits)).toBeLessThanOrEqual(300);
    one.atSeconds += 3600;
    one.guard.refused();
    expect(one.guard.retryAtSeconds - one.atSeconds).toBe(waits[0]);
  });

  test("an engine that nobody else can measure is asked with one graph, the most wanted", () => {
    const one = refused();
    one.atSeconds = one.guard.retryAtSeconds;
    one.report(CLAIM / MIB);
    expect(returning(one)).toEqual([]);
    one.atSeconds += 60;
    const wanted = one.state.graphs.get("FULL:32");
    if (wanted !== undefined) wanted.wanted = 7;
    const [probe, ...others] = returning(one);
    expect(others).toEqual([]);
    const entry = one.state.graphs.get(probe ?? "");
    expect(probe).toBe("FULL:32");
    // Its answer comes before another one is asked for, unless the policy doesn't ask for it.
    expect(one.guard.reserve(graph("FULL:16"), one.state).granted).toBe(false);
    expect(returning(one)).toEqual([]);
    one.atSeconds += 30;
    expect(returning(one)).toEqual(["FULL:32"]);
    // The engine has spoken since: nothing is to be found out.
    one.report(CLAIM / MIB);
    expect(one.guard.reserve(entry?.graph as Graph, one.state).granted).toBe(false);
    one.atSeconds += 60;
    expect(returning(one)).toEqual(["FULL:32"]);
    expect(one.guard.reserve(entry?.graph as Graph, one.state).granted).toBe(true);
    // Once: its answer brings a figure.
    expect(one.guard.reserve(entry?.graph as Graph, one.state).granted).toBe(false);
  });

  test("where the driver tells, only if serving may have taken what is gone", () => {
    const one = refused();
    one.atSeconds = 600;
    one.driver = CLAIM;
    expect(returning(one)).toEqual([]);
    one.report(CLAIM / MIB + 100);
    one.driver = CLAIM - 50 * MIB;
    one.atSeconds += 60;
    expect(returning(one)).toHaveLength(1);
  });
});

describe("giving up a tier", () => {
  function tight(): Rig {
    const one = rig();
    one.report(CLAIM / MIB + 60);
    const fit = one.guard.start([graph("PIECEWISE:512"), graph("FULL:512")], one.state);
    expect(fit.tiers).toBeDefined();
    for (const id of ["PIECEWISE:64", "FULL:64", "FULL:32"]) one.capture(id, 2 * MIB);
    return one;
  }

  test("only when less is free than serving needs, and only where there are tiers", () => {
    const one = tight();
    one.report(CLAIM / MIB + 10);
    expect(one.guard.surplus(one.state)).toEqual([]);
    one.report(CLAIM / MIB - 1);
    expect(one.guard.surplus(one.state).map(({ id }) => id)).toEqual([
      "PIECEWISE:64",
      "FULL:64",
      "FULL:32",
    ]);
    const plain = rig();
    plain.report(5000);
    plain.guard.start([graph("FULL:512")], plain.state);
    plain.capture("FULL:512", MIB);
    plain.report(1);
    expect(plain.guard.surplus(plain.state)).toEqual([]);
  });

  test("not for what serving itself has taken since the engine's last word", () => {
    const one = tight();
    one.report(CLAIM / MIB + 10);
    one.driver = (FLOOR + 16) * MIB;
    expect(one.guard.surplus(one.state)).toEqual([]);
    // For captures the smaller figure counts all the same.
    expect(one.guard.reserve(graph("FULL:16"), one.state).granted).toBe(false);
    // More is gone than serving wanted: somebody else took it.
    one.driver = (FLOOR - 14) * MIB;
    expect(one.guard.surplus(one.state).length).toBeGreaterThan(0);
    // The engine says that it was not serving.
    one.driver = undefined;
    one.report(FLOOR + 16);
    expect(one.guard.surplus(one.state).length).toBeGreaterThan(0);
    one.report(CLAIM / MIB + 10);
    one.driver = (FLOOR + 16) * MIB;
    expect(one.guard.reserve(graph("FULL:16"), one.state).granted).toBe(false);
  });

  test("an open reservation is no shortage", () => {
    const one = tight();
    one.report(CLAIM / MIB + 10);
    one.guard.hold(40 * MIB);
    expect(one.guard.surplus(one.state)).toEqual([]);
  });
});

test("the sum of reservations never exceeds what is free beside serving, whatever comes", () => {
  const step = fc.record({
    engine: fc.integer({ min: 0, max: 2 }),
    what: fc.constantFrom("capture", "answer", "stranger", "report", "lose"),
    graph: fc.integer({ min: 0, max: PLANNED.length - 1 }),
    mib: fc.integer({ min: 0, max: 600 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const ledger = new MemoryLedger();
      let free = 2600 * MIB;
      let stranger = 0;
      const engines = [0, 1, 2].map((index) => ({ ...rig(`e${index}`, ledger) }));
      const open = new Map<number, { graph: Graph; needBytes: number; release: () => void }>();
      const tell = (): void => {
        for (const one of engines) one.report(free / MIB);
      };
      tell();
      for (const { engine, what, graph: place, mib } of steps) {
        const one = engines[engine] as Rig;
        const entry = PLANNED[place] as Graph;
        const pending = open.get(engine);
        if (what === "stranger") {
          const bytes = Math.min(mib * MIB, free + stranger);
          free += stranger - bytes;
          stranger = bytes;
          tell();
        } else if (what === "report") tell();
        else if (what === "lose") {
          pending?.release();
          open.delete(engine);
        } else if (what === "answer" && pending !== undefined) {
          free -= pending.needBytes;
          pending.release();
          open.delete(engine);
          one.capture(pending.graph.id, pending.needBytes);
          tell();
        } else if (what === "capture" && pending === undefined) {
          if (one.state.graphs.get(entry.id)?.status === "captured") continue;
          const room = one.guard.headroom()?.bytes ?? 0;
          const answer = one.guard.reserve(entry, one.state);
          if (!answer.granted) {
            expect(answer.needBytes).toBeGreaterThan(room);
            expect(answer.graphs).toContain(entry.id);
            continue;
          }
          expect(answer.needBytes).toBeLessThanOrEqual(room);
          open.set(engine, { graph: entry, needBytes: answer.needBytes, release: answer.release });
          // What all of them may take, together with what serving needs, is there.
          const reserved = [...open.values()].reduce((sum, { needBytes }) => sum + needBytes, 0);
          expect(ledger.reserved(RANK.gpuUuid)).toBe(reserved);
          expect(reserved + 3 * CLAIM).toBeLessThanOrEqual(free);
        }
      }
    }),
    { seed: 5, numRuns: 300 },
  );
});

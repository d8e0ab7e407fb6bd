import { describe, expect, test } from "vitest";
import { emptyPlan } from "../../src/plan/merge.ts";
import { priorOf } from "../../src/plan/plan.ts";
import { plan } from "../helpers/fake-engine.ts";
import { planOf } from "../plan/helpers.ts";
import { Rig } from "./rig.ts";
import { decode, mixed, SEED } from "./seed.ts";

const SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

describe("earned", () => {
  test("lazy captures what has earned its price, and nothing while idle beyond that", () => {
    const rig = new Rig("lazy", plan(...SIZES));
    expect(rig.start.map(({ id }) => id)).toEqual(["PIECEWISE:512", "FULL:512"]);
    rig.ready();
    rig.steps(decode(3), 4);
    expect(rig.captures).toEqual([]);
    rig.steps(decode(3), 4);
    // 8 steps × 5 ms × 3 requests against 30 ms × 3; a graph of 16 is as fast, and covers more.
    expect(rig.captures).toMatchObject([{ whenIdle: false }]);
    expect(rig.captures[0]?.reason).toMatch(/account 0\.12 ≥ price 0\.090|earned/);
    rig.settle();
    rig.edge(true);
    expect(rig.state.capturing).toBeUndefined();
    rig.edge(false);
    rig.steps(decode(3), 50);
    expect(rig.captures).toHaveLength(1);
  });

  test("lazy captures what the traffic makes likely while idle, within a budget", () => {
    const rig = new Rig("lazy", plan(...SIZES));
    rig.ready();
    rig.edge(true);
    // Nothing has come yet, and nothing is likely.
    expect(rig.captures).toEqual([]);
    rig.edge(false);
    for (const requests of [3, 12, 24]) rig.steps(decode(requests), 400);
    rig.settle();
    const earned = rig.captures.length;
    rig.edge(true);
    for (let second = 0; second < 60; second++) {
      rig.settle();
      rig.event({ type: "tick" }, 1);
    }
    const likely = rig.captures.slice(earned);
    expect(likely.length).toBeGreaterThan(0);
    for (const { reason, whenIdle } of likely) {
      expect(reason).toMatch(/: likely to be wanted, value [\d.]+ ≥ price [\d.]+ while idle$/);
      expect(whenIdle).toBe(true);
    }
    const stalls = likely.map(({ id }) => {
      const graph = rig.state.graphs.get(id)?.graph;
      if (graph === undefined) throw new Error(`no graph ${id}`);
      return rig.costed.costs?.captureSeconds(graph).value ?? Number.NaN;
    });
    expect(stalls.reduce((sum, stall) => sum + stall, 0)).toBeLessThanOrEqual(0.1 + 0.002 * 70);
  });

  test("who waits at ready needs not earn the graph for its first decode steps", () => {
    const rig = new Rig("lazy", plan(...SIZES));
    rig.ready(7);
    expect(rig.captures).toHaveLength(1);
  });

  test("where very many wait, the graphs for still larger batches come before the first step", () => {
    const crowded = new Rig("lazy", plan(...SIZES));
    crowded.ready(60);
    crowded.settle();
    expect(crowded.captures.length).toBeGreaterThan(0);
    for (const { id, reason } of crowded.captures) {
      expect(Number(id.slice("FULL:".length))).toBeGreaterThanOrEqual(60);
      expect(reason).toMatch(/ahead of a load/);
    }
    // Once steps tell the load, it is judged by these.
    const before = crowded.captures.length;
    crowded.steps(decode(60), 3);
    expect(crowded.captures).toHaveLength(before);
    // A backlog of nearly the largest batch goes, and is no rising load.
    const backlog = new Rig("lazy", plan(...SIZES));
    backlog.ready(400);
    expect(backlog.captures).toEqual([]);
  });

  test("the stall budget delays what has been earned, with a reason and an end", () => {
    const rig = new Rig("lazy", plan(...SIZES), {
      stallBudget: { burstSeconds: 0.04, share: 0.01 },
    });
    rig.ready(4);
    rig.settle();
    rig.steps(mixed(100), 100);
    expect(rig.captures).toHaveLength(1);
    expect(rig.waits.at(-1)).toBeGreaterThan(1);
    expect(rig.costed.explain(rig.state, "PIECEWISE:128", rig.atSeconds)).toContain(
      "the stall budget has",
    );
    rig.event({ type: "tick" }, rig.waits.at(-1));
    expect(rig.captures).toHaveLength(2);
  });

  test("no table before ready, one at ready", () => {
    const rig = new Rig("lazy", plan(1, 512));
    expect(rig.tables).toBe(0);
    rig.ready();
    expect(rig.tables).toBe(1);
  });

  test("steps measured otherwise than in the seed change the table", () => {
    const rig = new Rig("lazy", plan(1, 512));
    rig.ready();
    const { tables } = rig;
    expect(rig.table.uniform).toEqual([]);
    // Ungraphed steps turn out so slow that even the largest graph pays.
    for (let report = 0; report < 30; report++) rig.steps(decode(400), 8, 4);
    expect(rig.tables).toBeGreaterThan(tables);
    expect(rig.table.uniform).toEqual([{ upTo: 512, graphs: ["FULL:512"] }]);
    expect(rig.costed.costs?.ungraphedSeconds(decode(400)).value).toBeGreaterThan(0.02);
  });
});

describe("fill", () => {
  test("idle fills the whole plan where arrivals are rare, and settles", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.ready();
    rig.edge(true);
    for (let tick = 0; tick < 100 && rig.settled.length === 0; tick++) {
      rig.settle();
      rig.event({ type: "tick" }, rig.waits.at(-1) ?? 1);
    }
    expect(rig.settled).toEqual(["no graph is left to capture"]);
    expect(new Set(rig.captures.map(({ id }) => id)).size).toBe(2 * SIZES.length - 2);
    expect(rig.captures.every(({ whenIdle }) => whenIdle)).toBe(true);
    // It serves decode steps and mixed ones, six octaves of them without any padding cost.
    expect(rig.captures[0]?.reason).toContain("PIECEWISE:64: rung of the sparse ladder");
  });

  /** A gap of 20 ms after each 200 ms of work. */
  function shortGaps(rig: Rig, rounds: number): void {
    for (let round = 0; round < rounds; round++) {
      rig.steps(decode(2), 20, 1, 0.2);
      rig.edge(true, 0.001);
      rig.edge(false, 0.02);
      rig.answer("captured");
    }
  }

  test("while arrivals are near only what is worth the risk", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.ready();
    shortGaps(rig, 100);
    const captured = rig.captures.length;
    rig.edge(true, 0.2);
    expect(rig.captures).toHaveLength(captured);
    expect(captured).toBeLessThan(2 * SIZES.length - 2);
    // After an hour's quiet nothing speaks against the rest.
    rig.event({ type: "tick" }, 3600);
    expect(rig.captures).toHaveLength(captured + 1);
  });

  test("captures come to their end even where gaps stay short, at a thousandth of the time", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.ready();
    const startedAtSeconds = rig.atSeconds;
    shortGaps(rig, 2000);
    expect(rig.settled).toEqual(["no graph is left to capture"]);
    const worthless = rig.captures.filter(({ reason }) =>
      reason.includes("the largest of the rest"),
    );
    expect(worthless.length).toBeGreaterThan(0);
    // An arrival is certain, and waits for half of a stall.
    const delays = worthless.map(({ id }) => {
      const graph = rig.state.graphs.get(id)?.graph;
      if (graph === undefined) throw new Error(`no graph ${id}`);
      return (rig.costed.costs?.captureSeconds(graph).value ?? Number.NaN) / 2;
    });
    const most = 0.02 + 0.001 * (rig.atSeconds - startedAtSeconds);
    expect(delays.reduce((sum, delay) => sum + delay, 0)).toBeLessThanOrEqual(most);
  });

  test("as long as nobody has come the whole plan is filled at once", () => {
    const eights = Array.from({ length: 51 }, (_, at) => 8 * (at + 1));
    // Each takes a second: two of them are all that the stall budget would allow.
    const captures = new Map(plan(...eights).map(({ id }) => [id, { seconds: 1, bytes: 1 }]));
    const rig = new Rig("idle", plan(...eights), { costs: { ...SEED, captures } });
    rig.ready();
    rig.edge(true);
    rig.settle();
    expect(rig.settled).toEqual(["no graph is left to capture"]);
    expect(rig.waits).toEqual([]);
  });

  test("after a request and a long quiet the plan is filled, and nobody pays for it", () => {
    const eights = Array.from({ length: 51 }, (_, at) => 8 * (at + 1));
    // Ten seconds in all: at a twentieth of the time that would be three minutes.
    const captures = new Map(plan(...eights).map(({ id }) => [id, { seconds: 0.1, bytes: 1 }]));
    const costs = { ...SEED, captures };
    const rig = new Rig("idle", plan(...eights), { costs, captureMs: 100 });
    rig.ready();
    rig.edge(false);
    rig.steps(decode(1), 20);
    rig.edge(true);
    const quietSince = rig.atSeconds;
    for (let tick = 0; tick < 300 && rig.settled.length === 0; tick++) {
      rig.answer("captured");
      rig.event(
        { type: "tick" },
        rig.state.capturing === undefined ? (rig.waits.at(-1) ?? 1) : 0.1,
      );
    }
    expect(rig.settled).toEqual(["no graph is left to capture"]);
    expect(rig.atSeconds - quietSince).toBeLessThan(45);
  });

  test("who takes over an engine that is idle already knows how long it has been", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.state.idle = true;
    // It has worked before; a policy made now knows no arrivals of it.
    rig.state.stepsExact = 1;
    rig.ready();
    for (let tick = 0; tick < 100 && rig.settled.length === 0; tick++) {
      rig.settle();
      rig.event({ type: "tick" }, rig.waits.at(-1) ?? 1);
    }
    expect(rig.settled).toEqual(["no graph is left to capture"]);
    expect(rig.waits.reduce((sum, seconds) => sum + seconds, 0)).toBeLessThan(60);
  });

  test("a deferral is answered by waiting", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.ready();
    rig.edge(true);
    expect(rig.captures).toHaveLength(1);
    rig.answer("deferred");
    expect(rig.captures).toHaveLength(1);
    expect(rig.waits.at(-1)).toBe(1);
  });

  test("a fill that came to an engine with work keeps no earned capture waiting", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.ready();
    rig.edge(true);
    expect(rig.captures).toMatchObject([{ whenIdle: true }]);
    rig.edge(false);
    rig.steps(decode(3), 100);
    rig.answer("deferred");
    expect(rig.captures.slice(1)).toMatchObject([{ whenIdle: false }]);
    const waits = rig.waits.length;
    rig.answer("deferred");
    expect([rig.captures.length, rig.waits.length]).toEqual([2, waits + 1]);
  });
});

describe("announced arrivals", () => {
  test("keep fill away while its stall would reach into them, and are forgotten", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.ready();
    rig.event({ type: "announce", inSeconds: 0.01, requests: 3 });
    rig.edge(true, 0.001);
    expect(rig.captures).toEqual([]);
    expect(rig.waits.at(-1)).toBeCloseTo(1.009, 6);
    rig.event({ type: "tick" }, 1.1);
    expect(rig.captures).toHaveLength(1);
  });

  test("further ahead than any stall they keep nothing away", () => {
    const rig = new Rig("idle", plan(...SIZES));
    rig.ready();
    rig.event({ type: "announce", inSeconds: 60, requests: 3 });
    rig.edge(true);
    expect(rig.captures).toHaveLength(1);
  });

  test("raise the price of what has been earned", () => {
    const earned = (announced: number): number => {
      const rig = new Rig("lazy", plan(8, 512));
      rig.ready();
      if (announced > 0) rig.event({ type: "announce", inSeconds: 0.1, requests: announced });
      rig.steps(decode(3), 8, 1, 0.1);
      return rig.captures.length;
    };
    expect(earned(0)).toBe(1);
    expect(earned(9)).toBe(0);
  });
});

test("a graph dropped for want of memory leaves the table, and comes back when there is room", () => {
  const rig = new Rig("lazy", plan(...SIZES));
  rig.ready();
  rig.steps(decode(3), 50);
  rig.settle();
  const id = rig.captures[0]?.id ?? "";
  const entry = rig.state.graphs.get(id);
  if (entry === undefined) throw new Error("a capture was expected");
  const named = (): boolean => JSON.stringify(rig.table).includes(`"${id}"`);
  expect(named()).toBe(true);
  entry.status = "refused";
  rig.event({ type: "memory", graphs: [id] });
  expect(named()).toBe(false);
  rig.steps(decode(3), 50);
  entry.status = "planned";
  rig.event({ type: "memory", graphs: [id] });
  rig.settle();
  rig.steps(decode(3), 50);
  expect(rig.captures.length).toBeGreaterThan(1);
});

test("where a crowd waits for a first start, no graph for decode steps holds it up", () => {
  const crowd = (waiting: number): number => {
    const eights = Array.from({ length: 64 }, (_, at) => 8 * (at + 1));
    return new Rig("idle", plan(...eights), { waiting }).start.length;
  };
  expect(crowd(120)).toBeGreaterThan(2);
  expect(crowd(290)).toBe(2);
});

describe("a second start", () => {
  const learned = () => {
    const rig = new Rig("lazy", plan(...SIZES));
    rig.ready();
    for (let round = 0; round < 20; round++) {
      rig.steps(decode(3), 50);
      rig.settle();
    }
    return rig.plan(emptyPlan(planOf()));
  };

  test("knows the traffic, and the graphs it needed, most needed first", () => {
    const prior = priorOf(learned());
    expect(prior.traffic).toEqual([{ tokens: 4, uniform: 1, requestSteps: 3000, steps: 1000 }]);
    expect(prior.first).toHaveLength(1);
    expect(prior.first[0]).toMatch(/^FULL:(4|8|16|32|64)$/);
  });

  test("captures what was needed most before ready, in place of the tops", () => {
    const known = learned();
    const prior = priorOf(known);
    const rig = new Rig("idle", plan(...SIZES), { prior });
    expect(rig.start.map(({ id }) => id)).toEqual(prior.first);
    rig.ready(2);
    rig.steps(decode(3), 100);
    expect(rig.state.stepsUngraphed).toBe(0);
    // A start that saw as much again halves what was known, and adds its own.
    rig.steps(decode(3), 900);
    const [row] = priorOf(rig.plan(known)).traffic;
    expect(row).toEqual({ tokens: 4, uniform: 1, requestSteps: 4500, steps: 1500 });
  });

  test("who waits, or is announced, gets the graph for their first steps before ready", () => {
    const prior = priorOf(learned());
    const rig = new Rig("idle", plan(...SIZES), { prior });
    expect(rig.start.every(({ tokens }) => tokens < 200)).toBe(true);
    rig.event({ type: "announce", inSeconds: 0.5, requests: 150 });
    rig.event({ type: "inventory" });
    expect(rig.start).toContainEqual(expect.objectContaining({ kind: "FULL", tokens: 256 }));
    const held = new Rig("idle", plan(...SIZES), { prior });
    held.state.waiting = 150;
    held.event({ type: "inventory" });
    expect(held.start).toEqual(rig.start);
  });

  test("a plan of other graphs is no help and no harm", () => {
    const prior = { traffic: [], first: ["FULL:9999", "nonsense"] };
    const rig = new Rig("idle", plan(...SIZES), { prior });
    expect(rig.start.map(({ id }) => id)).toEqual(["PIECEWISE:512", "FULL:512"]);
  });

  test("init-only captures all of it before ready, and nothing after", () => {
    const prior = { traffic: [], first: ["FULL:16", "PIECEWISE:64", "FULL:64"] };
    const rig = new Rig("idle", plan(...SIZES), { prior, initOnly: true });
    expect(rig.start.map(({ id }) => id)).toEqual(prior.first);
    rig.ready(5);
    expect(rig.settled).toEqual(["captures were for before ready only, 17 graphs stay uncaptured"]);
    rig.steps(decode(200), 1000);
    rig.edge(true, 100);
    expect(rig.captures).toEqual([]);
    const bare = new Rig("lazy", plan(...SIZES), { initOnly: true });
    expect(bare.start.map(({ id }) => id)).toEqual(["PIECEWISE:512", "FULL:512"]);
  });
});

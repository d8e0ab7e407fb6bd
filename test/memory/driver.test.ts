import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LazygraphError } from "../../src/base/errors.ts";
import { forecastOf } from "../../src/engine/record.ts";
import { sharedMemory } from "../../src/engine/shared-memory.ts";
import type { Mode } from "../../src/wire/protocol.ts";
import { EventLog } from "../helpers/events.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { pinLogs } from "../helpers/pinned-log.ts";
import { CLAIM, MemoryRig, MIB, PLANNED } from "./rig.ts";
import { StuckGpu } from "./stuck-gpu.ts";

pinLogs("memory");

const PLENTY = 20_000 * MIB;
/** Room for about half of the plan, in tiers. */
const TIGHT = CLAIM + 40 * MIB;

describe("with plenty of memory", () => {
  test.for(["eager", "lazy", "idle"] as const)(
    "%s: the wire is as it was, but for needBytes",
    async (mode) => {
      const rig = new MemoryRig({ mode, freeBytes: PLENTY });
      const start = rig.start();
      expect(start).not.toHaveProperty("tiers");
      expect(start.graphs).toHaveLength(mode === "eager" ? PLANNED.length : 2);
      rig.steps(3, 10);
      rig.edge("idle");
      await rig.drain();
      for (const capture of rig.ofType("capture")) expect(capture.needBytes).toBeGreaterThan(0);
      expect(rig.ofType("drop")).toEqual([]);
      expect(rig.count("waiting")).toBe(0);
      expect(rig.clock.pending).toBe(1);
      if (mode !== "lazy") expect(rig.count("captured")).toBe(PLANNED.length);
    },
  );

  test("graphs of latent attention are forecast as what they are, by the engine's word", () => {
    const forecast = (latent: boolean): number => {
      const rig = new MemoryRig({ freeBytes: PLENTY, latent });
      rig.start();
      return forecastOf(rig.driver.record)?.bytes ?? Number.NaN;
    };
    expect(forecast(true) / forecast(false)).toBeGreaterThan(1.5);
  });

  test("a reservation ends with its answer, with the engine and with the driver", async () => {
    const shared = sharedMemory();
    const rig = new MemoryRig({ freeBytes: PLENTY, shared });
    rig.start();
    const command = await rig.command();
    if (command?.type !== "capture") throw new Error("no capture");
    expect(shared.ledger.reserved("GPU-1")).toBe(command.needBytes);
    await rig.drain();
    expect(shared.ledger.reserved("GPU-1")).toBe(0);
    expect(shared.ledger.spokenFor("GPU-1")).toBe(CLAIM);

    const lost = new MemoryRig({ freeBytes: PLENTY, shared, name: "lost" });
    lost.start();
    await lost.command();
    expect(shared.ledger.reserved("GPU-1")).toBeGreaterThan(0);
    lost.driver.detach(new LazygraphError("ERR_LAZYGRAPH_ENGINE_LOST", "Gone."));
    expect(shared.ledger.reserved("GPU-1")).toBe(0);
    lost.driver.close();
    rig.driver.close();
    expect(shared.ledger.spokenFor("GPU-1")).toBe(0);
  });
});

describe("where memory is tight", () => {
  test("the first set has a smaller top and tiers; one event tells why and what to change", () => {
    using refused = new EventLog("lazygraph:memory:refused", "tight");
    using memory = new EventLog("lazygraph:engine:memory", "tight");
    const rig = new MemoryRig({ mode: "idle", freeBytes: CLAIM + 30 * MIB });
    const start = rig.start();
    expect(start.tiers?.flat()).toHaveLength(PLANNED.length);
    expect(start.graphs).toHaveLength(2);
    expect(start.graphs).not.toContain("FULL:256");
    expect(rig.status("FULL:256")).toBe("waiting");
    const [first] = refused.all;
    expect(first).toMatchObject({ repeated: false });
    expect(first?.graphs).toContain("FULL:256");
    expect(first?.line).toMatch(/--reserve plan, or lower --gpu-memory-utilization by 0\.\d{3}$/);
    expect(memory.all[0]?.verdict).not.toBe("fits");
    expect(memory.all[0]?.advice).toMatch(/--reserve plan/);
  });

  test.for(["eager", "lazy", "idle"] as const)(
    "%s: serving's need stays free, and what fits is captured",
    async (mode) => {
      const rig = new MemoryRig({ mode, freeBytes: TIGHT });
      rig.start();
      for (const tokens of [1, 2, 3, 7, 15, 60, 200]) rig.steps(tokens, 5);
      rig.edge("idle");
      await rig.drain();
      expect(rig.freeBytes).toBeGreaterThanOrEqual(CLAIM);
      expect(rig.captured.size).toBeGreaterThan(3);
      expect(rig.count("waiting")).toBeGreaterThan(0);
      // Lazy mode asks only for what traffic wants: the rest was never refused.
      const asked = rig.count("waiting") + rig.captured.size;
      if (mode !== "lazy") expect(asked).toBe(PLANNED.length);
    },
  );

  test("nothing fits: the engine starts with nothing, and is asked again when there is room", async () => {
    using room = new EventLog("lazygraph:memory:room", "tight");
    const rig = new MemoryRig({ freeBytes: CLAIM - 50 * MIB });
    expect(rig.start().graphs).toEqual([]);
    await rig.drain();
    expect(rig.count("waiting")).toBe(PLANNED.length);
    expect(rig.driver.record.state?.settled).toBe(false);
    rig.freeBytes = PLENTY;
    rig.clock.advance(3);
    rig.heartbeat();
    expect(room.all).toHaveLength(1);
    await rig.drain();
    expect(rig.captured.size).toBe(PLANNED.length);
    expect(rig.driver.record.state?.settled).toBe(true);
  });

  test("the engine's own refusal for want of memory is asked again, later and later", async () => {
    const rig = new MemoryRig({ mode: "lazy", freeBytes: PLENTY });
    rig.start();
    rig.steps(3, 10);
    const times: number[] = [];
    for (let round = 0; round < 4; round++) {
      const command = await rig.command();
      expect(command).toMatchObject({ type: "capture", graph: "FULL:4" });
      times.push(rig.clock.now());
      await rig.answer({ outcome: "refused", refusal: "headroom", reason: "12 bytes are free" });
      expect(rig.status("FULL:4")).toBe("waiting");
      expect(await rig.command()).toBeUndefined();
      for (let second = 0; second < 40 && (await rig.command()) === undefined; second++) {
        rig.clock.advance(1);
      }
    }
    const waits = times.slice(1).map((time, index) => time - (times[index] ?? 0));
    expect(waits[0]).toBeGreaterThanOrEqual(2);
    expect(waits[2]).toBeGreaterThan(waits[0] as number);
    await rig.answer();
    expect(rig.status("FULL:4")).toBe("captured");
  });

  test("a refusal for another reason is for good", async () => {
    const rig = new MemoryRig({ mode: "lazy", freeBytes: PLENTY });
    rig.start();
    rig.steps(3, 10);
    await rig.answer({ outcome: "refused", refusal: "other", reason: "speculative decoding" });
    expect(rig.status("FULL:4")).toBe("refused");
    rig.clock.advance(3000);
    rig.heartbeat();
    expect(await rig.command()).toBeUndefined();
  });
});

describe("a stranger on the GPU", () => {
  /** Minutes in which the engine has nothing to do but what it is asked. */
  async function idleFor(rig: MemoryRig, minutes: number): Promise<void> {
    for (let minute = 0; minute < minutes; minute++) {
      rig.clock.advance(60);
      rig.heartbeat();
      rig.edge("idle");
      await rig.drain();
    }
  }

  async function filled(): Promise<MemoryRig> {
    const rig = new MemoryRig({ mode: "idle", freeBytes: TIGHT });
    rig.start();
    rig.edge("idle");
    await rig.drain();
    return rig;
  }

  test("stops captures, then costs a tier that no table names any more, and all come back", async () => {
    using dropped = new EventLog("lazygraph:memory:dropped", "tight");
    const rig = await filled();
    const before = rig.captured.size;
    rig.freeBytes -= 60 * MIB;
    rig.heartbeat();
    const drop = await rig.command();
    if (drop?.type !== "drop") throw new Error("no drop");
    // The table that came before the drop names none of its graphs.
    const at = rig.sent.indexOf(drop);
    const table = rig.sent.slice(0, at).findLast((message) => message.type === "dispatch");
    if (table?.type !== "dispatch") throw new Error("no table");
    const named = new Set([...table.uniform, ...table.mixed].flatMap((row) => row.graphs));
    for (const id of drop.graphs) expect(named.has(id)).toBe(false);
    await rig.answer();
    for (const id of drop.graphs) expect(rig.status(id)).toBe("waiting");
    for (let round = 0; round < 6; round++) {
      rig.clock.advance(2);
      rig.heartbeat();
      await rig.drain();
    }
    expect(dropped.all.length).toBeGreaterThan(0);
    expect(rig.freeBytes >= CLAIM || rig.captured.size === 0).toBe(true);
    rig.freeBytes += 60 * MIB;
    await idleFor(rig, 10);
    // Maybe others than before: the most valuable that fit.
    expect(rig.captured.size).toBeGreaterThanOrEqual(before);
    expect(rig.freeBytes).toBeGreaterThanOrEqual(CLAIM);
  });

  test("a drop that the engine refuses leaves the graphs where they are, and is tried again", async () => {
    const rig = await filled();
    const held = rig.captured.size;
    rig.freeBytes -= 60 * MIB;
    rig.heartbeat();
    const drop = await rig.answer({ outcome: "refused" });
    if (drop?.type !== "drop") throw new Error("no drop");
    expect(rig.captured.size).toBe(held);
    for (const id of drop.graphs) expect(rig.status(id)).toBe("captured");
    const table = rig.last("dispatch");
    const named = new Set([...(table?.uniform ?? [])].flatMap((row) => row.graphs));
    expect(drop.graphs.some((id) => named.has(id))).toBe(true);
    rig.clock.advance(2);
    rig.heartbeat();
    expect(await rig.command()).toMatchObject({ type: "drop" });
  });

  test("after captures had ended, they go on when there is room for what was given up", async () => {
    // Tight when it started, and then somebody left: everything is captured in the end.
    const rig = await filled();
    rig.freeBytes += 200 * MIB;
    await idleFor(rig, 3);
    expect(rig.captured.size).toBe(PLANNED.length);
    expect(rig.driver.record.state?.settled).toBe(true);
    rig.freeBytes -= 230 * MIB;
    rig.heartbeat();
    await rig.drain();
    expect(rig.captured.size).toBeLessThan(PLANNED.length);
    rig.freeBytes += 230 * MIB;
    await idleFor(rig, 5);
    expect(rig.ofType("mode")).toHaveLength(1);
    expect(rig.captured.size).toBe(PLANNED.length);
    expect(rig.driver.record.state?.settled).toBe(true);
  });

  test("a frozen engine is asked for nothing again", async () => {
    const rig = await filled();
    rig.driver.freeze("by test");
    const asked = rig.ofType("capture").length;
    rig.freeBytes = PLENTY;
    rig.clock.advance(600);
    rig.heartbeat();
    await rig.drain();
    expect(rig.ofType("capture")).toHaveLength(asked);
  });
});

describe("two engines on one GPU", () => {
  test("the second's capture waits for what the first one's may take", async () => {
    const shared = sharedMemory();
    const room = 2 * CLAIM + 60 * MIB;
    const one = new MemoryRig({ mode: "lazy", freeBytes: room, shared, name: "one" });
    const two = new MemoryRig({ mode: "lazy", freeBytes: room, shared, name: "two" }, one.clock);
    one.start();
    two.start();
    const settle = (free: number): void => {
      for (const rig of [one, two]) {
        rig.freeBytes = free;
        rig.heartbeat();
      }
    };
    settle(2 * CLAIM + 9 * MIB);
    for (const rig of [one, two]) rig.steps(7, 10);
    const first = await one.command();
    expect(first).toMatchObject({ type: "capture" });
    expect(await two.command()).toBeUndefined();
    expect(two.status("FULL:8")).toBe("waiting");
    await one.answer();
    settle(2 * CLAIM + 60 * MIB);
    two.clock.advance(10);
    two.heartbeat();
    expect(await two.command()).toMatchObject({ type: "capture", graph: "FULL:8" });
  });
});

describe("the claim of an engine that is gone", () => {
  const gone = new LazygraphError("ERR_LAZYGRAPH_ENGINE_LOST", "Gone.");

  test("ends a minute after it was lost, for others start on its GPU under other names", async () => {
    const shared = sharedMemory();
    const old = new MemoryRig({ freeBytes: PLENTY, shared, name: "pod-1" });
    old.start();
    await old.drain();
    old.driver.detach(gone);
    // It may only be out of reach, and still serve.
    old.clock.advance(59);
    expect(shared.ledger.spokenFor("GPU-1")).toBe(CLAIM);
    old.clock.advance(1);
    expect(shared.ledger.spokenFor("GPU-1")).toBe(0);
    expect(old.clock.pending).toBe(1);
    const room = CLAIM + 200 * MIB;
    const next = new MemoryRig({ freeBytes: room, shared, name: "pod-2" }, old.clock);
    expect(next.start()).not.toHaveProperty("tiers");
    next.edge("idle");
    await next.drain();
    expect(next.captured.size).toBe(PLANNED.length);
  });

  test("ends with its goodbye", () => {
    const shared = sharedMemory();
    const rig = new MemoryRig({ freeBytes: PLENTY, shared });
    rig.start();
    Object.assign(rig.driver.record, { phase: "stopping" });
    rig.driver.detach(gone);
    expect(shared.ledger.spokenFor("GPU-1")).toBe(0);
  });

  test("is there again when the engine comes back, early or late", () => {
    for (const awaySeconds of [5, 500]) {
      const shared = sharedMemory();
      const rig = new MemoryRig({ freeBytes: PLENTY, shared });
      rig.start();
      rig.driver.detach(gone);
      rig.clock.advance(awaySeconds);
      Object.assign(rig.driver.record, { connected: true });
      rig.inventory();
      expect(shared.ledger.spokenFor("GPU-1")).toBe(CLAIM);
      rig.clock.advance(500);
      expect(shared.ledger.spokenFor("GPU-1")).toBe(CLAIM);
    }
  });
});

describe("a driver of this host that doesn't answer any more", () => {
  test("holds up one capture for two seconds, and then none", async () => {
    const clock = new FakeClock();
    const stuck = new StuckGpu();
    const gpus = stuck.host(clock);
    const shared = sharedMemory({}, gpus);
    const rig = new MemoryRig({ freeBytes: PLENTY, shared, mode: "idle" }, clock);
    await gpus.follow(["GPU-1"], () => 0);
    stuck.answers = false;
    rig.start();
    rig.edge("idle");
    expect(await rig.command()).toBeUndefined();
    clock.advance(2);
    expect(await rig.command()).toMatchObject({ type: "capture" });
    await rig.drain();
    expect(rig.captured.size).toBe(PLANNED.length);
    expect(stuck.readings).toBeLessThan(4);
  });
});

test("no capture without a reservation that fits, whatever happens, in every mode and policy", async () => {
  let checked = 0;
  const step = fc.record({
    what: fc.oneof(
      { weight: 6, arbitrary: fc.constant("answer") },
      { weight: 2, arbitrary: fc.constantFrom("steps", "beat", "time") },
      { weight: 1, arbitrary: fc.constantFrom("idle", "busy", "defer", "stranger") },
    ),
    tokens: fc.integer({ min: 1, max: 256 }),
    mib: fc.integer({ min: 0, max: 400 }),
  });
  const input = fc.record({
    mode: fc.constantFrom<Mode[]>("eager", "lazy", "idle"),
    policy: fc.constantFrom<("simple" | "costed")[]>("simple", "costed"),
    room: fc.integer({ min: -100, max: 800 }),
    steps: fc.array(step, { minLength: 10, maxLength: 60, size: "max" }),
  });
  await fc.assert(
    fc.asyncProperty(input, async ({ mode, policy, room, steps }) => {
      const shared = sharedMemory();
      const rig = new MemoryRig({ mode, policy, freeBytes: CLAIM + room * MIB, shared });
      rig.start();
      await rig.command();
      let stranger = 0;
      let toldAtSeconds = 0;
      for (const { what, tokens, mib } of steps) {
        const before = rig.ofType("capture").length;
        let told = what === "beat";
        if (what === "steps") rig.steps(tokens, 5);
        else if (what === "idle" || what === "busy") rig.edge(what);
        else if (what === "answer") told = (await rig.answer()) !== undefined;
        else if (what === "defer") {
          told = (await rig.answer({ outcome: "deferred", reason: "busy" })) !== undefined;
        } else if (what === "time") rig.clock.advance(mib / 10);
        else if (what === "beat") rig.heartbeat();
        else {
          rig.freeBytes += stranger - mib * MIB;
          stranger = mib * MIB;
        }
        if (told) toldAtSeconds = rig.clock.now();
        await rig.command();
        const captures = rig.ofType("capture").slice(before);
        expect(captures.length).toBeLessThanOrEqual(1);
        for (const { needBytes = 0 } of captures) {
          expect(needBytes).toBeGreaterThan(0);
          expect(shared.ledger.reserved("GPU-1")).toBe(needBytes);
          // What it said long ago doesn't count: the engine is asked, and checks by itself.
          const old = rig.clock.now() - toldAtSeconds > 5;
          const room = rig.driver.record.guard?.headroom()?.bytes ?? 0;
          if (!old) expect(room).toBeGreaterThanOrEqual(0);
          checked++;
        }
      }
      rig.driver.close();
      expect(shared.ledger.spokenFor("GPU-1")).toBe(0);
    }),
    { seed: 11, numRuns: 150 },
  );
  // Enough of them were there to be checked.
  expect(checked).toBeGreaterThan(300);
});

import { describe, expect, test } from "vitest";
import { createController } from "../../src/controller/controller.ts";
import { EarlyArrivals } from "../../src/engine/early-arrivals.ts";
import { onEvent } from "../../src/engine/events.ts";
import type { EngineEvent, Policy } from "../../src/schedule/policy.ts";
import { EventLog } from "../helpers/events.ts";
import { joinEngine } from "../helpers/joined.ts";

describe("announcements before an engine has told its plan", () => {
  test("who should be there by now waits, the others are still to come", () => {
    const early = new EarlyArrivals();
    early.add(10, { inSeconds: 0, requests: 2 });
    early.add(11, { inSeconds: 1, requests: 3 });
    early.add(11, { inSeconds: 20, requests: 5 });
    expect(early.take(13)).toEqual([
      { inSeconds: 0, requests: 5 },
      { inSeconds: 18, requests: 5 },
    ]);
    expect(early.take(14)).toEqual([]);
  });

  test("nothing is forgotten but the furthest of very many times", () => {
    const early = new EarlyArrivals();
    for (let i = 0; i < 100; i++) early.add(0, { inSeconds: 0, requests: 1 });
    for (let i = 0; i < 20; i++) early.add(0, { inSeconds: 20 - i, requests: 1 });
    const [waiting, ...later] = early.take(0);
    expect(waiting).toEqual({ inSeconds: 0, requests: 100 });
    expect(later.map(({ inSeconds }) => inSeconds)).toEqual(
      Array.from({ length: 16 }, (_, i) => i + 1),
    );
  });

  test("reach the policy before it chooses what comes before ready", async () => {
    const events: EngineEvent[] = [];
    const policy: Policy = {
      name: "listening",
      decide: (_, event) => {
        events.push(event);
        return event.type === "inventory" ? [{ type: "start", graphs: [], reason: "none" }] : [];
      },
    };
    using joins = new EventLog("lazygraph:engine:join");
    await using controller = createController({ heartbeatMs: 50, policy: () => policy });
    // Whoever hears of an engine can tell it at once who waits.
    const stop = onEvent("lazygraph:engine:join", ({ engine }) => {
      controller.announce(engine, { inSeconds: 0, requests: 7 });
    });
    await controller.start();
    await using engine = await joinEngine(controller);
    await joins.first();
    await engine.got("start");
    stop();
    const heard = events.map(({ type }) => type);
    expect(heard.indexOf("announce")).toBe(0);
    expect(heard.indexOf("inventory")).toBe(1);
    expect(events[0]).toMatchObject({ type: "announce", inSeconds: 0, requests: 7 });
    // Asleep it hears nothing, nor is anything forgotten.
    engine.inventory({ asleep: ["weights"] });
    await expect.poll(() => controller.engines()[0]?.asleep).toEqual(["weights"]);
    controller.announce("engine-0", { inSeconds: 600, requests: 3 });
    engine.inventory({ asleep: ["weights"] });
    engine.inventory();
    const announced = () => events.filter(({ type }) => type === "announce");
    await expect.poll(() => announced()[1]).toMatchObject({ requests: 3 });
    // Nor with the policy of another mode; who has come by then is expected no more.
    controller.announce("engine-0", { inSeconds: 0, requests: 1_000_000 });
    engine.send({ type: "edge", state: "busy", running: 1_000_000, waiting: 7 });
    await expect.poll(() => events.at(-1)?.type).toBe("busy");
    const before = announced().length;
    controller.setMode("engine-0", "lazy");
    expect(announced().slice(before)).toMatchObject([{ requests: 3 }]);
  });
});

import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { LiveEngine, type LiveEngineOptions, type LiveEvent } from "../../src/sim/live/live.ts";
import type { ToEngine } from "../../src/wire/protocol.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { HandController } from "./hand-controller.ts";
import { type Change, set, tinyProfile } from "./helpers.ts";

const welcome: ToEngine = {
  type: "welcome",
  version: 1,
  incarnation: 100,
  heartbeatMs: 60_000,
  mode: "lazy",
};

let endpoint: string;
let controller: HandController;
let engine: LiveEngine | undefined;
let events: LiveEvent[];

beforeEach(async () => {
  endpoint = `ipc://${join(await temporaryFolder(), "controller")}`;
  controller = new HandController();
  events = [];
  await controller.socket.bind(endpoint);
});

afterEach(async () => {
  await engine?.close();
  engine = undefined;
  controller.socket.close();
});

/** Loads within 10 ms; the tiny profile's seconds are hundredths. */
function start(options: Partial<LiveEngineOptions> = {}, change: Change = () => {}): void {
  const profile = tinyProfile((document) => {
    set(document, "startupSeconds", 1);
    change(document);
  });
  engine = new LiveEngine({
    profile,
    endpoint,
    engine: "tiny",
    speed: 100,
    handshakeMs: 60_000,
    onEvent: (event) => void events.push(event),
    ...options,
  });
  engine.start();
}

async function serving(): Promise<void> {
  await controller.next("hello");
  await controller.send(welcome);
  await controller.next("inventory");
  await controller.send({ type: "start", graphs: ["PIECEWISE:4", "FULL:4"] });
  await controller.next("ready");
}

describe("the engine's side of the protocol", () => {
  test("hello, inventory, start, ready, in this order", async () => {
    start({ mode: "eager" });
    const hello = await controller.next("hello");
    expect(hello).toMatchObject({
      versionMin: 1,
      versionMax: 2,
      engine: "tiny",
      phase: "loading",
      mode: "eager",
      simulated: "tiny",
      pid: process.pid,
    });
    await controller.send(welcome);
    const inventory = await controller.next("inventory");
    expect(inventory.phase).toBe("capturing");
    expect(inventory.graphs.map((graph) => graph.id)).toEqual([
      "PIECEWISE:4",
      "PIECEWISE:1",
      "FULL:4",
      "FULL:1",
    ]);
    expect(inventory).toMatchObject({ captured: [], epoch: 0, kvCacheTokens: 64 });
    expect(inventory.ranks).toMatchObject([{ rank: 0, freeBytes: 100, poolBytes: 0 }]);
    await controller.send({ type: "start", graphs: ["PIECEWISE:4", "FULL:4"] });
    const ready = await controller.next("ready");
    expect(ready.captured.map(({ graph }) => graph)).toEqual(["PIECEWISE:4", "FULL:4"]);
    expect(ready).toMatchObject({ captureSeconds: 4, epoch: 2 });
    expect(ready.ranks).toMatchObject([{ freeBytes: 40, poolBytes: 60 }]);
    expect(await controller.next("edge")).toMatchObject({ state: "idle", running: 0 });
    expect(controller.seen.map(({ type }) => type)).toEqual([
      "hello",
      "inventory",
      "ready",
      "edge",
    ]);
    expect(engine?.mode).toBe("lazy");
  });

  test("a command is carried out once and answered as often as it is asked", async () => {
    start();
    await serving();
    const capture: ToEngine = { type: "capture", command: 5, graph: "FULL:1", whenIdle: false };
    await controller.send(capture, capture);
    const result = await controller.next("result");
    expect(result).toMatchObject({ command: 5, graph: "FULL:1", outcome: "captured", ms: 2000 });
    expect(result).toMatchObject({ stallMs: 2000, bytes: 10, epoch: 3 });
    await controller.send(capture);
    expect(await controller.next("result")).toEqual(result);
    expect(events.filter(({ type }) => type === "capture")).toHaveLength(1);
  });

  test("a graph it doesn't have is a problem and a refusal", async () => {
    start();
    await serving();
    await controller.send({ type: "capture", command: 1, graph: "FULL:3", whenIdle: false });
    expect(await controller.next("problem")).toMatchObject({
      code: "ERR_LAZYGRAPH_UNKNOWN_GRAPH",
      message: expect.stringContaining("FULL:3"),
    });
    expect(await controller.next("result")).toMatchObject({ command: 1, outcome: "refused" });
  });

  test("freeze refuses captures until the mode changes; resync tells what is there", async () => {
    start();
    await serving();
    const capture = (command: number): ToEngine => ({
      type: "capture",
      command,
      graph: "FULL:1",
      whenIdle: true,
    });
    await controller.send({ type: "freeze", reason: "settled" }, capture(1));
    expect(await controller.next("result")).toMatchObject({
      outcome: "refused",
      reason: "Captures are frozen: settled",
    });
    await controller.send({ type: "freeze", reason: "x".repeat(2048) }, capture(3));
    expect(await controller.next("result")).toMatchObject({ command: 3, outcome: "refused" });
    await controller.send({ type: "mode", mode: "idle" }, capture(2));
    expect(await controller.next("result")).toMatchObject({ outcome: "captured" });
    await controller.send({ type: "resync" });
    const inventory = await controller.next("inventory");
    expect(inventory).toMatchObject({ phase: "serving", epoch: 3 });
    expect(inventory.captured).toHaveLength(3);
  });

  test("steps are told in batches with their shapes, graphs and seconds", async () => {
    const requests = [{ atSeconds: 0, promptTokens: 2, outputTokens: 3 }];
    start({ requests });
    await controller.next("hello");
    await controller.send(welcome);
    await controller.next("inventory");
    await controller.send(
      {
        type: "dispatch",
        uniform: [{ upTo: 4, graphs: ["FULL:1", "FULL:4"] }],
        mixed: [{ upTo: 4, graphs: ["PIECEWISE:4"] }],
      },
      { type: "start", graphs: ["PIECEWISE:4", "FULL:4"] },
    );
    const { steps, sequence, dropped } = await controller.next("telemetry");
    expect({ sequence, dropped }).toEqual({ sequence: 0, dropped: 0 });
    const counted = [...steps];
    while (counted.reduce((sum, step) => sum + step.count, 0) < 3) {
      counted.push(...(await controller.next("telemetry")).steps);
    }
    const mixed = counted.filter((step) => step.uniform === 0);
    const uniform = counted.filter((step) => step.uniform === 1);
    expect(mixed).toMatchObject([{ tokens: 2, requests: 1, served: "PIECEWISE:4", count: 1 }]);
    expect(mixed).toMatchObject([{ seconds: 5, timed: 1, contextTokens: 2 }]);
    expect(new Set(uniform.map((step) => step.served))).toEqual(new Set(["FULL:4"]));
    expect(uniform.reduce((sum, step) => sum + step.seconds, 0)).toBe(8);
    const edges = controller.seen.filter((message) => message.type === "edge");
    expect(edges.map((edge) => edge.state)).toEqual(["busy", "idle"]);
  });

  test("a controller older than the one it had is not listened to", async () => {
    start();
    await serving();
    await controller.send({ ...welcome, incarnation: 99, mode: "eager" } as ToEngine);
    await controller.send({ type: "resync" });
    await controller.next("inventory");
    expect(engine?.mode).toBe("lazy");
    await controller.send({ ...welcome, incarnation: 101, mode: "eager" } as ToEngine);
    await controller.next("inventory");
    expect(engine?.mode).toBe("eager");
  });

  test("refused, it goes on by itself and doesn't ask again", async () => {
    start({ mode: "idle" });
    await controller.next("hello");
    await controller.send({
      type: "refuse",
      code: "ERR_LAZYGRAPH_PROTOCOL_VERSION",
      message: "no",
    });
    await engine?.close();
    expect(controller.seen.map(({ type }) => type)).toEqual(["hello"]);
  });

  test("frames that are no message change nothing", async () => {
    start();
    await serving();
    const frames = [Buffer.from([0xc1]), Buffer.from("81a474797065a46e6f7065", "hex")];
    for (const frame of frames) await controller.socket.send([controller.peer, frame]);
    await controller.send({ type: "resync" });
    expect((await controller.next("inventory")).captured).toHaveLength(2);
  });

  test("says goodbye with its last steps before it", async () => {
    start({ requests: [{ atSeconds: 0, promptTokens: 1, outputTokens: 1 }] });
    await serving();
    await controller.next("edge");
    await engine?.close("enough");
    expect(await controller.next("goodbye")).toEqual({ type: "goodbye", reason: "enough" });
  });

  test("silent for five heartbeats, the controller counts as gone and is asked anew", async () => {
    start({ mode: "idle" });
    await controller.next("hello");
    await controller.send({ ...welcome, heartbeatMs: 20, mode: "idle" } as ToEngine);
    expect((await controller.next("heartbeat")).type).toBe("heartbeat");
    const again = await controller.next("hello");
    expect(again.session).toBe(engine?.session);
  });
});

describe("memory on the wire", () => {
  test("what the welcome wants reserved is in the inventory", async () => {
    // Loads until the welcome has come, however busy the processor.
    start({}, (document) => set(document, "startupSeconds", 200));
    await controller.next("hello");
    await controller.send({ ...welcome, reserve: "plan", reserveBytes: 28 } as ToEngine);
    const inventory = await controller.next("inventory");
    expect(inventory.reserve).toEqual({ mode: "plan", bytes: 28, kvTokens: 2 });
    expect(inventory.kvCacheTokens).toBe(62);
    expect(inventory.ranks).toMatchObject([{ freeBytes: 128, activationHeldBytes: 0 }]);
  });

  test("a drop is carried out once, answered as often as asked, and told in the inventory", async () => {
    start();
    await controller.next("hello");
    await controller.send(welcome);
    await controller.next("inventory");
    const graphs = ["PIECEWISE:4", "FULL:4"];
    await controller.send({ type: "start", graphs, tiers: [graphs, ["FULL:1"]] });
    await controller.next("ready");
    const drop: ToEngine = { type: "drop", command: 7, graphs };
    await controller.send(drop, drop);
    const dropped = await controller.next("dropped");
    expect(dropped).toMatchObject({ command: 7, outcome: "dropped", freedBytes: 60, epoch: 4 });
    expect(dropped.ranks).toMatchObject([{ freeBytes: 100, poolBytes: 0 }]);
    await controller.send(drop, { type: "resync" });
    expect(await controller.next("dropped")).toEqual(dropped);
    expect(await controller.next("inventory")).toMatchObject({
      captured: [],
      tiers: [graphs, ["FULL:1"]],
    });
    expect(events.filter(({ type }) => type === "drop")).toHaveLength(1);
  });

  test.for([
    ["nothing is excluded", {}, ["FULL:1", "FULL:4", "PIECEWISE:1", "PIECEWISE:4"]],
    ["a graph is excluded", { exclude: ["FULL:1"] }, ["FULL:4", "PIECEWISE:1", "PIECEWISE:4"]],
    ["there may be no more", { graphsMax: 2 }, ["FULL:4", "PIECEWISE:4"]],
  ] as const)(
    "without its controller it fills as its start allows: %s",
    async ([, rules, held]) => {
      start();
      await controller.next("hello");
      await controller.send({ ...welcome, mode: "idle" });
      await controller.next("inventory");
      await controller.send({ type: "start", graphs: ["PIECEWISE:4", "FULL:4"], ...rules });
      await controller.next("ready");
      await controller.send({ type: "refuse", code: "ERR_TEST", message: "gone" });
      await expect.poll(() => engine?.connected).toBe(false);
      // After each it is idle, and captures one more if it may.
      for (let request = 0; request < 4; request++) {
        await new Promise<void>((done) => engine?.submit(1, 1, (left) => left === 0 && done()));
      }
      expect([...(engine?.model.captured.keys() ?? [])].sort()).toEqual(held);
    },
  );

  test("a start that comes too late still says what it must leave", async () => {
    start({ handshakeMs: 0, mode: "lazy" });
    await controller.next("hello");
    await expect.poll(() => engine?.model.phase).toBe("serving");
    await controller.send(welcome);
    await controller.next("ready");
    await controller.send(
      { type: "start", graphs: [], exclude: ["FULL:1", "PIECEWISE:1"] },
      { type: "mode", mode: "idle" },
      { type: "refuse", code: "ERR_TEST", message: "gone" },
    );
    await expect.poll(() => engine?.connected).toBe(false);
    for (let request = 0; request < 3; request++) {
      await new Promise<void>((done) => engine?.submit(1, 1, (left) => left === 0 && done()));
    }
    expect([...(engine?.model.captured.keys() ?? [])].sort()).toEqual(["FULL:4", "PIECEWISE:4"]);
  });

  test("a stranger on its GPU makes it refuse for headroom, until the stranger goes", async () => {
    start();
    await serving();
    const capture = (command: number): ToEngine => {
      return { type: "capture", command, graph: "FULL:1", whenIdle: false, needBytes: 12 };
    };
    engine?.setStrangerBytes(30);
    await controller.send(capture(8));
    expect(await controller.next("result")).toMatchObject({
      outcome: "refused",
      refusal: "headroom",
      ranks: [{ freeBytes: 10 }],
    });
    engine?.setStrangerBytes(0);
    await controller.send(capture(9));
    expect(await controller.next("result")).toMatchObject({ outcome: "captured", bytes: 10 });
  });

  test("out of memory in a step: it says why it goes, and ends", async () => {
    start({ requests: [{ atSeconds: 30, promptTokens: 8, outputTokens: 1 }] }, (document) =>
      set(document, "memory.activationPeakBytes", 60),
    );
    await serving();
    expect((await controller.next("goodbye")).reason).toMatch(/ran out of GPU memory/);
    await engine?.closed;
    expect(events.at(-1)?.type).not.toBe("drained");
    expect(events.some(({ type }) => type === "outOfMemory")).toBe(true);
  });
});

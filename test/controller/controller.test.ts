import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { createController, createControllerOn } from "../../src/controller/controller.ts";
import { systemGround } from "../../src/controller/ground.ts";
import { EngineRegistry } from "../../src/controller/registry.ts";
import type { WaitOptions } from "../../src/controller/waiters.ts";
import { onEvent, type ProblemEvent } from "../../src/engine/events.ts";
import type { Policy } from "../../src/schedule/policy.ts";
import type { Capture } from "../../src/wire/protocol.ts";
import { EventLog } from "../helpers/events.ts";
import { FakeEngine, plan } from "../helpers/fake-engine.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { joinEngine, startController } from "../helpers/joined.ts";

let folder: string;

beforeEach(async () => {
  folder = await temporaryFolder();
});

function endpointOf(transport: "tcp" | "ipc"): string {
  return transport === "tcp" ? "tcp://127.0.0.1:0" : `ipc://${folder}/c.sock`;
}

describe.for(["tcp", "ipc"] as const)("over %s", (transport) => {
  test("an idle engine joins, starts with the tops, is filled and settles", async () => {
    using joins = new EventLog("lazygraph:engine:join", "engine-0");
    using memory = new EventLog("lazygraph:engine:memory", "engine-0");
    await using controller = await startController({
      endpoint: endpointOf(transport),
      heartbeatMs: 50,
    });
    expect(controller.endpoint).not.toMatch(/:0$/);
    await using engine = await joinEngine(controller);
    const joined = await controller.waitForEngine();
    expect(joined).toMatchObject({ engine: "engine-0", model: "fake/model", connected: true });

    const settled = await controller.waitForEngine({ phase: "serving", settled: true });
    expect(engine.ofType("start")).toEqual([{ type: "start", graphs: ["PIECEWISE:8", "FULL:8"] }]);
    expect(settled).toMatchObject({
      mode: "idle",
      graphsPlanned: 8,
      graphsCaptured: 8,
      captureBeforeReadySeconds: 0.25,
      longestCaptureMs: 1.5,
      longestStallMs: 2.5,
      takenBytes: 8_000_000,
    });
    expect(settled.readyToSettledSeconds).toBeGreaterThan(0);
    expect([...engine.captured.keys()].sort()).toEqual(engine.graphs.map((g) => g.id).sort());
    // Six of eight were captured after ready, one command each, with rising ids.
    const commands = engine.ofType("capture");
    expect(commands.map((c) => c.command)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(new Set(commands.map((c) => c.graph)).size).toBe(6);
    await engine.got("freeze");
    expect(joins.all).toHaveLength(1);
    // Each was reserved: a PIECEWISE one of 33 pieces takes more than a FULL one of 32 layers.
    const need = (kind: string): number =>
      commands.find((command) => command.graph.startsWith(kind))?.needBytes ?? 0;
    expect(need("FULL:")).toBeGreaterThan(1e6);
    expect(need("PIECEWISE:")).toBeGreaterThan(need("FULL:"));
    expect(await memory.first()).toMatchObject({ verdict: "fits", forecast: { graphs: 6 } });
    expect(settled.memoryLine).toMatch(
      /^engine-0: 2 graphs took 1\.9 MiB; the other 6 will take about [\d.]+ MiB ± [\d.]+ MiB( \(provisional\))?; 9536\.7 MiB are free, 256\.0 MiB of it for serving: they fit$/,
    );
  });

  test("an engine that goes silent is lost, and its capture fails with a code", async () => {
    using lost = new EventLog("lazygraph:engine:lost");
    using failed = new EventLog("lazygraph:capture:failed");
    await using controller = await startController({
      endpoint: endpointOf(transport),
      heartbeatMs: 20,
    });
    await using engine = await joinEngine(controller, { onCapture: () => undefined });
    await engine.got("capture");
    engine.disconnect();
    expect(await lost.first()).toMatchObject({
      engine: "engine-0",
      code: "ERR_LAZYGRAPH_ENGINE_LOST",
    });
    expect(await failed.first()).toMatchObject({ code: "ERR_LAZYGRAPH_ENGINE_LOST" });
    const [snapshot] = controller.engines();
    expect(snapshot).toMatchObject({ connected: false, capturing: undefined, graphsFailed: 0 });
    expect(snapshot?.lostReason).toMatch(/^Nothing can be sent to the engine: |engine-0/);
  });

  test("a controller restarted in mid-fill loses no graph, and the fill goes on", async () => {
    const endpoint = endpointOf(transport);
    const first = await startController({ endpoint, heartbeatMs: 20 });
    const bound = first.endpoint;
    // The third command is swallowed: it is under way when the controller dies.
    let commands = 0;
    await using engine = new FakeEngine({
      graphs: plan(1, 2, 4, 8, 16, 32),
      onCapture: () => {
        commands += 1;
        return commands === 3 ? undefined : {};
      },
    });
    await engine.connect(bound);
    const interrupted = await engine.got("capture", 3);
    await first.close();
    const held = new Map(engine.captured);
    expect(held.size).toBe(4);
    // The engine finishes what was asked of it, with nobody there to hear.
    engine.result(interrupted);

    await using second = await startController({ endpoint: bound, heartbeatMs: 20 });
    const settled = await second.waitForEngine({ settled: true });
    expect(settled).toMatchObject({
      session: engine.hello.session,
      graphsCaptured: 12,
      graphsPlanned: 12,
      captureBeforeReadySeconds: undefined,
    });
    for (const graph of held.keys()) expect(engine.captured.has(graph)).toBe(true);
    // No graph was asked for twice, and no second start was sent.
    const asked = engine.ofType("capture").map((c) => c.graph);
    expect(new Set(asked).size).toBe(asked.length);
    expect(engine.ofType("start")).toHaveLength(1);
    const [welcome, ...later] = engine.ofType("welcome");
    for (const next of later)
      expect(next.incarnation).toBeGreaterThanOrEqual(welcome?.incarnation ?? 0);
  });

  test("an engine that reconnects owns the truth about what is captured", async () => {
    using lost = new EventLog("lazygraph:engine:lost");
    using joins = new EventLog("lazygraph:engine:join");
    await using controller = await startController({
      endpoint: endpointOf(transport),
      heartbeatMs: 20,
    });
    let silent = true;
    await using engine = await joinEngine(controller, {
      onCapture: () => (silent ? undefined : {}),
    });
    const open = await engine.got("capture");
    engine.disconnect();
    await lost.first();
    // While away it captured the open command's graph and dropped a top one.
    engine.capture(open.graph);
    engine.captured.delete("FULL:8");
    silent = false;
    await engine.connect(controller.endpoint);
    const settled = await controller.waitForEngine({ settled: true });
    expect(settled).toMatchObject({ graphsCaptured: 8, session: engine.hello.session });
    expect(joins.all.map((event) => event.reconnected)).toEqual([false, true]);
    const asked = engine.ofType("capture").map((c) => c.graph);
    expect(asked).toContain("FULL:8");
    expect(asked.filter((graph) => graph === open.graph)).toHaveLength(1);
    const ids = engine.ofType("capture").map((c) => c.command);
    expect(ids).toEqual([...ids].sort((a, b) => a - b));
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("an occupied endpoint ends in one sentence and a code", async () => {
    await using first = await startController({ endpoint: endpointOf(transport) });
    await using second = createController({ endpoint: first.endpoint });
    await expect(second.start()).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ADDRESS_IN_USE",
      message: expect.stringMatching(/^Expected .+ to be free, but another process listens there/),
    });
    await using _engine = await joinEngine(first);
    await first.waitForEngine();
    await first.close();
    await second.start();
    expect(second.endpoint).toBe(first.endpoint);
  });
});

describe("an engine learns what to leave without its controller", () => {
  const rules = { plan: false, exclude: ["PIECEWISE", "8"], graphsMax: 2 } as const;
  const told = {
    exclude: ["PIECEWISE:8", "PIECEWISE:4", "PIECEWISE:2", "PIECEWISE:1", "FULL:8"],
    graphsMax: 2,
  };

  test("with its start", async () => {
    await using controller = await startController({ endpoint: endpointOf("ipc"), ...rules });
    await using engine = await joinEngine(controller);
    expect(await engine.got("start")).toEqual({ type: "start", graphs: ["FULL:4"], ...told });
    await controller.waitForEngine({ settled: true });
    expect([...engine.captured.keys()]).toEqual(["FULL:4", "FULL:2"]);
    expect(engine.ofType("start")).toHaveLength(1);
  });

  test("when it serves already, and after each return", async () => {
    await using controller = await startController({ endpoint: endpointOf("ipc"), ...rules });
    await using engine = new FakeEngine();
    engine.phase = "serving";
    await engine.connect(controller.endpoint);
    const late = { type: "start", graphs: [], ...told };
    expect(await engine.got("start")).toEqual(late);
    engine.disconnect();
    await engine.connect(controller.endpoint);
    expect(await engine.got("start", 2)).toEqual(late);
  });
});

describe("versions", () => {
  test.for([
    ["too old", 0, 0, /upgrade lazygraph-vllm, the plugin/],
    ["too new", 3, 9, /got versions 3 to 9: upgrade lazygraph, the controller/],
  ] as const)(
    "%s: refused with the side to upgrade",
    async ([, versionMin, versionMax, sentence]) => {
      using problems = new EventLog("lazygraph:problem");
      await using controller = await startController({ heartbeatMs: 20 });
      await using engine = await joinEngine(controller, { hello: { versionMin, versionMax } });
      const refuse = await engine.got("refuse");
      expect(refuse.code).toBe("ERR_LAZYGRAPH_PROTOCOL_VERSION");
      expect(refuse.message).toMatch(sentence);
      expect(await problems.first()).toMatchObject({ code: refuse.code, message: refuse.message });
      expect(controller.engines()).toEqual([]);
    },
  );

  test("a range around ours is welcomed with ours", async () => {
    await using controller = await startController();
    await using engine = await joinEngine(controller, { hello: { versionMin: 0, versionMax: 7 } });
    expect(await engine.got("welcome")).toMatchObject({ version: 2, mode: "idle" });
  });
});

describe("what an engine gets wrong", () => {
  test("what it gets wrong with every frame is told 64 times a minute, and counted", async () => {
    using problems = new EventLog("lazygraph:problem");
    await using controller = await startController();
    await using engine = await joinEngine(controller);
    await controller.waitForEngine({ phase: "serving" });
    for (let count = 0; count < 100; count++) engine.steps(3, 5, `FULL:${9000 + count}`);
    await expect
      .poll(() => controller.engines()[0])
      .toMatchObject({ problems: { unknownGraphs: 100 } });
    expect(problems.all).toHaveLength(64);
  });

  test("an unknown graph is counted, reported and answered with resync", async () => {
    using problems = new EventLog("lazygraph:problem");
    await using controller = await startController({ heartbeatMs: 50, mode: "lazy" });
    await using engine = await joinEngine(controller);
    await controller.waitForEngine({ phase: "serving" });
    engine.steps(3, 5, "FULL:9999");
    await engine.got("resync");
    expect(await problems.first()).toMatchObject({
      code: "ERR_LAZYGRAPH_UNKNOWN_GRAPH",
      message: expect.stringMatching(/FULL:9999: asked for a fresh inventory/),
    });
    engine.result({ type: "capture", command: 77, graph: "FULL:4242", whenIdle: false });
    await problems.first((event) => event.message.includes("FULL:4242"));
    // Two within a second bring one resync.
    expect(engine.ofType("resync")).toHaveLength(1);
    expect(controller.engines()[0]).toMatchObject({
      connected: true,
      problems: { unknownGraphs: 2 },
    });
  });

  test("an inventory that has captured what it can't capture is taken without it", async () => {
    using problems = new EventLog("lazygraph:problem");
    await using controller = await startController({ heartbeatMs: 50 });
    await using engine = new FakeEngine();
    engine.captured.set("FULL:777", { graph: "FULL:777", ms: 1, bytes: 1 });
    await engine.connect(controller.endpoint);
    const settled = await controller.waitForEngine({ settled: true });
    expect(settled.graphsCaptured).toBe(8);
    expect((await problems.first()).message).toMatch(/FULL:777: left them out/);
  });

  test("malformed frames and unknown messages are counted and dropped", async () => {
    using problems = new EventLog("lazygraph:problem");
    await using controller = await startController({ heartbeatMs: 50, mode: "lazy" });
    await using engine = await joinEngine(controller);
    await controller.waitForEngine({ phase: "serving" });
    const frames = ["", "c1", "81a474797065a3", "d4720100", "81a474797065a4656467" + "65"];
    for (const hex of frames) engine.sendFrame(Buffer.from(hex, "hex"));
    engine.sendFrame([Buffer.from("one"), Buffer.from("two")]);
    engine.sendFrame(Buffer.from("81a474797065a96365" + "6c656272617465", "hex"));
    engine.send({ type: "problem", code: "ERR_X", message: "last" });
    await problems.first((event) => event.code === "ERR_X");
    expect(controller.engines()[0]).toMatchObject({
      connected: true,
      problems: { malformed: 6, unknownTypes: 1, reported: 1 },
    });
    // Counted each, told once.
    expect(problems.all.map(({ code }) => code)).toEqual(["ERR_LAZYGRAPH_PROTOCOL_FRAME", "ERR_X"]);
  });

  test("a flood is cut, and another engine is served meanwhile", async () => {
    using problems = new EventLog("lazygraph:problem");
    await using controller = await startController({ heartbeatMs: 100 });
    await using flooder = await joinEngine(controller, { name: "flooder" });
    await controller.waitForEngine({ engine: "flooder", settled: true });
    let flooding = true;
    const flood = (async () => {
      while (flooding) {
        for (let sent = 0; sent < 200; sent += 1) flooder.steps(1, 1, "FULL:1");
        await flooder.flushed();
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    await using calm = new FakeEngine({ name: "calm" });
    let cut: ProblemEvent;
    try {
      await calm.connect(controller.endpoint);
      const settled = await controller.waitForEngine({ engine: "calm", settled: true });
      expect(settled.graphsCaptured).toBe(8);
      cut = await problems.first((event) => event.code === "ERR_LAZYGRAPH_ENGINE_FLOOD");
    } finally {
      flooding = false;
      await flood;
    }
    expect(cut.engine).toBe("flooder");
    const flooded = controller.engines().find((engine) => engine.engine === "flooder");
    expect(flooded?.problems.flooded).toBeGreaterThan(0);
  });

  test("rare heartbeats end no capture early", async () => {
    const began = systemClock.now();
    const clock = { ...systemClock, now: () => systemClock.now() - began };
    const options = { heartbeatMs: 600_000, captureTimeoutMs: 5_000, plan: false } as const;
    await using controller = createControllerOn({ ...systemGround, clock }, options);
    await controller.start();
    const onCapture = (command: Capture, from: FakeEngine): undefined => {
      setTimeout(() => from.result(command), 20);
    };
    await using _engine = await joinEngine(controller, { onCapture });
    const settled = await controller.waitForEngine({ settled: true });
    expect(settled).toMatchObject({ graphsCaptured: 8, graphsFailed: 0 });
  });

  test("a capture without an answer times out, is not tried again, and the rest goes on", async () => {
    using failed = new EventLog("lazygraph:capture:failed");
    await using controller = await startController({
      heartbeatMs: 1000,
      captureTimeoutMs: 1000,
      plan: false,
    });
    await using engine = await joinEngine(controller, {
      onCapture: (command) => (command.graph === "FULL:4" ? undefined : {}),
    });
    const settled = await controller.waitForEngine({ settled: true });
    expect(await failed.first()).toMatchObject({
      graph: "FULL:4",
      code: "ERR_LAZYGRAPH_ENGINE_TIMEOUT",
      reason: expect.stringMatching(/within 1000 ms, got no answer/),
    });
    expect(settled).toMatchObject({ graphsCaptured: 7, graphsFailed: 1 });
    expect(engine.ofType("capture").filter((c) => c.graph === "FULL:4")).toHaveLength(1);
  });

  test("refused and failed graphs end with the engine's reason; deferred ones come again", async () => {
    const deferred = new Set<string>();
    await using controller = await startController({ heartbeatMs: 50, plan: false });
    await using engine = await joinEngine(controller, {
      onCapture(command, self) {
        if (command.graph === "FULL:1") return { outcome: "refused", reason: "12 MiB short" };
        if (command.graph === "FULL:2") return { outcome: "failed", reason: "rank 1 fell over" };
        if (command.graph === "FULL:4" && !deferred.has(command.graph)) {
          deferred.add(command.graph);
          self.result(command, { outcome: "deferred", reason: "a request came first" });
          self.edge("busy");
          self.edge("idle");
          return undefined;
        }
        return {};
      },
    });
    const settled = await controller.waitForEngine({ settled: true });
    const byId = new Map(settled.graphs.map((graph) => [graph.id, graph]));
    expect(byId.get("FULL:1")).toMatchObject({ status: "refused", reason: "12 MiB short" });
    expect(byId.get("FULL:2")).toMatchObject({ status: "failed", reason: "rank 1 fell over" });
    expect(byId.get("FULL:4")).toMatchObject({ status: "captured" });
    expect(engine.ofType("capture").filter((c) => c.graph === "FULL:4")).toHaveLength(2);
    // Another mode asks again for what was refused, not failed.
    controller.setMode("engine-0", "lazy");
    await engine.got("mode");
    controller.setMode("engine-0", "idle");
    await engine.got("mode", 2);
    const asked = (): number => engine.ofType("capture").filter((c) => c.graph === "FULL:1").length;
    await expect.poll(asked).toBe(2);
    await controller.waitForEngine({ settled: true });
    expect(engine.ofType("capture").filter((c) => c.graph === "FULL:2")).toHaveLength(1);
  });
});

describe("modes", () => {
  test("eager captures all before ready and nothing after", async () => {
    await using controller = await startController({ mode: "eager", heartbeatMs: 50 });
    await using engine = await joinEngine(controller);
    const settled = await controller.waitForEngine({ settled: true });
    expect(engine.ofType("start")[0]?.graphs).toEqual(engine.graphs.map((graph) => graph.id));
    expect(settled.graphsCaptured).toBe(8);
    expect(engine.ofType("capture")).toEqual([]);
  });

  test("lazy captures what three steps wanted, and pushes the table that names it", async () => {
    using ends = new EventLog("lazygraph:capture:end");
    await using controller = await startController({
      mode: "lazy",
      policy: "simple",
      heartbeatMs: 50,
    });
    await using engine = await joinEngine(controller);
    await controller.waitForEngine({ phase: "serving" });
    engine.steps(2, 2);
    engine.steps(3, 3);
    const capture = await engine.got("capture");
    expect(capture).toMatchObject({ graph: "FULL:4", whenIdle: false });
    await ends.first();
    const before = engine.ofType("dispatch").length;
    engine.steps(1, 1);
    engine.steps(2, 1);
    await engine.got("capture", 2);
    const tables = engine.ofType("dispatch");
    expect(tables.length).toBeGreaterThanOrEqual(before);
    expect(tables.at(-1)?.uniform.find((row) => row.upTo >= 3)?.graphs[0]).toBe("FULL:4");
    // A mixed step never takes a uniform graph.
    for (const row of tables.at(-1)?.mixed ?? []) {
      for (const graph of row.graphs) expect(graph).toMatch(/^PIECEWISE/);
    }
    expect(controller.engines()[0]).toMatchObject({ settled: false, stepsUngraphed: 7 });
  });

  test("of many orders at once the last count", async () => {
    await using controller = await startController({ plan: false });
    await using engine = await joinEngine(controller);
    await controller.waitForEngine();
    for (let n = 0; n < 300; n++) {
      controller.setMode("engine-0", "lazy");
      controller.freeze("engine-0", `${n}`);
    }
    await expect.poll(() => engine.ofType("freeze").at(-1)?.reason).toBe("299");
  });

  test("freeze ends captures, a new mode resumes them", async () => {
    await using controller = await startController({ mode: "lazy", heartbeatMs: 50, plan: false });
    await using engine = await joinEngine(controller);
    await controller.waitForEngine({ phase: "serving" });
    controller.freeze("engine-0", "by hand");
    expect(await engine.got("freeze")).toMatchObject({ reason: "by hand" });
    expect(controller.engines()[0]).toMatchObject({ frozen: true, settled: true });
    expect(engine.ofType("capture")).toEqual([]);
    controller.setMode("engine-0", "idle");
    expect(await engine.got("mode")).toMatchObject({ mode: "idle" });
    const settled = await controller.waitForEngine({ settled: true });
    expect(settled).toMatchObject({ graphsCaptured: 8, mode: "idle", frozen: false });
    engine.disconnect();
    using lost = new EventLog("lazygraph:engine:lost", "engine-0");
    await lost.first();
    const away = { code: "ERR_LAZYGRAPH_ENGINE_LOST", message: /engine-0 to be connected/ };
    for (const act of [
      () => controller.setMode("engine-0", "lazy"),
      () => controller.freeze("engine-0"),
    ]) {
      expect(act).toThrow(
        expect.objectContaining({ code: away.code, message: expect.stringMatching(away.message) }),
      );
    }
    expect(controller.engines()[0]).toMatchObject({ mode: "idle", frozen: false });
    expect(() => controller.freeze("nobody")).toThrow(
      expect.objectContaining({ code: "ERR_LAZYGRAPH_ENGINE_UNKNOWN" }),
    );
    expect(() => controller.setMode("engine-0", "sometimes" as "idle")).toThrow(
      /Expected mode to be one of eager, lazy, idle, got "sometimes"/,
    );
  });

  test("settleWithinSeconds freezes an engine that traffic leaves unfilled", async () => {
    await using controller = await startController({
      mode: "lazy",
      heartbeatMs: 50,
      settleWithinSeconds: 0.05,
    });
    await using engine = await joinEngine(controller);
    expect(await engine.got("freeze")).toMatchObject({
      reason: "settleWithinSeconds (0.05) is over",
    });
    const settled = await controller.waitForEngine({ settled: true });
    expect(settled).toMatchObject({ frozen: true, graphsCaptured: 2 });
  });

  test("an engine that runs as stock is shown and left alone", async () => {
    await using controller = await startController({ heartbeatMs: 50 });
    await using engine = new FakeEngine({ graphs: [] });
    engine.phase = "stock";
    await engine.connect(controller.endpoint);
    await engine.got("welcome");
    engine.inventory({ unsupported: "LoRA was not tried" });
    engine.send({ type: "goodbye", reason: "done" });
    using lost = new EventLog("lazygraph:engine:lost");
    expect(await lost.first()).toMatchObject({
      reason: "The engine said goodbye: done",
      goodbye: "done",
    });
    expect(controller.engines()[0]).toMatchObject({
      phase: "stopping",
      unsupported: "LoRA was not tried",
      connected: false,
    });
    expect(engine.received.filter((m) => m.type !== "welcome" && m.type !== "heartbeat")).toEqual(
      [],
    );
  });
});

describe("a connection that broke and came back unnoticed", () => {
  test("loses neither the command that was on its way nor the answer", async () => {
    const swallowed = new Set<string>();
    await using controller = await startController({ heartbeatMs: 50, plan: false });
    await using engine = await joinEngine(controller, {
      onCapture(command, self) {
        const { graph } = command;
        if (swallowed.has(graph)) return {};
        swallowed.add(graph);
        // Of FULL:4 only the answer is lost.
        if (graph === "FULL:4") self.capture(graph);
        self.send({ ...self.hello, phase: "serving" });
        return undefined;
      },
    });
    const settled = await controller.waitForEngine({ settled: true });
    expect(settled).toMatchObject({ graphsCaptured: 8, graphsFailed: 0, connected: true });
    const ids = engine.ofType("capture").map((command) => command.command);
    expect(ids).toEqual([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]);
  });
});

describe("many engines", () => {
  test("a connection that says hello for another engine is that one only", async () => {
    using lost = new EventLog("lazygraph:engine:lost", "engine-0");
    await using controller = await startController({ heartbeatMs: 20, enginesMax: 2 });
    await using engine = await joinEngine(controller);
    await controller.waitForEngine({ engine: "engine-0", settled: true });
    for (let n = 1; n <= 5; n += 1) {
      const { length } = engine.ofType("welcome");
      engine.send({ ...engine.hello, engine: `engine-${n}`, session: `session-${n}` });
      await engine.got("welcome", length + 1);
    }
    expect(await lost.first()).toMatchObject({ code: "ERR_LAZYGRAPH_ENGINE_LOST" });
    const present = controller.engines().filter((snapshot) => snapshot.connected);
    expect(present.map((snapshot) => snapshot.engine)).toEqual(["engine-5"]);
  });

  test("a connection whose engine got a new session is not refused as its own elder", async () => {
    await using controller = await startController({ heartbeatMs: 20 });
    await using engine = await joinEngine(controller);
    await controller.waitForEngine({ settled: true });
    engine.send({ ...engine.hello, session: "another" });
    await engine.got("welcome", 2);
    expect(engine.ofType("refuse")).toEqual([]);
    expect(controller.engines()).toMatchObject([{ session: "another", connected: true }]);
  });

  test("who hears that one joined can give it a mode", async () => {
    await using controller = createController({ heartbeatMs: 50 });
    const failures: unknown[] = [];
    const stop = onEvent("lazygraph:engine:join", ({ engine }) => {
      try {
        controller.setMode(engine, "lazy");
      } catch (error) {
        failures.push(error);
      }
    });
    try {
      await controller.start();
      await using _engine = await joinEngine(controller);
      expect(await controller.waitForEngine()).toMatchObject({ mode: "lazy" });
      expect(failures).toEqual([]);
    } finally {
      stop();
    }
  });

  test("a new process of the same name replaces the old one, which is told", async () => {
    await using controller = await startController({ heartbeatMs: 20 });
    controller.engines();
    await using old = await joinEngine(controller);
    await controller.waitForEngine({ settled: true });
    await using young = await joinEngine(controller);
    expect(await old.got("later")).toMatchObject({ code: "ERR_LAZYGRAPH_ENGINE_REPLACED" });
    const [only, ...none] = controller.engines();
    expect(none).toEqual([]);
    expect(only?.session).toBe(young.hello.session);
    expect(only?.problems.replaced).toBe(1);
    // The old one's heartbeats and hellos don't bring it back.
    old.send(old.hello);
    await old.got("later", 2);
    expect(controller.engines()[0]?.session).toBe(young.hello.session);
    // That may have been a dead process's last word, read late.
    young.disconnect();
    await expect.poll(() => controller.engines()[0]?.connected).toBe(false);
    old.send(old.hello);
    await old.got("welcome", 2);
    expect(controller.engines()[0]).toMatchObject({ session: old.hello.session, connected: true });
  });

  test("one more than enginesMax is put off until another is gone", async () => {
    await using controller = await startController({ heartbeatMs: 20, enginesMax: 2 });
    const engines = [0, 1, 2].map((n) => new FakeEngine({ name: `engine-${n}` }));
    const [a, b, c] = engines as [FakeEngine, FakeEngine, FakeEngine];
    using lost = new EventLog("lazygraph:engine:lost");
    using problems = new EventLog("lazygraph:problem");
    try {
      await a.connect(controller.endpoint);
      await b.connect(controller.endpoint);
      await Promise.all([
        controller.waitForEngine({ engine: "engine-0", settled: true }),
        controller.waitForEngine({ engine: "engine-1", settled: true }),
      ]);
      await c.connect(controller.endpoint);
      const later = { code: "ERR_LAZYGRAPH_ENGINES_MAX", retrySeconds: 5 };
      expect(await c.got("later")).toMatchObject(later);
      c.send(c.hello);
      expect(await c.got("later", 2)).toMatchObject(later);
      expect(problems.all.map(({ engine, code }) => [engine, code])).toEqual([
        ["engine-2", "ERR_LAZYGRAPH_ENGINES_MAX"],
      ]);
      a.disconnect();
      await lost.first((event) => event.engine === "engine-0");
      c.send(c.hello);
      await controller.waitForEngine({ engine: "engine-2" });
      expect(controller.engines().map((e) => e.engine)).toEqual(["engine-1", "engine-2"]);
    } finally {
      for (const engine of engines) engine.disconnect();
    }
  });
});

describe("a policy of the user's", () => {
  const always = (graph: string): Policy => ({
    name: "always",
    decide: (state, event) => {
      if (event.type === "inventory") {
        return [{ type: "start", graphs: [], reason: "none" }];
      }
      const found = state.graphs.get(graph)?.graph ?? {
        id: graph,
        kind: "FULL" as const,
        tokens: 1,
      };
      return [{ type: "capture", graph: found, whenIdle: false, reason: "always" }];
    },
  });

  test.for([
    ["captures twice", always("FULL:1"), /got FULL:1, which is captured/],
    ["names an unknown graph", always("FULL:5"), /got FULL:5, which is not in the inventory/],
    [
      "throws",
      {
        name: "throws",
        decide: () => {
          throw new Error("boom");
        },
      } satisfies Policy,
      /threw: boom/,
    ],
  ] as const)("that %s is reported and does no harm", async ([, policy, sentence]) => {
    using problems = new EventLog("lazygraph:problem");
    await using controller = await startController({ heartbeatMs: 50, policy: () => policy });
    await using engine = await joinEngine(controller);
    const problem = await problems.first();
    expect(problem.code).toBe("ERR_LAZYGRAPH_POLICY");
    expect(problem.message).toMatch(sentence);
    expect(engine.ofType("capture").length).toBeLessThanOrEqual(1);
    expect(controller.engines()[0]?.connected).toBe(true);
  });
});

describe("start, close and waiting", () => {
  test("the address is free once close has resolved", async () => {
    const first = await startController();
    const { endpoint } = first;
    await first.close();
    expect(first.endpoint).toBe(endpoint);
    expect(first.engines()).toEqual([]);
    for (let round = 0; round < 50; round += 1) {
      await using _controller = await startController({ endpoint });
    }
  });

  test("a wait ends with its signal, and with the controller", async () => {
    const controller = await startController();
    const reason = new Error("enough");
    await expect(controller.waitForEngine({ signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
    const abort = new AbortController();
    const aborted = controller.waitForEngine({ signal: abort.signal });
    const closed = controller.waitForEngine({ phase: "serving" });
    abort.abort(reason);
    await expect(aborted).rejects.toBe(reason);
    await Promise.all([
      expect(closed).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" }),
      controller.close(),
    ]);
    await controller.close();
    await expect(controller.waitForEngine()).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_CLOSED",
    });
  });

  test("a wait for a controller that nobody can reach is refused at once", async () => {
    await using other = await startController();
    const controller = createController({ endpoint: other.endpoint });
    const refused = { code: "ERR_LAZYGRAPH_NOT_STARTED" };
    await expect(controller.waitForEngine()).rejects.toMatchObject(refused);
    const failed = { code: "ERR_LAZYGRAPH_ADDRESS_IN_USE" };
    const starting = expect(controller.start()).rejects.toMatchObject(failed);
    await expect(controller.waitForEngine()).rejects.toMatchObject(failed);
    await starting;
    await expect(controller.waitForEngine()).rejects.toMatchObject(refused);
    await controller.close();
  });

  test("a wait that takes too long ends with a code, and with what it was for", async () => {
    await using controller = await startController();
    const past = AbortSignal.abort(new DOMException("late", "TimeoutError"));
    for (const signal of [AbortSignal.timeout(1), past]) {
      const waiting = controller.waitForEngine({ engine: "a", phase: "serving", signal });
      await expect(waiting).rejects.toMatchObject({
        code: "ERR_LAZYGRAPH_ENGINE_TIMEOUT",
        message: expect.stringContaining('engine "a" in phase serving before'),
        cause: expect.objectContaining({ name: "TimeoutError" }),
      });
    }
  });

  test("one wait more than there may be is refused with a code", async () => {
    const controller = await startController();
    const waits = Array.from({ length: 1024 }, () => controller.waitForEngine());
    const ends = Promise.allSettled(waits);
    await expect(controller.waitForEngine()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_BUSY" });
    await controller.close();
    expect((await ends).every(({ status }) => status === "rejected")).toBe(true);
  });

  test("start is idempotent; after close it fails with a code", async () => {
    const controller = createController();
    await Promise.all([controller.start(), controller.start()]);
    await controller.close();
    await expect(controller.start()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
    const late = createController();
    await late.close();
    await expect(late.start()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
  });

  test("what was ordered right before it reaches every engine", async () => {
    await using controller = await startController({ plan: false, memory: { gpu: false } });
    const engines = Array.from({ length: 20 }, (_, at) => new FakeEngine({ name: `engine-${at}` }));
    for (const engine of engines) await engine.connect(controller.endpoint);
    for (const { hello } of engines) {
      await controller.waitForEngine({ engine: hello.engine, phase: "serving" });
    }
    for (const { hello } of engines) controller.freeze(hello.engine, "for the benchmark");
    const closing = controller.close();
    const told = await Promise.all(engines.map((engine) => engine.got("freeze")));
    expect(told.map(({ reason }) => reason)).toEqual(engines.map(() => "for the benchmark"));
    await closing;
    for (const engine of engines) engine.disconnect();
  });

  test("after close nothing can be told to an engine, known or not", async () => {
    const controller = await startController();
    await using _engine = await joinEngine(controller);
    await controller.waitForEngine({ engine: "engine-0" });
    await controller.close();
    expect(controller.engines()).toMatchObject([
      { engine: "engine-0", connected: false, lostReason: "Its controller was closed." },
    ]);
    const closed = expect.objectContaining({ code: "ERR_LAZYGRAPH_CLOSED" });
    for (const name of ["engine-0", "nobody"]) {
      expect(() => controller.freeze(name)).toThrow(closed);
      expect(() => controller.setMode(name, "lazy")).toThrow(closed);
      expect(() => controller.announce(name, { inSeconds: 1 })).toThrow(closed);
    }
  });

  test.for([
    [{ phase: "nope" }, "phase", /one of loading, .+ got "nope"\.$/],
    [{ phaze: "serving" }, "phaze", /got "phaze": did you mean phase\?$/],
    [{ settled: "yes" }, "settled", /true or false, got "yes"\.$/],
    [{ engine: 5 }, "engine", /1 to 128 characters, got 5 \(number\)\.$/],
    [{ engine: "x".repeat(129) }, "engine", /128 characters, got "x/],
    [{ signal: 100 }, "signal", /an AbortSignal, got 100 \(number\)\.$/],
    [5, "options", /an object, got 5 \(number\)\.$/],
    [null, "options", /an object, got null/],
  ] as const)("a wait for %j is refused at once", async ([options, option, message]) => {
    await using controller = createController();
    // Else it would wait for as long as a caller.
    await expect(controller.waitForEngine(options as WaitOptions)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_OPTION",
      option,
      message: expect.stringMatching(message),
    });
  });

  test("what is told to an engine is checked first", async () => {
    await using controller = createController();
    const refused = (option: string): unknown =>
      expect.objectContaining({ code: "ERR_LAZYGRAPH_OPTION", option });
    const wrong = 5 as unknown as string;
    expect(() => controller.freeze(wrong)).toThrow(refused("engine"));
    expect(() => controller.setMode("", "lazy")).toThrow(refused("engine"));
    expect(() => controller.announce(wrong, { inSeconds: 1 })).toThrow(refused("engine"));
    expect(() => controller.freeze("a", wrong)).toThrow(refused("reason"));
    expect(() => controller.freeze("a", "x".repeat(2049))).toThrow(refused("reason"));
    expect(() => controller.setMode("a", "fast" as "lazy")).toThrow(refused("mode"));
    const announcement = { inSeconds: 1, request: 2 };
    expect(() => controller.announce("a", announcement)).toThrow(refused("request"));
  });

  test("controllers that start in one millisecond fence each other off all the same", async () => {
    const now = vi.spyOn(Date, "now").mockReturnValue(Date.now());
    const incarnations: number[] = [];
    try {
      for (let n = 0; n < 3; n += 1) {
        await using controller = await startController();
        await using engine = await joinEngine(controller);
        incarnations.push((await engine.got("welcome")).incarnation);
      }
    } finally {
      now.mockRestore();
    }
    const [first = 0, second = 0, third = 0] = incarnations;
    expect(second).toBeGreaterThan(first);
    expect(third).toBeGreaterThan(second);
  });

  test("a signal that was aborted before closes it too", async () => {
    const reason = new Error("enough");
    const controller = createController({ signal: AbortSignal.abort(reason) });
    await expect(controller.start()).rejects.toBe(reason);
    await expect(controller.waitForEngine()).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_CLOSED",
    });
  });

  test("no wait looks through all engines whenever one of them changes", async () => {
    const find = vi.spyOn(EngineRegistry.prototype, "find");
    onTestFinished(() => find.mockRestore());
    await using controller = await startController({ heartbeatMs: 50, plan: false });
    const present = controller.waitForEngine({ engine: "engine-0" });
    const absent = controller
      .waitForEngine({ engine: "engine-1" })
      .catch((error: unknown) => error);
    await using engine = await joinEngine(controller);
    await expect(present).resolves.toMatchObject({ engine: "engine-0" });
    await engine.got("freeze");
    expect(find).toHaveBeenCalledTimes(2);
    await controller.close();
    await expect(absent).resolves.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
  });

  test("its signal closes it", async () => {
    const abort = new AbortController();
    const controller = await startController({ signal: abort.signal });
    const waiting = controller.waitForEngine();
    abort.abort();
    await expect(waiting).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
  });

  test.for([
    ["tcp://0.0.0.0:0", /Expected curve keys for tcp:\/\/0\.0\.0\.0:0/],
    ["tcp://*:0", /Expected curve keys/],
    ["tcp://example.invalid:0", /Expected curve keys/],
    ["ipc:///nonexistent/folder/x.sock", /: make the folder \/nonexistent\/folder, or choose/],
  ] as const)("%s can't be bound", async ([endpoint, sentence]) => {
    await using controller = createController({ endpoint });
    await expect(controller.start()).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_BIND",
      message: expect.stringMatching(sentence),
    });
  });

  test("snapshots are frozen and plain", async () => {
    await using controller = await startController({ heartbeatMs: 50 });
    await using _engine = await joinEngine(controller);
    const snapshot = await controller.waitForEngine({ settled: true });
    for (const part of [snapshot, snapshot.graphs, snapshot.graphs[0], snapshot.ranks[0]]) {
      expect(Object.isFrozen(part)).toBe(true);
    }
    const { capturing: _, lostReason: __, simulated: ___, unsupported: ____, ...kept } = snapshot;
    expect(JSON.parse(JSON.stringify(snapshot))).toEqual(kept);
  });
});

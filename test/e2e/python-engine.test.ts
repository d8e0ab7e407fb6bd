import { describe, expect, test } from "vitest";
import { lazygraph, type Running } from "../cli/helpers/command.ts";
import { EventLog } from "../helpers/events.ts";
import { startController } from "../helpers/joined.ts";
import { PythonEngine } from "./python-engine.ts";

const PLANNED = 22;

describe("the plugin's own code against the controller, over real sockets", () => {
  test("idle: the tops before ready, the rest while idle, the same on both ranks", async () => {
    await using controller = await startController({ mode: "idle" });
    const engine = new PythonEngine(controller.endpoint);
    const ready = await engine.first((event) => event.event === "ready");
    expect(ready.captured).toEqual(["FULL:512", "PIECEWISE:512"]);
    const snapshot = await controller.waitForEngine({ engine: "python", settled: true });
    expect(snapshot.graphsCaptured).toBe(PLANNED);
    expect(snapshot.gpus.map((gpu) => gpu.uuid)).toEqual(["GPU-0", "GPU-1"]);
    expect(snapshot.problems).toMatchObject({ malformed: 0, unknownGraphs: 0, reported: 0 });
    const end = await engine.end();
    expect(end.ranks?.[0]).toHaveLength(PLANNED);
    expect(end.ranks?.[1]).toEqual(end.ranks?.[0]);
  });

  test("eager: everything before ready, nothing after", async () => {
    await using controller = await startController({ mode: "eager" });
    const engine = new PythonEngine(controller.endpoint, ["--mode", "lazy"]);
    const ready = await engine.first((event) => event.event === "ready");
    expect(ready.captured).toHaveLength(PLANNED);
    await controller.waitForEngine({ settled: true });
    await engine.end();
    expect(engine.events.filter((event) => event.event === "captured")).toEqual([]);
  });

  test("lazy: only what traffic wants, while it is busy", async () => {
    await using controller = await startController({ mode: "lazy", policy: "simple" });
    const engine = new PythonEngine(controller.endpoint, ["--mode", "lazy"]);
    using ended = new EventLog("lazygraph:capture:end", "python");
    await engine.first((event) => event.event === "ready");
    engine.load(20);
    const capture = await ended.first();
    expect(capture.graph).toBe("FULL:8");
    const snapshot = controller.engines().find((one) => one.engine === "python");
    expect(snapshot?.idle).toBe(false);
    expect(snapshot?.graphs.find((graph) => graph.id === "FULL:8")).toMatchObject({
      status: "captured",
    });
    const told = await engine.first((event) => event.event === "captured");
    expect(told.ranks?.[1]).toEqual(["FULL:512", "FULL:8", "PIECEWISE:512"]);
  });

  test("with adapters: what traffic wants is a graph for so many of them", async () => {
    await using controller = await startController({ mode: "lazy", policy: "simple" });
    const engine = new PythonEngine(controller.endpoint, ["--mode", "lazy", "--loras", "2"]);
    using ended = new EventLog("lazygraph:capture:end", "python");
    const ready = await engine.first((event) => event.event === "ready");
    expect(ready.captured).toEqual([
      "FULL:512",
      "FULL:512:l2",
      "PIECEWISE:512",
      "PIECEWISE:512:l2",
    ]);
    engine.load(20);
    expect((await ended.first()).graph).toBe("FULL:8:l2");
    expect(controller.engines()).toMatchObject([
      { protocolVersion: 2, problems: { malformed: 0 } },
    ]);
  });

  test("an older plugin, of protocol 1, is served as ever", async () => {
    await using controller = await startController({ mode: "idle", policy: "simple" });
    const engine = new PythonEngine(controller.endpoint, ["--version-max", "1"]);
    const ready = await engine.first((event) => event.event === "ready");
    expect(ready.captured).toEqual(["FULL:512", "PIECEWISE:512"]);
    const snapshot = await controller.waitForEngine({ engine: "python", settled: true });
    expect(snapshot).toMatchObject({ protocolVersion: 1, graphsCaptured: PLANNED });
    await engine.end();
  });

  test("killed in mid-fill and started again: no step, no graph lost, and the fill goes on", async () => {
    const first = serve("tcp://127.0.0.1:0");
    const endpoint = await endpointOf(first);
    const engine = new PythonEngine(endpoint, ["--capture-ms", "200"]);
    await engine.first((event) => (event.ranks?.[0]?.length ?? 0) >= 5);
    first.process.kill("SIGKILL");
    await first.finished;
    const held = engine.events.at(-1)?.ranks?.[0] ?? [];
    expect(held.length).toBeLessThan(PLANNED);
    engine.load(0.3);
    const second = serve(endpoint);
    await endpointOf(second);
    await engine.first((event) => event.ranks?.[0]?.length === PLANNED);
    const end = await engine.end();
    expect(end.ranks?.[0]).toEqual(expect.arrayContaining([...held]));
    expect(end.ranks?.[1]).toEqual(end.ranks?.[0]);
    expect(end.steps).toBeGreaterThan(0);
    // One event per change of the captured set: a graph captured twice would be one too many.
    const atReady = engine.events.find(({ event }) => event === "ready")?.captured?.length ?? 0;
    expect(engine.events.filter((event) => event.event === "captured")).toHaveLength(
      PLANNED - atReady,
    );
  });
});

describe("what was ordered, over restarts of the controller and of the engine", () => {
  test("a mode and a freeze hold, and are lifted by the next order", {
    timeout: 120_000,
  }, async () => {
    const first = await startController({ mode: "idle", plan: false });
    const { endpoint } = first;
    const engine = new PythonEngine(endpoint, ["--capture-ms", "20"]);
    await first.waitForEngine({ engine: "python" });
    first.setMode("python", "lazy");
    await engine.first((event) => event.event === "ready");
    first.freeze("python", "for the benchmark");
    await first.waitForEngine({ engine: "python", settled: true });
    await first.close();

    await using second = await startController({ endpoint, plan: false });
    expect(await second.waitForEngine({ engine: "python", settled: true })).toMatchObject({
      mode: "lazy",
      frozen: true,
      graphsCaptured: 2,
    });
    await engine.end();
    // Another process of that name.
    const again = new PythonEngine(endpoint, ["--capture-ms", "20"]);
    const ready = await again.first((event) => event.event === "ready");
    expect(ready.captured).toHaveLength(2);
    expect(await second.waitForEngine({ engine: "python", settled: true })).toMatchObject({
      mode: "lazy",
      frozen: true,
    });
    again.load(0.3);
    second.setMode("python", "idle");
    const filled = await second.waitForEngine({ engine: "python", settled: true });
    expect(filled).toMatchObject({ mode: "idle", frozen: false, graphsCaptured: PLANNED });
    await again.end();
  });

  test("rules and a time for captures hold with nobody there, and with who comes next", async () => {
    const first = await startController({ plan: false, exclude: ["<512"], settleWithinSeconds: 0 });
    const { endpoint } = first;
    const engine = new PythonEngine(endpoint);
    await engine.first((event) => event.event === "ready");
    await first.waitForEngine({ engine: "python", settled: true });
    await first.close();
    await using second = await startController({ endpoint, plan: false });
    const snapshot = await second.waitForEngine({ engine: "python", settled: true });
    expect(snapshot).toMatchObject({ frozen: true, graphsCaptured: 2 });
    const out = snapshot.graphs.filter(({ reason }) => reason === "excluded by the user");
    expect(out).toHaveLength(PLANNED - 2);
    await engine.end();
    expect(engine.events.filter(({ event }) => event === "captured")).toEqual([]);
  });
});

function serve(endpoint: string): Running {
  return lazygraph(["serve", "--mode", "idle", "--endpoint", endpoint]);
}

async function endpointOf(running: Running): Promise<string> {
  const line = await running.line("stderr", /tcp:\/\//);
  return /tcp:\/\/[\d.]+:\d+/.exec(line)?.[0] ?? "";
}

import { expect, onTestFinished, test, vi } from "vitest";
import type { Graph } from "../../src/base/graph.ts";
import { publish } from "../../src/engine/events.ts";
import { collectMetrics } from "../../src/metrics.ts";
import { loadProfile } from "../../src/profile/load.ts";
import { LiveEngine } from "../../src/testing.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { plan } from "../helpers/fake-engine.ts";
import { startController } from "../helpers/joined.ts";
import { controllerOf, Registry, recordOf, scrape } from "./helpers.ts";

const E = 'engine="engine-0"';

function collect(
  controller: Parameters<typeof collectMetrics>[0],
  options?: Parameters<typeof collectMetrics>[2],
) {
  const registry = new Registry();
  const stop = collectMetrics(controller, registry, options);
  onTestFinished(stop);
  return { registry, stop };
}

test("regret is told as it grows", async () => {
  const record = recordOf();
  const { registry } = collect(controllerOf([record]));
  expect((await scrape(registry)).get(`lazygraph_regret_seconds_total{${E}}`)).toBe(0);
  record.regretSeconds = 1.5;
  expect((await scrape(registry)).get(`lazygraph_regret_seconds_total{${E}}`)).toBe(1.5);
});

test("graphs with adapters are told by their number, the others as ever", async () => {
  const plain = plan(1, 8);
  const adapted = plain.map((graph) => ({ ...graph, id: `${graph.id}:l2`, loras: 2 }));
  const record = recordOf({ graphs: [...plain, ...adapted] });
  const entry = record.state?.graphs.get("FULL:8:l2");
  if (entry !== undefined) entry.replays = 7;
  const { registry } = collect(controllerOf([record]));
  const values = await scrape(registry);
  expect(Object.fromEntries(values)).toMatchObject({
    [`lazygraph_graphs{${E},kind="FULL",status="captured"}`]: 1,
    [`lazygraph_graphs{${E},kind="FULL",status="planned"}`]: 1,
    [`lazygraph_graphs{${E},kind="FULL",loras="2",status="planned"}`]: 2,
    [`lazygraph_replays_total{${E},kind="FULL"}`]: 0,
    [`lazygraph_replays_total{${E},kind="FULL",loras="2"}`]: 7,
  });
});

test("an engine that is ready shows its state, graphs and memory", async () => {
  const record = recordOf();
  const { registry } = collect(controllerOf([record]));
  const values = await scrape(registry);
  record.asleep = ["weights"];
  expect((await scrape(registry)).get(`lazygraph_engine_asleep{${E}}`)).toBe(1);
  expect(Object.fromEntries(values)).toMatchObject({
    [`lazygraph_engine_asleep{${E}}`]: 0,
    [`lazygraph_engine_info{${E},model="fake/model",plugin_version="0.1.0",vllm_version="0.26.0",simulated="false"}`]: 1,
    [`lazygraph_engine_connected{${E}}`]: 1,
    [`lazygraph_engine_phase{${E},phase="serving"}`]: 1,
    [`lazygraph_engine_phase{${E},phase="loading"}`]: 0,
    [`lazygraph_engine_mode{${E},mode="idle"}`]: 1,
    [`lazygraph_graphs{${E},kind="FULL",status="captured"}`]: 1,
    [`lazygraph_graphs{${E},kind="FULL",status="planned"}`]: 3,
    [`lazygraph_startup_capture_seconds{${E}}`]: 0.06,
    [`lazygraph_capture_duration_seconds_count{${E},kind="PIECEWISE"}`]: 1,
    [`lazygraph_capture_duration_seconds_sum{${E},kind="PIECEWISE"}`]: 0.04,
    [`lazygraph_capture_size_bytes_sum{${E},kind="FULL"}`]: 4 << 20,
    [`lazygraph_gpu_memory_free_bytes{${E}}`]: 10_000_000_000,
    [`lazygraph_graph_memory_bytes{${E}}`]: 8 << 20,
  });
  expect(values.has(`lazygraph_settle_seconds{${E}}`)).toBe(false);
  // A capture is counted once, however often somebody looks.
  const again = await scrape(registry);
  expect(again.get(`lazygraph_capture_duration_seconds_count{${E},kind="PIECEWISE"}`)).toBe(1);
});

test("a start that was timed is told by phase; what nobody knows is one series", async () => {
  const record = recordOf();
  const { registry } = collect(controllerOf([record]));
  const names = async (): Promise<string[]> =>
    [...(await scrape(registry)).keys()].filter((key) => key.includes("startup_seconds"));
  expect(await names()).toEqual([]);
  record.startPhases = [
    { name: "weights", seconds: 2.5 },
    { name: "memory and KV cache", seconds: 0.5 },
    { name: 'made up by a peer"', seconds: 1 },
    { name: "another", seconds: 3 },
  ];
  const values = await scrape(registry);
  const of = (part: string) => values.get(`lazygraph_startup_seconds{${E},part="${part}"}`);
  expect([of("weights"), of("memory and KV cache"), of("other")]).toEqual([2.5, 0.5, 4]);
  expect(await names()).toHaveLength(3);
});

test("captures after ready: outcome, stall, and only of this controller's engines", async () => {
  const record = recordOf();
  const { registry } = collect(controllerOf([record]));
  const { session } = record.hello;
  const event = { engine: "engine-0", session, atUnixMs: 1, graph: "FULL:4" };
  const end = { ...event, ms: 30, stallMs: 50, bytes: 1024, graphsCaptured: 3, graphsPlanned: 8 };
  publish("lazygraph:capture:deferred", { ...event, reason: "busy" });
  publish("lazygraph:capture:end", { ...end });
  publish("lazygraph:capture:end", { ...end, session: "another controller's" });
  publish("lazygraph:capture:end", { ...end, graph: "unknown" });
  const code = "ERR_LAZYGRAPH_ENGINE_LOST";
  publish("lazygraph:capture:failed", { ...event, reason: "", code });
  const values = await scrape(registry);
  const results = (outcome: string) =>
    values.get(`lazygraph_capture_results_total{${E},kind="FULL",outcome="${outcome}"}`);
  const all = ["captured", "deferred", "failed", "lost"].map(results);
  expect(all).toEqual([1, 1, 0, 1]);
  expect(values.get(`lazygraph_capture_stall_seconds_sum{${E},kind="FULL"}`)).toBe(0.05);
  // The top of before ready, and this one.
  expect(values.get(`lazygraph_capture_duration_seconds_count{${E},kind="FULL"}`)).toBe(2);
});

test("a graph that is captured no more was dropped, seen by a scrape or not", async () => {
  const record = recordOf();
  const { registry } = collect(controllerOf([record]));
  const dropped = `lazygraph_graphs_dropped_total{${E},kind="FULL"}`;
  expect((await scrape(registry)).get(dropped)).toBe(0);
  const entry = record.state?.graphs.get("FULL:8");
  if (entry === undefined) throw new Error("no graph");
  entry.status = "planned";
  expect((await scrape(registry)).get(dropped)).toBe(1);
  entry.status = "captured";
  await scrape(registry);
  const { session } = record.hello;
  const again = { ms: 30, stallMs: 50, bytes: 1024, graphsCaptured: 2, graphsPlanned: 8 };
  const event = { engine: "engine-0", session, atUnixMs: 1, graph: "FULL:8" };
  publish("lazygraph:capture:end", { ...event, ...again });
  expect((await scrape(registry)).get(dropped)).toBe(2);
});

test("an engine that is lost stays as away for a while; one that said goodbye is gone", async () => {
  const clock = new FakeClock();
  const records = [recordOf({ name: "lost" }), recordOf({ name: "gone" })];
  const { registry } = collect(controllerOf(records), { clock, lostSeconds: 60 });
  expect(await registry.metrics()).toContain('"gone"');
  const [lost, gone] = records;
  if (lost === undefined || gone === undefined) throw new Error("no records");
  for (const record of records) record.connected = false;
  gone.phase = "stopping";
  // Its name is asked for while it is away.
  Object.assign(lost.problems, { namesakes: 2 });
  const text = await registry.metrics();
  expect(text).not.toContain('"gone"');
  expect(
    text
      .split("\n")
      .filter((line) => line.includes('engine="lost"') && !line.includes("_capture_")),
  ).toEqual([
    'lazygraph_engine_connected{engine="lost"} 0',
    'lazygraph_problems_total{engine="lost",problem="namesakes"} 2',
  ]);
  clock.advance(60);
  expect(await registry.metrics()).not.toContain("engine=");
  lost.connected = true;
  const values = await scrape(registry);
  expect(values.get('lazygraph_engine_connected{engine="lost"}')).toBe(1);
});

test("a new process of an engine counts its captures on, its steps anew", async () => {
  const records = [recordOf()];
  const { registry } = collect(controllerOf(records));
  const state = records[0]?.state;
  if (state === undefined) throw new Error("no state");
  state.stepsExact = 7;
  const exact = `lazygraph_steps_total{${E},served="exact"}`;
  const captures = `lazygraph_capture_duration_seconds_count{${E},kind="FULL"}`;
  const before = await scrape(registry);
  expect([before.get(exact), before.get(captures)]).toEqual([7, 1]);
  records[0] = recordOf();
  const after = await scrape(registry);
  expect([after.get(exact), after.get(captures)]).toEqual([0, 2]);
});

test("a registry takes one controller, and gives the names back", async () => {
  const controller = controllerOf([recordOf()]);
  const { registry, stop } = collect(controller);
  expect(() => collectMetrics(controller, registry)).toThrow(
    /a registry without this package's metrics, got one that has lazygraph_engine_info/,
  );
  stop();
  expect(await registry.metrics()).not.toContain("lazygraph");
  collectMetrics(controller, registry)();
  const stopOther = collectMetrics(controller, registry);
  stop();
  expect(await registry.metrics()).toContain("lazygraph");
  stopOther();
  expect(() => collectMetrics(controller, registry, { lostSeconds: -1 })).toThrow(
    "Expected lostSeconds to be a number from 0 to 86400, got -1 (number).",
  );
  const unknown = { lostSecond: 5 } as object;
  expect(() => collectMetrics(controller, registry, unknown)).toThrow("lostSeconds?");
});

test("two controllers of a process, as docs/metrics.md joins them", async () => {
  const [one, another] = [controllerOf([recordOf()]), controllerOf([recordOf({ name: "b" })])];
  const { registry } = collect({ engines: () => [...one.engines(), ...another.engines()] });
  expect(await registry.metrics()).toMatch(
    /connected\{engine="engine-0"\} 1\n.+\{engine="b"\} 1\n/,
  );
});

test("engines that come and go leave nothing behind, also where nobody scrapes", () => {
  const records = [recordOf()];
  const { registry } = collect(controllerOf(records));
  for (const engine of ["a", "b", "c"]) {
    records[0] = recordOf({ name: engine, session: engine });
    const event = { engine, session: engine, atUnixMs: 1, graph: "FULL:4", ms: 30, stallMs: 50 };
    publish("lazygraph:capture:end", { ...event, bytes: 1, graphsCaptured: 3, graphsPlanned: 8 });
  }
  const histogram = registry.getSingleMetric("lazygraph_capture_stall_seconds");
  expect(Object.keys(Object(histogram).hashMap)).toHaveLength(1);
});

test("of many numbers of adapters only some make labels", async () => {
  const [graph] = plan(8) as [Graph];
  const graphs = Array.from({ length: 40 }, (_, loras) => ({ ...graph, id: `${loras}`, loras }));
  const { registry } = collect(controllerOf([recordOf({ graphs })]));
  const planned = /^lazygraph_graphs\{\S+kind="PIECEWISE"\S+"planned"\S* (\d+)$/gm;
  const counts = [...(await registry.metrics()).matchAll(planned)].map(([, count]) => count);
  expect(counts).toEqual([...Array(17).fill("1"), "23"]);
});

test("a simulated engine that fills: every capture is counted", async () => {
  await using controller = await startController({ mode: "idle", plan: false });
  const { registry } = collect(controller);
  const { endpoint } = controller;
  const engine = new LiveEngine({ profile: loadProfile(), endpoint, engine: "sim", speed: 50 });
  onTestFinished(() => engine.close());
  engine.start();
  const looks = vi.spyOn(controller, "engines");
  const settled = await controller.waitForEngine({ engine: "sim", settled: true });
  // Pictures of all engines are for scrapes.
  expect(looks).not.toHaveBeenCalled();
  const values = await scrape(registry);
  const sum = (prefix: string) =>
    [...values].reduce((total, [key, value]) => total + (key.startsWith(prefix) ? value : 0), 0);
  expect(settled.graphsCaptured).toBe(102);
  expect(sum("lazygraph_capture_duration_seconds_count")).toBe(102);
  // Both tops and one more were captured before ready, without a command and without a stall.
  expect(sum("lazygraph_capture_stall_seconds_count")).toBe(99);
  const outcome = (name: string) =>
    [...values].reduce((all, [key, n]) => all + (key.endsWith(`outcome="${name}"}`) ? n : 0), 0);
  expect([outcome("captured"), outcome("failed")]).toEqual([99, 0]);
  expect(values.get('lazygraph_engine_settled{engine="sim"}')).toBe(1);
  const milliseconds = settled.graphs.reduce((total, { ms }) => total + (ms ?? 0), 0);
  expect(sum("lazygraph_capture_duration_seconds_sum")).toBeCloseTo(milliseconds / 1000, 6);
});

test("captures don't look at all engines each time: only once for each session", () => {
  const records = [recordOf(), recordOf({ name: "engine-1" })];
  let looks = 0;
  const { engines } = controllerOf(records);
  collect({
    engines() {
      looks++;
      return engines();
    },
  });
  const cost = { ms: 30, stallMs: 50, bytes: 1024, graphsCaptured: 3, graphsPlanned: 8 };
  const sessions = [...records.map(({ hello }) => hello.session), "another controller's"];
  for (let round = 0; round < 50; round++) {
    for (const [index, session] of sessions.entries()) {
      const base = { engine: `engine-${index % 2}`, session, atUnixMs: 1, graph: "FULL:4" };
      publish("lazygraph:capture:end", { ...base, ...cost });
      publish("lazygraph:capture:deferred", { ...base, reason: "busy" });
    }
  }
  expect(looks).toBe(3);
});

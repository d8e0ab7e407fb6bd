import { EventEmitter, once } from "node:events";
import { describe, expect, test } from "vitest";
import { configOf } from "../../examples/gateway/src/config.ts";
import { choose, GraphSizes } from "../../examples/gateway/src/routing.ts";
import type { GraphSnapshot } from "../../src/engine/snapshot.ts";
import { FakeEngine, plan } from "../helpers/fake-engine.ts";
import { completion, readyz, startController, startGateway, startStub } from "./helpers.ts";

function candidate(inFlight: number, capturing = false, hasNextGraph = true) {
  return { inFlight, capturing, hasNextGraph };
}

describe("the choice", () => {
  test.for([
    ["fewer requests", candidate(3), candidate(2), 1],
    ["not capturing, though it has some more", candidate(0, true), candidate(5), 1],
    ["capturing, when the other has a queue", candidate(0, true), candidate(9), 0],
    ["has the next batch's graph", candidate(1, false, false), candidate(2), 1],
    ["has no graph, when the other has a queue", candidate(1, false, false), candidate(4), 0],
  ] as const)("%s", ([_why, a, b, chosen]) => {
    expect(choose([a, b], 0)).toBe([a, b][chosen]);
    expect(choose([a, b], 1)).toBe([a, b][chosen]);
  });

  test("equals take turns; nobody is nobody", () => {
    const [a, b] = [candidate(1), candidate(1)];
    expect([choose([a, b], 0), choose([a, b], 1), choose([a, b], 2)]).toEqual([a, b, a]);
    expect(choose([a, b], 1)).toBe(b);
    expect(choose([], 5)).toBeUndefined();
  });
});

describe("graphs for a batch", () => {
  function graphs(captured: readonly string[], ids = plan(8, 64, 128, 256)) {
    return ids.map(({ id, kind, tokens }) => {
      const status = captured.includes(id) ? "captured" : "planned";
      return { id, kind, tokens, status } as GraphSnapshot;
    });
  }

  test("within the padding that dispatch allows", () => {
    const sizes = new GraphSizes(graphs(["FULL:64", "FULL:256", "PIECEWISE:128"]));
    const has = [1, 64, 65, 128, 204, 205, 256, 257].map((requests) => sizes.has(requests));
    // 205 × 1.25 is 256; the largest planned is 256, and beyond it stock has none either.
    expect(has).toEqual([true, true, false, false, false, true, true, true]);
  });

  test("a plan without FULL graphs is served by PIECEWISE ones; an unknown plan by anybody", () => {
    const piecewise = plan(8).filter(({ kind }) => kind === "PIECEWISE");
    expect(new GraphSizes(graphs([], piecewise)).has(4)).toBe(false);
    expect(new GraphSizes(graphs(["PIECEWISE:8"], piecewise)).has(4)).toBe(true);
    expect(new GraphSizes([]).has(4)).toBe(true);
  });
});

test("requests keep away from the engine that captures, until it has", async () => {
  const controller = await startController();
  const asked: string[] = [];
  const stubs = await Promise.all(
    ["a", "b"].map((name) =>
      startStub((_request, response) => {
        asked.push(name);
        response.end("{}");
      }),
    ),
  );
  const [a, b] = stubs.map(({ url }) => url);
  const { url } = await startGateway({ a: a ?? "", b: b ?? "" }, { controller });
  await expect
    .poll(async () => Object.values((await readyz(url)).engines).every(({ ready }) => ready))
    .toBe(true);
  const captures = new EventEmitter();
  // Its fill begins, and its first capture goes on until the test says so.
  await using filling = new FakeEngine({
    name: "a",
    graphs: plan(8, 4),
    onCapture: (command, engine) => {
      captures.once("go on", () => engine.result(command));
      captures.emit("begun");
      return undefined;
    },
  });
  await using full = new FakeEngine({ name: "b", graphs: plan(8) });
  const begun = once(captures, "begun");
  await Promise.all([filling.connect(controller.endpoint), full.connect(controller.endpoint)]);
  await begun;
  await controller.waitForEngine({ engine: "b", settled: true });
  for (let index = 0; index < 4; index++) await completion(url, {});
  expect(asked).toEqual(["b", "b", "b", "b"]);
  captures.emit("go on");
  captures.on("begun", () => captures.emit("go on"));
  await controller.waitForEngine({ engine: "a", settled: true });
  asked.length = 0;
  for (let index = 0; index < 4; index++) await completion(url, {});
  expect([...asked].sort()).toEqual(["a", "a", "b", "b"]);
});

describe("settings", () => {
  test("from the environment, with defaults", () => {
    const engines = "a=http://u:pass@h:1/v1/, b=https://i/x/v1?key=secret";
    const config = configOf({ ENGINES: engines, LISTEN: "[::1]:0" });
    const shown = [...config.engines].map(([name, server]) => [name, server.shown]);
    // With or without /v1; what is secret is in requests and nowhere else.
    expect(shown).toEqual([
      ["a", "http://h:1"],
      ["b", "https://i/x"],
    ]);
    expect(config.engines.get("b")?.path("/v1/models")).toBe("/x/v1/models?key=secret");
    expect(config.engines.get("a")?.headers).toEqual({ authorization: "Basic dTpwYXNz" });
    expect(config).toEqual({
      host: "::1",
      port: 0,
      engines: config.engines,
      endpoint: "tcp://127.0.0.1:5757",
      mode: "idle",
      holdMax: 512,
      holdBytes: 256 << 20,
      holdSeconds: 120,
      firstByteSeconds: 60,
      drainSeconds: 30,
      traceFolder: undefined,
      control: { kind: "embedded" },
    });
  });

  test("a controller elsewhere, or replicas that take it over from each other", () => {
    const engines = { ENGINES: "a=http://h" };
    expect(configOf({ ...engines, CONTROLLER: "http://c:7480" }).control).toEqual({
      kind: "elsewhere",
      url: "http://c:7480",
    });
    const replica = { PEERS: "http://g-1:7480,http://g-2:7480", PLACE: "1" };
    expect(configOf({ ...engines, ...replica, CONTROL_LISTEN: "0.0.0.0:7480" }).control).toEqual({
      ...{ kind: "standby", peers: ["http://g-1:7480", "http://g-2:7480"], place: 1 },
      ...{ host: "0.0.0.0", port: 7480 },
    });
    expect(configOf({ ...engines, CONTROLLER: "", PEERS: "" }).control.kind).toBe("embedded");
  });

  test("an empty variable is one that isn't set", () => {
    const engines = { ENGINES: "a=http://h" };
    const empty = { ...engines, HOLD_MAX: "", LISTEN: "", LAZYGRAPH_MODE: "" };
    expect(configOf(empty)).toMatchObject({ holdMax: 512, mode: configOf(engines).mode });
  });

  test.for([
    [{}, 'Expected ENGINES to be NAME=URL,NAME=URL, …, got "".'],
    [{ ENGINES: "a=http://h,a=http://i" }, 'a list of names that differ, got "a=http://i".'],
    [{ ENGINES: "a=ftp://h" }, 'got "a=ftp://h".'],
    [{ ENGINES: "a=http://h", LISTEN: "8000" }, 'Expected LISTEN to be HOST:PORT, got "8000".'],
    // Less than one body may have would refuse for good what is worth another try.
    [
      { ENGINES: "a=http://h", HOLD_MIB: "31" },
      'Expected HOLD_MIB to be from 32 to 1048576, got "31"',
    ],
    [{ ENGINES: "a=http://h", LAZYGRAPH_MODE: "fast" }, "to be eager or lazy or idle"],
    [
      { ENGINES: "a=http://h", LAZYGRAPH_HTTP_TOKEN: "short" },
      "LAZYGRAPH_HTTP_TOKEN to be 16 to 512",
    ],
    [{ ENGINES: "a=http://h", CONTROLLER: "c:7480" }, "Expected CONTROLLER to be an http:// URL"],
    [{ ENGINES: "a=http://h", PEERS: "g-1" }, "Expected PEERS to be an http:// URL"],
    [
      { ENGINES: "a=http://h", PEERS: "http://g", CONTROLLER: "http://c" },
      "Expected PEERS to be left out with CONTROLLER",
    ],
    [
      { ENGINES: "a=http://h", PEERS: "http://g", CONTROL_LISTEN: "7480" },
      "Expected CONTROL_LISTEN to be HOST:PORT",
    ],
  ] as const)("%j", ([environment, sentence]) => {
    expect(() => configOf(environment)).toThrow(sentence);
  });
});

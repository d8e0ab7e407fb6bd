import { once } from "node:events";
import type { Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { Agent, getGlobalDispatcher, setGlobalDispatcher } from "undici";
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import {
  type Controller,
  connectController,
  createController,
  createHttpServer,
  type EngineSnapshot,
  type HttpChange,
  onEvent,
} from "../../src/index.ts";
import { LiveEngine } from "../../src/sim/live/live.ts";
import { listening } from "../helpers/listening.ts";
import { set, tinyProfile } from "../sim/helpers.ts";

const TAGS = ["kv_cache", "weights"];
let controller: Controller;
let engine: LiveEngine;

beforeEach(async () => {
  controller = createController({ endpoint: "tcp://127.0.0.1:0", mode: "idle" });
  await controller.start();
  const profile = tinyProfile((document) => {
    set(document, "startupSeconds", 1);
    const memory = { totalBytes: 2 ** 37, freeBytes: 2 ** 35, reservedBytes: 2 ** 36 };
    set(document, "memory", { ...memory, activationPeakBytes: 2 ** 30 });
  });
  const { endpoint } = controller;
  engine = new LiveEngine({
    profile,
    endpoint,
    engine: "tiny",
    speed: 100,
    mode: "idle",
    handshakeMs: 60_000,
  });
  engine.start();
  await controller.waitForEngine({ engine: "tiny", settled: true });
});

afterEach(async () => {
  await engine.close();
  await controller.close();
});

function snapshot(): EngineSnapshot {
  const found = controller.engines().find((each) => each.engine === "tiny");
  if (found === undefined) throw new Error("the engine has not joined");
  return found;
}

describe("sleep and wake of a simulated engine", () => {
  test("graphs survive, and the engine is known to sleep", async () => {
    const told: (readonly string[])[] = [];
    onTestFinished(onEvent("lazygraph:engine:asleep", ({ asleep }) => told.push(asleep)));
    expect(snapshot()).toMatchObject({ asleep: [], graphsCaptured: 4 });
    await controller.sleep("tiny");
    expect(snapshot()).toMatchObject({ asleep: TAGS, graphsCaptured: 4 });
    await controller.wake("tiny");
    expect(snapshot()).toMatchObject({ asleep: [], graphsCaptured: 4 });
    expect(told).toEqual([TAGS, []]);
  });

  test("dropped graphs are gone while it sleeps, and come back when it is awake and idle", async () => {
    await controller.sleep("tiny", { level: 2, dropGraphs: true });
    expect(snapshot()).toMatchObject({ asleep: TAGS, graphsCaptured: 0 });
    expect(engine.model.captured.size).toBe(0);
    await controller.wake("tiny");
    await controller.waitForEngine({ engine: "tiny", settled: true });
    expect(engine.model.captured.size).toBe(4);
  });

  test("a freeze holds over a sleep: nothing comes back", async () => {
    controller.freeze("tiny", "by the test");
    await controller.sleep("tiny", { dropGraphs: true });
    await controller.wake("tiny");
    await controller.sleep("tiny");
    await controller.wake("tiny");
    expect(snapshot()).toMatchObject({ frozen: true, graphsCaptured: 0 });
    expect(engine.model.captured.size).toBe(0);
  });

  test("twenty cycles leave what there was", async () => {
    const { takenBytes } = snapshot();
    for (let cycle = 0; cycle < 20; cycle += 1) {
      await controller.sleep("tiny", { level: cycle % 2 === 0 ? 1 : 2 });
      await controller.wake("tiny");
    }
    expect(snapshot()).toMatchObject({ asleep: [], graphsCaptured: 4, takenBytes });
    expect(snapshot().problems.malformed).toBe(0);
  });

  test("a sleep and a wake that were not to be are refused with the engine's sentence", async () => {
    await expect(controller.wake("tiny")).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_SLEEP",
      message: "Expected tiny to wake up, but it refused: the engine is awake.",
    });
    await controller.sleep("tiny");
    await expect(controller.sleep("tiny")).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_SLEEP",
      message: expect.stringMatching(/^Expected tiny to go to sleep, but it refused: /),
    });
    expect(snapshot().asleep).toEqual(TAGS);
  });

  test("of those who ask without an end few wait, and the rest are told so", async () => {
    const asked = Array.from({ length: 100 }, () => controller.sleep("tiny"));
    const outcomes = await Promise.allSettled(asked);
    const code = "ERR_LAZYGRAPH_BUSY";
    const told = outcomes.filter((outcome) => "reason" in outcome && outcome.reason.code === code);
    expect(told).toHaveLength(35);
    expect(snapshot().asleep).toEqual(TAGS);
  });

  test("an engine that nobody knows, and options that are none", async () => {
    await expect(controller.sleep("other")).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_UNKNOWN",
    });
    // @ts-expect-error: vLLM's level 0 only pauses
    await expect(controller.sleep("tiny", { level: 0 })).rejects.toThrow("1 or 2");
    // @ts-expect-error: an option of the other call
    await expect(controller.wake("tiny", { level: 1 })).rejects.toThrow("level");
    expect(snapshot().asleep).toEqual([]);
  });

  test("a close fails a sleep that still waits behind another command", async () => {
    const asked = [controller.sleep("tiny"), controller.wake("tiny"), controller.sleep("tiny")];
    const outcomes = Promise.allSettled(asked);
    await controller.close();
    const late = pause(2_000).then(() => "never");
    expect(await Promise.race([outcomes, late])).toMatchObject(
      asked.map(() => ({ reason: { code: "ERR_LAZYGRAPH_CLOSED" } })),
    );
  });

  test("an engine that leaves while a sleep is asked for fails the call, and nothing else", async () => {
    await engine.close();
    await expect(controller.sleep("tiny")).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_LOST",
    });
  });
});

describe("over HTTP", () => {
  const changes: HttpChange[] = [];
  let url: string;
  let server: Server;

  beforeEach(async () => {
    changes.length = 0;
    server = createHttpServer(controller, { onChange: (change) => changes.push(change) });
    url = await listening(server);
  });

  test("POST sleep and wake answer with the new snapshot, and are changes", async () => {
    const post = (path: string, body?: object): Promise<Response> =>
      fetch(`${url}/v1/engines/tiny/${path}`, {
        method: "POST",
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    const slept = await post("sleep", { level: 2, dropGraphs: true });
    expect(slept.status).toBe(200);
    expect(await slept.json()).toMatchObject({ asleep: TAGS, graphsCaptured: 0 });
    const again = await post("sleep");
    expect(again.status).toBeGreaterThanOrEqual(400);
    expect(await again.json()).toMatchObject({ error: { code: "ERR_LAZYGRAPH_ENGINE_SLEEP" } });
    const woken = await post("wake", { reloadWeights: true });
    expect(await woken.json()).toMatchObject({ asleep: [] });
    const wrong = await post("sleep", { level: 3 });
    expect(wrong.status).toBe(400);
    expect(changes.map(({ action, value }) => [action, value])).toEqual([
      ["sleep", '{"level":2,"dropGraphs":true}'],
      ["wake", '{"reloadWeights":true}'],
    ]);
  });

  test("a gateway's replica asks the controller that there is", async () => {
    const client = connectController(url, { pollMs: 50 });
    await client.waitForEngine({ engine: "tiny" });
    await client.sleep("tiny", { level: 1 });
    expect(snapshot().asleep).toEqual(TAGS);
    await client.wake("tiny");
    expect(snapshot().asleep).toEqual([]);
    await expect(client.wake("tiny")).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_SLEEP",
    });
    await client.close();
  });

  test("an answer that takes longer than a silent connection may is still given", async () => {
    server.timeout = 100;
    const sleep = controller.sleep.bind(controller);
    vi.spyOn(controller, "sleep").mockImplementation(async (...given) => {
      await pause(400);
      await sleep(...given);
    });
    const client = connectController(url, { pollMs: 50 });
    await client.sleep("tiny");
    expect(snapshot().asleep).toEqual(TAGS);
    await client.close();
    // What the connection may not do otherwise holds again.
    const { port } = server.address() as AddressInfo;
    const silent = connect(port, "127.0.0.1");
    silent.write(
      "POST /v1/engines/tiny/wake HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\nGET",
    );
    await once(silent.resume(), "close");
    expect(snapshot().asleep).toEqual([]);
  });

  test("a replica waits longer than `fetch` does by itself", async () => {
    const usual = getGlobalDispatcher();
    const hasty = new Agent({ headersTimeout: 100 });
    setGlobalDispatcher(hasty);
    onTestFinished(async () => {
      setGlobalDispatcher(usual);
      await hasty.close();
    });
    const sleep = controller.sleep.bind(controller);
    vi.spyOn(controller, "sleep").mockImplementation(async (...given) => {
      // undici's clock for such limits ticks once in half a second.
      await pause(1_500);
      await sleep(...given);
    });
    const client = connectController(url, { pollMs: 50 });
    await client.sleep("tiny");
    expect(snapshot().asleep).toEqual(TAGS);
    await client.close();
  });
});

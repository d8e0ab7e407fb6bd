/** Held while no engine is ready; what clients and probes can read meanwhile; the end. */

import { EventEmitter, once } from "node:events";
import { expect, test } from "vitest";
import { FakeEngine } from "../helpers/fake-engine.ts";
import {
  completion,
  readyz,
  startController,
  startEngine,
  startGateway,
  startStub,
} from "./helpers.ts";

function gate() {
  let ready = false;
  let answered = 0;
  return {
    open(): void {
      ready = true;
    },
    answered: () => answered,
    stub: () =>
      startStub(
        (_request, response) => {
          answered++;
          response.end("{}");
        },
        () => ready,
      ),
  };
}

test("requests wait for an engine that starts, and see its phases", async () => {
  const controller = await startController();
  const { endpoint } = controller;
  const engine = await startEngine("a", { endpoint, speed: 10 });
  const { url } = await startGateway({ a: engine.url }, { controller });
  const phases = new Set<string>();
  const early = completion(url, { max_tokens: 2 });
  await expect.poll(async () => (await readyz(url)).held).toBe(1);
  const before = await readyz(url);
  expect([before.status, before.ready]).toEqual([503, false]);
  await expect
    .poll(async () => {
      const { status, engines } = await readyz(url);
      phases.add(engines["a"]?.phase ?? "");
      return status;
    })
    .toBe(200);
  expect((await early).status).toBe(200);
  expect([...phases]).toContain("serving");
  expect([...phases].every((phase) => /^(unknown|loading|capturing|serving)$/.test(phase))).toBe(
    true,
  );
  await controller.waitForEngine({ engine: "a", settled: true });
  const { engines } = await readyz(url);
  expect(engines["a"]).toMatchObject({ phase: "serving", settled: true, graphsPlanned: 102 });
});

test("so many wait and no more; one that leaves makes room; all are answered in the end", async () => {
  const { open, stub, answered } = gate();
  const upstream = await stub();
  const { url } = await startGateway({ stub: upstream.url }, { holdMax: 2 });
  const held = async () => (await readyz(url)).held;
  const leaver = new AbortController();
  const left = completion(url, {}, leaver.signal).catch(() => "left");
  const stays = completion(url, {});
  await expect.poll(held).toBe(2);
  const third = await completion(url, {});
  expect([third.status, third.headers.get("retry-after")]).toEqual([503, "5"]);
  expect(await third.json()).toMatchObject({
    error: {
      type: "service_unavailable",
      message:
        "No engine is ready, and 2 requests wait already. See /readyz for each engine's phase.",
    },
  });
  leaver.abort();
  expect(await left).toBe("left");
  await expect.poll(held).toBe(1);
  const fourth = completion(url, {});
  await expect.poll(held).toBe(2);
  open();
  expect([(await stays).status, (await fourth).status]).toEqual([200, 200]);
  expect(answered()).toBe(2);
});

test("nobody waits longer than allowed", async () => {
  const upstream = await gate().stub();
  const { url } = await startGateway({ stub: upstream.url }, { holdSeconds: 0.05 });
  const response = await completion(url, {});
  expect([response.status, response.headers.get("retry-after")]).toEqual([503, "5"]);
  expect(await response.text()).toContain("No engine became ready in time.");
});

test("those who wait are announced to the engine that starts, and again when it is ready", async () => {
  const { stub } = gate();
  const upstream = await stub();
  const controller = await startController();
  const announced: unknown[] = [];
  const announce = controller.announce.bind(controller);
  controller.announce = (engine, announcement) => {
    announced.push({ engine, ...announcement });
    announce(engine, announcement);
  };
  const { url, gateway } = await startGateway({ fake: upstream.url }, { controller });
  const held = [completion(url, {}), completion(url, {})];
  await expect.poll(async () => (await readyz(url)).held).toBe(2);
  await using engine = new FakeEngine({ name: "fake" });
  await engine.connect(controller.endpoint);
  // Once while it chooses what it captures first, once just before they arrive.
  await expect
    .poll(() => announced)
    .toEqual([
      { engine: "fake", inSeconds: 0, requests: 2 },
      { engine: "fake", inSeconds: 0.5, requests: 2 },
    ]);
  await gateway.close(0);
  for (const response of await Promise.all(held)) expect(response.status).toBe(503);
});

test("drain: streams end whole, new requests and probes are told", async () => {
  let finish: () => void = () => {};
  const upstream = await startStub((_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write("data: 1\n\n");
    finish = () => response.end("data: [DONE]\n\n");
  });
  const { url, gateway } = await startGateway({ stub: upstream.url });
  const stream = await completion(url, { stream: true });
  const closed = gateway.close(60);
  const refused = await completion(url, {});
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "5"]);
  expect(await readyz(url)).toMatchObject({ status: 503, ready: false, draining: true });
  finish();
  expect(await stream.text()).toBe("data: 1\n\ndata: [DONE]\n\n");
  await closed;
  await expect(fetch(`${url}/livez`)).rejects.toThrow();
});

test("drain: what takes too long is ended with an error, and its engine told", async () => {
  const left = new EventEmitter();
  const asked = new EventEmitter();
  const upstream = await startStub((request, response) => {
    response.once("close", () => left.emit(request.url ?? ""));
    if (request.url === "/v1/completions") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("data: 1\n\n");
    } else asked.emit("models");
  });
  const { url, gateway } = await startGateway({ stub: upstream.url });
  const stream = await completion(url, { stream: true });
  const bothLeft = [once(left, "/v1/completions"), once(left, "/v1/models")];
  const silentAsked = once(asked, "models");
  const silent = fetch(`${url}/v1/models`);
  await silentAsked;
  await gateway.close(0);
  const [first, error] = (await stream.text()).split("\n\n");
  expect(first).toBe("data: 1");
  expect(error).toContain("broke off: the gateway is stopping.");
  expect((await silent).status).toBe(503);
  await Promise.all(bothLeft);
});

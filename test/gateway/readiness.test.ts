/** Held while no engine is ready; what clients and probes can read meanwhile; the end. */

import { EventEmitter, once } from "node:events";
import { type ClientRequest, request as send } from "node:http";
import { text as textOf } from "node:stream/consumers";
import { expect, onTestFinished, test } from "vitest";
import { freePort } from "../../src/bench/engine-command.ts";
import { joinEngine } from "../helpers/joined.ts";
import {
  completion,
  connection,
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
  const port = await freePort();
  const { url } = await startGateway({ a: `http://127.0.0.1:${port}` }, { controller });
  const phases = new Set<string>();
  const early = completion(url, { max_tokens: 2 });
  await expect.poll(async () => (await readyz(url)).held).toBe(1);
  const before = await readyz(url);
  expect([before.status, before.ready]).toEqual([503, false]);
  await startEngine("a", { endpoint, speed: 10, port });
  await expect
    .poll(async () => {
      const { status, engines } = await readyz(url);
      phases.add(engines["a"]?.phase ?? "");
      // Its health comes by HTTP, its phase by the controller's socket.
      return status === 200 && phases.has("serving");
    })
    .toBe(true);
  expect((await early).status).toBe(200);
  expect([...phases].every((phase) => /^(unknown|loading|capturing|serving)$/.test(phase))).toBe(
    true,
  );
  await controller.waitForEngine({ engine: "a", settled: true });
  const { engines } = await readyz(url);
  expect(engines["a"]).toMatchObject({ phase: "serving", settled: true, graphsPlanned: 102 });
});

test("an engine that isn't ready is said, with what its health check gave", async () => {
  const locked = await startStub((_request, response) => void response.writeHead(401).end());
  const gone = await startStub(() => undefined);
  gone.server.close();
  const said: string[] = [];
  const say = (sentence: string): void => void said.push(sentence);
  const { url } = await startGateway(
    { locked: `${locked.url}/v1?key=secret`, gone: gone.url },
    { say },
  );
  await expect.poll(() => said.length).toBe(2);
  expect(said.sort()).toEqual([
    `engine gone is not ready: ${gone.url}/health gave ECONNREFUSED`,
    `engine locked is not ready: ${locked.url}/health gave status 401`,
  ]);
  expect((await readyz(url)).engines).toMatchObject({
    gone: { ready: false, health: "ECONNREFUSED" },
    locked: { ready: false, health: "status 401" },
  });
});

test("what comes while an engine sleeps goes to one that is awake, or waits here", async () => {
  const controller = await startController();
  const { endpoint } = controller;
  const names = ["a", "b"] as const;
  const [a, b] = await Promise.all(names.map((name) => startEngine(name, { endpoint })));
  const said: string[] = [];
  const say = (sentence: string): void => void said.push(sentence);
  const urls = { a: a?.url ?? "", b: b?.url ?? "" };
  const settled = names.map((engine) => controller.waitForEngine({ engine, settled: true }));
  await Promise.all(settled);
  const { gateway, url } = await startGateway(urls, { controller, say });
  await expect.poll(async () => (await readyz(url)).engines["b"]?.ready).toBe(true);
  await controller.sleep("a");
  gateway.enginesChanged();
  for (const _ of names) expect((await completion(url, { max_tokens: 1 })).status).toBe(200);
  expect((await readyz(url)).engines["a"]).toMatchObject({ ready: false, inFlight: 0 });
  await controller.sleep("b");
  // No event tells of it: the next health check does.
  await expect.poll(async () => (await readyz(url)).status, { timeout: 20_000 }).toBe(503);
  expect((await readyz(url)).engines["b"]).toMatchObject({ health: "asleep", phase: "serving" });
  expect(said).toContain("engine b is not ready: it sleeps");
  const held = completion(url, { max_tokens: 1 });
  await expect.poll(async () => (await readyz(url)).held).toBe(1);
  await controller.wake("b");
  expect((await held).status).toBe(200);
});

test("an engine that the controller knows by another name, or not at all, is said", async () => {
  const controller = await startController();
  const known = await startEngine("engine-0", { endpoint: controller.endpoint });
  const [alone, also] = [await startEngine("alone"), await startEngine("also")];
  const said: string[] = [];
  const say = (sentence: string): void => {
    // While it loads its health is said, too.
    if (sentence.includes("the controller knows")) said.push(sentence);
  };
  const tail = /LAZYGRAPH_ENGINE for its name.* LAZYGRAPH_ENDPOINT/;
  await startGateway({ other: also.url, "engine-0": known.url }, { controller, say });
  await expect.poll(() => said).toHaveLength(1);
  expect(said[0]).toContain(
    "engine other serves, but the controller knows engine-0 and not other:",
  );
  expect(said[0]).toMatch(tail);
  await startGateway({ alone: alone.url }, { say });
  await expect.poll(() => said).toHaveLength(2);
  expect(said[1]).toContain("the controller knows none and not alone:");
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

/** A request whose body has so many bytes, none of them sent yet. */
function upload(url: string, bytes: number): ClientRequest {
  const headers = { "content-length": bytes };
  const outgoing = send(`${url}/v1/completions`, { method: "POST", headers });
  onTestFinished(() => void outgoing.destroy());
  outgoing.on("error", () => {});
  return outgoing;
}

test("a place is taken, or refused, before the body is there", async () => {
  const { open, stub, answered } = gate();
  const upstream = await stub();
  const { url } = await startGateway({ stub: upstream.url }, { holdMax: 1 });
  const held = async () => (await readyz(url)).held;
  const first = upload(url, 2);
  first.write("{");
  await expect.poll(held).toBe(1);
  const second = upload(url, 1 << 20);
  second.write("{");
  const [refused] = await once(second, "response");
  expect([refused.statusCode, refused.headers["retry-after"]]).toEqual([503, "5"]);
  expect(await textOf(refused)).toContain("No engine is ready, and 1 requests wait already.");
  first.destroy();
  await expect.poll(held).toBe(0);
  const third = upload(url, 2);
  third.write("{");
  await expect.poll(held).toBe(1);
  open();
  await expect.poll(async () => (await readyz(url)).ready).toBe(true);
  third.end("}");
  const [served] = await once(third, "response");
  expect([served.statusCode, answered(), await held()]).toEqual([200, 1, 0]);
});

test("bodies that no engine has yet are bounded together, and room that was given back is free", async () => {
  const { open, stub } = gate();
  const upstream = await stub();
  const { url } = await startGateway({ stub: upstream.url }, { holdBytes: 1 << 20 });
  const prompt = "x".repeat(600 << 10);
  const answers: (number | string | null)[][] = [];
  const sent = [1, 2, 3].map(async () => {
    const response = await completion(url, { prompt });
    answers.push([response.status, response.headers.get("retry-after")]);
    return await response.text();
  });
  // Whichever of them is the last one alone has room enough.
  await expect
    .poll(() => answers)
    .toEqual([
      [503, "5"],
      [503, "5"],
    ]);
  expect((await readyz(url)).held).toBe(1);
  open();
  const texts = (await Promise.all(sent)).sort();
  expect(answers[2]).toEqual([200, null]);
  expect(texts[1]).toContain("Bodies that no engine has yet are at most 1048576 bytes.");
  for (let index = 0; index < 3; index++) {
    expect((await completion(url, { prompt })).status).toBe(200);
  }
});

test("a body that is refused half-way leaves its connection usable", async () => {
  const upstream = await gate().stub();
  const { url } = await startGateway({ stub: upstream.url }, { holdBytes: 1 << 20 });
  const socket = await connection(url);
  let text = "";
  socket.on("data", (bytes) => {
    text += bytes;
  });
  // Much more than may be read: whoever reads it on can't have given up early.
  const bytes = 70 << 20;
  socket.write(`POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: ${bytes}\r\n\r\n`);
  socket.write(Buffer.alloc(bytes));
  socket.write("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
  await expect.poll(() => text.match(/HTTP\/1.1 \d+/g)).toEqual(["HTTP/1.1 503", "HTTP/1.1 200"]);
  expect(text).toContain("retry-after: 5");
});

test("a body that an engine has takes no room from the next one", async () => {
  const asked = new EventEmitter();
  const upstream = await startStub(async (request, response) => {
    await textOf(request);
    asked.emit("whole", response);
  });
  const { url } = await startGateway({ stub: upstream.url }, { holdBytes: 1 << 20 });
  const prompt = "x".repeat(600 << 10);
  await expect.poll(async () => (await readyz(url)).ready).toBe(true);
  const sent: Promise<Response>[] = [];
  for (let index = 0; index < 3; index++) {
    const whole = once(asked, "whole");
    sent.push(completion(url, { prompt }));
    const [response] = await whole;
    asked.once("answer", () => response.end("{}"));
  }
  asked.emit("answer");
  expect((await Promise.all(sent)).map(({ status }) => status)).toEqual([200, 200, 200]);
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
  controller.announce = (engine, announcement) => {
    announced.push({ engine, ...announcement });
    // As a standby does that doesn't lead yet: thrown to who publishes it would end the process.
    throw new Error("No controller is there yet.");
  };
  const { url, gateway } = await startGateway({ fake: upstream.url }, { controller });
  const held = [completion(url, {}), completion(url, {})];
  await expect.poll(async () => (await readyz(url)).held).toBe(2);
  await using _engine = await joinEngine(controller, { name: "fake" });
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

test("drain: who has a place and still sends is told, too", async () => {
  const upstream = await gate().stub();
  const { url, gateway } = await startGateway({ stub: upstream.url });
  const outgoing = upload(url, 2);
  outgoing.write("{");
  await expect.poll(async () => (await readyz(url)).held).toBe(1);
  const closed = gateway.close(60);
  outgoing.end("}");
  const [refused] = await once(outgoing, "response");
  expect([refused.statusCode, refused.headers["retry-after"]]).toEqual([503, "5"]);
  expect(await textOf(refused)).toContain("The gateway is stopping.");
  await closed;
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

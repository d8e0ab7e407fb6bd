/** What passes through the gateway, and what ends it half-way. */

import { once } from "node:events";
import { get, type IncomingHttpHeaders, request as send } from "node:http";
import type { Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { expect, onTestFinished, test } from "vitest";
import { WholeEvents } from "../../examples/gateway/src/sse.ts";
import { completion, connection, readyz, startGateway, startStub } from "./helpers.ts";

test("bytes pass unchanged, both ways, headers and status too", async () => {
  const pieces = [
    "data: {a}\r\n\r\nda",
    "ta: Zür",
    "ich\n\n: comment\n\ndata: [DONE]",
    "\n\nno end",
  ];
  const bytes = Buffer.concat([Buffer.from(pieces.join("")), Buffer.from([0, 255, 10, 10, 128])]);
  const seen: { method: string | undefined; url: string | undefined; body: Buffer }[] = [];
  const upstream = await startStub(async (request, response) => {
    const { method, url } = request;
    seen.push({ method, url, body: await buffer(request) });
    response.writeHead(207, { "content-type": "text/event-stream", "x-own": ["1", "2"] });
    // Cut where no event ends, in the middle of a character too.
    for (let at = 0; at < bytes.length; at += 7) response.write(bytes.subarray(at, at + 7));
    response.end();
  });
  const { url } = await startGateway({ stub: `${upstream.url}/prefix/` });
  const sent = Buffer.from([1, 2, 0, 255]);
  const response = await fetch(`${upstream.url}/prefix/v1/x?y=%20`, { method: "PUT", body: sent });
  const direct = Buffer.from(await response.arrayBuffer());
  expect(direct.equals(bytes)).toBe(true);
  const outgoing = send(`${url}/v1/x?y=%20`, { method: "PUT", headers: { te: "trailers" } });
  outgoing.end(sent);
  const [incoming] = await once(outgoing, "response");
  expect(incoming.statusCode).toBe(207);
  expect(incoming.headers["x-own"]).toBe("1, 2");
  expect((await buffer(incoming)).equals(bytes)).toBe(true);
  expect(seen[1]).toEqual({ method: "PUT", url: "/prefix/v1/x?y=%20", body: sent });
});

test("what is of one connection only stays there, both ways", async () => {
  const seen: IncomingHttpHeaders[] = [];
  const upstream = await startStub((request, response) => {
    seen.push(request.headers);
    const own = { connection: "keep-alive ,X-Back", "x-back": "1", "x-own": "2" };
    response.writeHead(200, own).end("{}");
  });
  const { url } = await startGateway({ stub: upstream.url });
  const own = { connection: "close, X-Hop", "x-hop": "1", "x-own": "2" };
  const [incoming] = await once(get(`${url}/v1/models`, { headers: own }), "response");
  incoming.resume();
  expect(seen[0]).toMatchObject({ "x-own": "2" });
  expect(seen[0]).not.toHaveProperty("x-hop");
  expect(incoming.headers).toMatchObject({ "x-own": "2" });
  expect(incoming.headers).not.toHaveProperty("x-back");
});

test.for(["\n", "\r\n", "\r"])("events of lines that end in %j pass as they come", (end) => {
  const events = new WholeEvents();
  const event = `data: 1${end}${end}`;
  // Of CR LF the last byte is waited for, of CR none.
  expect(events.push(Buffer.from(`${event}dat`)).toString()).toBe(event);
  expect(events.push(Buffer.from(`a: 2${end}${end}`)).toString()).toBe(`data: 2${end}${end}`);
  expect(events.rest()).toHaveLength(0);
});

test("whole events, however they are cut", () => {
  const text = "data: 1\n\ndata: 2\r\n\r\n: c\n\ndata: 3\n\nhalf";
  for (let size = 1; size <= text.length; size++) {
    const events = new WholeEvents();
    let passed = "";
    for (let at = 0; at < text.length; at += size) {
      const piece = events.push(Buffer.from(text.slice(at, at + size))).toString();
      expect(piece).toMatch(/^$|\n\r?\n$/);
      passed += piece;
    }
    expect(passed + events.rest().toString()).toBe(text);
    expect(events.rest().toString()).toBe("half");
  }
  const endless = new WholeEvents();
  expect(endless.push(Buffer.alloc((1 << 20) + 1)).length).toBe((1 << 20) + 1);
});

test("a slow reader slows the engine down: the gateway holds next to nothing", async () => {
  const chunk = Buffer.alloc(64 << 10, "x");
  const chunks = 512;
  const upstream = await startStub(async (_request, response) => {
    for (let index = 0; index < chunks; index++) {
      if (!response.write(chunk)) await once(response, "drain");
    }
    response.end();
  });
  const { url, gateway } = await startGateway({ stub: upstream.url });
  let heldBytesMax = 0;
  gateway.server.on("request", (_request, response) => {
    const write = response.write.bind(response) as (data: Buffer) => boolean;
    response.write = (data: Buffer) => {
      const more = write(data);
      heldBytesMax = Math.max(heldBytesMax, response.writableLength);
      return more;
    };
  });
  const [incoming] = await once(get(`${url}/v1/big`), "response");
  let bytes = 0;
  for await (const piece of incoming) {
    bytes += piece.length;
    // Slower than the upstream writes.
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(bytes).toBe(chunks * chunk.length);
  expect(heldBytesMax).toBeLessThan(1 << 20);
  expect(heldBytesMax).toBeGreaterThan(0);
});

test("a client that leaves ends what it has queued on its connection, too", async () => {
  const piece = `data: ${"x".repeat(64 << 10)}\n\n`;
  let streams = 0;
  const upstream = await startStub(async (_request, response) => {
    streams++;
    const closed = once(response, "close").then(() => streams--);
    response.writeHead(200, { "content-type": "text/event-stream" });
    while (!response.destroyed) {
      if (!response.write(piece)) await Promise.race([once(response, "drain"), closed]);
    }
  });
  const { url } = await startGateway({ stub: upstream.url });
  const inFlight = async () => (await readyz(url)).engines["stub"]?.inFlight;
  const socket = await connection(url);
  const request = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
  socket.write(request + request);
  await expect.poll(inFlight).toBe(2);
  socket.destroy();
  await expect.poll(inFlight).toBe(0);
  await expect.poll(() => streams).toBe(0);
  const metrics = await (await fetch(`${url}/metrics`)).text();
  expect(metrics).toContain('gateway_requests_total{engine="stub",outcome="left"} 2');
});

test("many requests on one connection leave nothing on it", async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => void warnings.push(warning);
  process.on("warning", onWarning);
  onTestFinished(() => void process.off("warning", onWarning));
  const upstream = await startStub((_request, response) => void response.end("{}"));
  const { url, gateway } = await startGateway({ stub: upstream.url });
  const accepted = once(gateway.server, "connection");
  const socket = await connection(url);
  const [theirs] = (await accepted) as [Socket];
  const before = theirs.listenerCount("close");
  let text = "";
  socket.on("data", (bytes) => {
    text += bytes;
  });
  const answers = () => text.split("HTTP/1.1 200 OK").length - 1;
  socket.write("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n".repeat(40));
  await expect.poll(answers).toBe(40);
  // The end of the last answer may still be under way.
  await expect.poll(() => theirs.listenerCount("close")).toBe(before);
  expect(warnings).toEqual([]);
});

test("no first byte in time is a 504, and the engine is told", async () => {
  let told: () => void = () => {};
  const left = new Promise<void>((resolve) => {
    told = resolve;
  });
  const upstream = await startStub((_request, response) => {
    response.once("close", told);
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
  });
  // Long enough for the request to reach the stub on a busy host: else nobody is there to be told.
  const { url } = await startGateway({ stub: upstream.url }, { firstByteSeconds: 3 });
  const response = await completion(url, { stream: true });
  expect(response.status).toBe(504);
  expect(await response.json()).toMatchObject({ error: { type: "timeout", code: 504 } });
  await left;
});

test("a stream that breaks off ends with an error event, after whole events only", async () => {
  const upstream = await startStub((_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('data: {"whole":1}\n\ndata: {"hal', () => response.destroy());
  });
  const { url } = await startGateway({ stub: upstream.url });
  const text = await (await completion(url, { stream: true })).text();
  const [whole, error, ...rest] = text.split("\n\n");
  expect(whole).toBe('data: {"whole":1}');
  expect(JSON.parse(error?.slice(6) ?? "")).toMatchObject({
    error: { type: "upstream_error", code: 502, message: /^The stream of stub broke off: / },
  });
  expect(rest).toEqual([""]);
});

test("any other body that breaks off breaks off", async () => {
  const upstream = await startStub((_request, response) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": "100" });
    response.write('{"half":', () => response.destroy());
  });
  const { url } = await startGateway({ stub: upstream.url });
  const response = await completion(url, {});
  await expect(response.text()).rejects.toThrow();
});

test("no answer at all: the other engine, or a 502", async () => {
  const asked: string[] = [];
  const dead = await startStub((_request, response) => {
    asked.push("dead");
    response.destroy();
  });
  const alone = await startGateway({ dead: dead.url });
  const refused = await completion(alone.url, {});
  expect(refused.status).toBe(502);
  expect(await refused.json()).toMatchObject({ error: { message: "No answer from dead." } });

  const alive = await startStub((_request, response) => void response.end("{}"));
  const both = await startGateway({ dead: dead.url, alive: alive.url });
  await expect
    .poll(async () => {
      const response = await completion(both.url, {});
      expect(response.status).toBe(200);
      return asked.length;
    })
    .toBeGreaterThan(1);
});

test("an engine that closes an idle connection is asked once more, and only once", async () => {
  let asked = 0;
  const dead = new Set([2, 4, 5]);
  const upstream = await startStub((request, response) => {
    asked++;
    if (dead.has(asked)) request.socket.destroy();
    else response.end("{}");
  });
  const { url } = await startGateway({ stub: upstream.url });
  const statuses: number[] = [];
  for (let count = 0; count < 3; count++) {
    const response = await completion(url, {});
    await response.arrayBuffer();
    statuses.push(response.status);
  }
  expect(statuses).toEqual([200, 200, 502]);
  expect(asked).toBe(5);
});

test("a body that is too large is refused, and the gateway goes on", async () => {
  const upstream = await startStub((_request, response) => void response.end("{}"));
  const { url } = await startGateway({ stub: upstream.url });
  const outgoing = send(`${url}/v1/completions`, { method: "POST" });
  onTestFinished(() => void outgoing.destroy());
  // The connection ends with the answer, maybe while this side still sends.
  outgoing.on("error", () => {});
  outgoing.write(Buffer.alloc((32 << 20) + 1));
  const [incoming] = await once(outgoing, "response");
  expect(incoming.statusCode).toBe(413);
  expect((await completion(url, {})).status).toBe(200);
});

test("paths of its own, and none else", async () => {
  const upstream = await startStub((_request, response) => void response.end("{}"));
  const { url } = await startGateway({ stub: upstream.url });
  expect((await fetch(`${url}/livez`)).status).toBe(200);
  await completion(url, {});
  const metrics = await (await fetch(`${url}/metrics`)).text();
  expect(metrics).toContain('gateway_requests_total{engine="stub",outcome="done"} 1');
});

test("a connection that can't be taken is told, and no end", async () => {
  const said: string[] = [];
  const { gateway } = await startGateway({}, { say: (sentence) => said.push(sentence) });
  gateway.server.emit("error", new Error("accept EMFILE"));
  expect(said).toEqual(["A connection could not be taken: accept EMFILE"]);
});

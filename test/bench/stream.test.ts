import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { type StreamRequest, streamRequest } from "../../src/bench/stream.ts";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { DONE, NOWHERE, STREAM, serve, token, usage } from "./helpers/server.ts";

const ask = (url: URL, more: Partial<StreamRequest> = {}) =>
  streamRequest({
    server: new ServerAddress(url),
    endpoint: "completions",
    model: "m",
    prompt: "a b c",
    maxTokens: 3,
    ignoreEos: true,
    timeoutMs: 100_000,
    ...more,
  });

test("a stream gives the time of each token, and the server's own counts", async () => {
  let body = "";
  const url = await serve((request, response) => {
    request.on("data", (part) => {
      body += part;
    });
    request.on("end", () => {
      response.writeHead(200, STREAM);
      response.write(`: a ping\n\n${token(" 1")}`);
      response.write(token(" 2"));
      response.end(token("") + usage(7, 3) + DONE);
    });
  });
  const before = performance.now();
  const outcome = await ask(url);
  expect(outcome.failure).toBeUndefined();
  // An empty text is no token, whatever the server counts.
  expect(outcome.tokensAtMs).toHaveLength(2);
  expect(outcome.tokensAtMs).toEqual([...outcome.tokensAtMs].sort((a, b) => a - b));
  expect(outcome.sentAtMs).toBeGreaterThanOrEqual(before);
  expect(outcome).toMatchObject({ promptTokens: 7, outputTokens: 3 });
  expect(JSON.parse(body)).toEqual({
    model: "m",
    prompt: "a b c",
    max_tokens: 3,
    temperature: 0,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  });
});

test("a chat's first event with the role alone is no token", async () => {
  const delta = (value: object): string =>
    `data: ${JSON.stringify({ choices: [{ index: 0, delta: value }] })}\n\n`;
  const url = await serve((_, response) => {
    response.writeHead(200, STREAM);
    response.end(
      delta({ role: "assistant", content: "" }) +
        delta({ content: "hi" }) +
        delta({ reasoning_content: "hm" }) +
        DONE,
    );
  });
  const outcome = await ask(url, { endpoint: "chat" });
  expect(outcome.failure).toBeUndefined();
  expect(outcome.tokensAtMs).toHaveLength(2);
});

test("nobody there", async () => {
  const outcome = await ask(NOWHERE);
  expect(outcome.failure).toEqual({ kind: "unreachable", detail: "ECONNREFUSED" });
});

test.for([
  [404, '{"error":{"message":"The model `m` does not exist."}}', "no_model"],
  [404, '{"detail":"Not Found"}', "http_error"],
  [429, "slow down", "rate_limited"],
  [503, "not ready", "http_error"],
  [200, '{"choices":[{"text":"not streamed"}]}', "not_sse"],
] as const)("%i %s is %s", async ([status, text, kind]) => {
  const url = await serve((_, response) => {
    response.writeHead(status, { "content-type": "application/json" }).end(text);
  });
  const { failure } = await ask(url);
  expect(failure?.kind).toBe(kind);
  expect(failure?.detail).toContain(text.slice(0, 20));
});

test("a stream that breaks off half-way keeps the tokens it had", async () => {
  const url = await serve((request, response) => {
    // Read to its end: a connection closed with unread bytes is reset, and what was sent is lost.
    request.resume().on("end", () => {
      response.writeHead(200, STREAM);
      response.write(token(" 1"), () => response.destroy());
    });
  });
  const outcome = await ask(url);
  expect(outcome.failure?.kind).toBe("cut_off");
  expect(outcome.tokensAtMs).toHaveLength(1);
});

test("a stream that ends politely but without [DONE] is cut off too", async () => {
  const url = await serve((_, response) => {
    response.writeHead(200, STREAM).end(token(" 1"));
  });
  expect((await ask(url)).failure?.kind).toBe("cut_off");
});

test.for([
  ["data: nonsense\n\n", "bad_event"],
  ['data: {"error":{"message":"the engine died"}}\n\n', "server_error"],
  [`data: ${"x".repeat(1 << 21)}`, "bad_event"],
  [DONE, "no_token"],
] as const)("%# an event that is none", async ([text, kind]) => {
  const url = await serve((_, response) => {
    response.writeHead(200, STREAM);
    // Left open: the client must not wait for more once it knows.
    if (kind !== "no_token") response.write(text);
    else response.end(text);
  });
  expect((await ask(url)).failure?.kind).toBe(kind);
});

test("an answer that never ends runs into its time limit", async () => {
  const url = await serve(() => {});
  expect((await ask(url, { timeoutMs: 50 })).failure?.kind).toBe("timeout");
});

test("an abort ends a request under way, and one not sent yet", async () => {
  const controller = new AbortController();
  const url = await serve(() => controller.abort());
  expect((await ask(url, { signal: controller.signal })).failure?.kind).toBe("aborted");
  expect((await ask(url, { signal: controller.signal })).failure?.kind).toBe("aborted");
});

test("a connection that the server closed before the first byte is tried once more", async () => {
  let asked = 0;
  const url = await serve((request, response) => {
    asked++;
    // The first one is answered whole, so that its connection is kept; the next finds it closed.
    if (asked === 2) request.socket.destroy();
    else response.writeHead(200, STREAM).end(token(" 1") + DONE);
  });
  expect(await ask(url)).toMatchObject({ failure: undefined, resent: false });
  expect(await ask(url)).toMatchObject({ failure: undefined, resent: true });
  expect(asked).toBe(3);
});

test("a new connection that is closed is no idle one: it is not tried again", async () => {
  let asked = 0;
  const url = await serve((request) => {
    asked++;
    request.socket.destroy();
  });
  expect((await ask(url)).failure).toEqual({ kind: "unreachable", detail: "ECONNRESET" });
  expect(asked).toBe(1);
});

test.for([
  ["right behind the answer", false],
  ["on the idle connection", true],
] as const)("what a server says unasked %s is nobody's answer", async ([, isLater]) => {
  const body = token(" 1") + DONE;
  const head = (status: string, length: number): string =>
    `HTTP/1.1 ${status}\r\ncontent-type: text/event-stream\r\ncontent-length: ${length}\r\n\r\n`;
  const own = head("200 OK", body.length) + body;
  const unasked = head("408 Request Timeout", 0);
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket.on("error", () => undefined));
    socket.once("data", () => socket.write(isLater ? own : own + unasked));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  expect((await ask(url)).failure).toBeUndefined();
  const [first] = sockets as [Socket];
  if (isLater) first.write(unasked);
  await once(first.resume(), "close");
  // Two at once: a connection that was kept twice would carry both.
  const both = await Promise.all([ask(url), ask(url)]);
  expect(both.map(({ failure }) => failure)).toEqual([undefined, undefined]);
});

test.for([
  ["unauthorized", 401, "bad key sk-secret-1", /by --api-key or OPENAI_API_KEY\. bad key …/],
  ["http_error", 400, "unknown field stream_options", /^--no-stream-options leaves out/],
  ["http_error", 422, "extra inputs: ignore_eos", /^--stop-at-eos leaves out ignore_eos/],
] as const)("%s: the sentence names the option, and no key", async ([kind, status, text, says]) => {
  const url = await serve((_, response) => {
    response.writeHead(status, { "content-type": "text/plain" }).end(text);
  });
  const server = new ServerAddress(url, { apiKey: "sk-secret-1" });
  const { failure } = await ask(url, { server });
  expect(failure?.kind).toBe(kind);
  expect(failure?.detail).toMatch(says);
});

test("what a server may refuse can be left out", async () => {
  let body = "";
  const url = await serve((request, response) => {
    request.on("data", (part) => {
      body += part;
    });
    request.on("end", () => response.writeHead(200, STREAM).end(token(" 1") + DONE));
  });
  await ask(url, { ignoreEos: false, maxTokensSent: false, streamOptions: false });
  expect(JSON.parse(body)).toEqual({ model: "m", prompt: "a b c", temperature: 0, stream: true });
});

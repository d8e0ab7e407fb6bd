import { existsSync } from "node:fs";
import { createServer, type IncomingMessage, request as sendRequest } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import OpenAI from "openai";
import { beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { onEvent } from "../../src/engine/events.ts";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { createRecordingProxy } from "../../src/record/proxy.ts";
import { createTraceRecorder } from "../../src/record/recorder.ts";
import { type SimulatedServer, startSimulatedServer } from "../../src/sim/live/server.ts";
import { readTrace } from "../../src/trace/trace.ts";
import { finish, lazygraph } from "../cli/helpers/command.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { listening } from "../helpers/listening.ts";

let upstream: SimulatedServer;

beforeAll(async () => {
  upstream = await startSimulatedServer({ speed: 50 });
  await upstream.ready;
  return () => upstream.close();
});

async function rows(file: string) {
  const requests: object[] = [];
  for await (const { promptTokens, outputTokens } of readTrace(file)) {
    requests.push({ promptTokens, outputTokens });
  }
  return requests;
}

test("records what passes, and passes it unchanged", async () => {
  const file = join(await temporaryFolder(), "own.csv.gz");
  const options = ["--listen", "127.0.0.1:0", "--json"];
  const running = lazygraph(["record", "--upstream", upstream.url, "--output", file, ...options]);
  const line = await running.line("stderr", /recording at http:\S+ in front of/);
  const url = /at (http:\S+) /.exec(line)?.[1] ?? "";
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const { model } = upstream;
  expect((await client.models.list()).data[0]?.id).toBe(model);
  const whole = await client.completions.create({ model, prompt: "one two three", max_tokens: 4 });
  expect(whole.choices[0]?.text).toBe(" 1 2 3 4");
  const stream = await client.chat.completions.create({
    model,
    messages: [{ role: "user", content: "one two" }],
    max_tokens: 5,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  expect(text).toBe(" 1 2 3 4 5");
  const refused = client.completions.create({ model: "other", prompt: "x", max_tokens: 1 });
  await expect(refused).rejects.toMatchObject({ status: 404 });
  running.process.kill("SIGTERM");
  const { code, stdout, stderr } = await running.finished;
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual({
    recorded: 2,
    estimated: 0,
    leftEarly: 0,
    unanswered: 1,
    leftOut: 0,
    passed: 1,
    reasons: { http_error: 1 },
  });
  const others = "1 without a whole answer (http_error 1); 1 of other kinds.";
  expect(stderr).toContain(`2 requests in ${file}; ${others}`);
  expect(await rows(file)).toEqual([
    { promptTokens: 3, outputTokens: 4 },
    { promptTokens: 6, outputTokens: 5 },
  ]);
});

async function proxy(to: string) {
  const file = join(await temporaryFolder(), "own.csv");
  const recorder = await createTraceRecorder({ file });
  const url = await listening(createRecordingProxy(new ServerAddress(new URL(to)), recorder));
  return { url, recorder, file };
}

test("a client that leaves half-way ends its request upstream, and counts so far", async () => {
  const { url, recorder } = await proxy(`${upstream.url}/v1/`);
  const limit = new AbortController();
  const body = { model: upstream.model, prompt: "x", max_tokens: 50_000, stream: true };
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    body: JSON.stringify(body),
    signal: limit.signal,
  });
  const reader = response.body?.getReader();
  await reader?.read();
  expect(upstream.engine.model.running).toBe(1);
  limit.abort();
  await reader?.closed.catch(() => {});
  await expect.poll(() => upstream.engine.model.running).toBe(0);
  expect(await recorder.close()).toMatchObject({ recorded: 1, estimated: 1, leftEarly: 1 });
});

test("an upstream that is away is a 502, one that breaks off ends the connection", async () => {
  const away = await proxy("http://127.0.0.1:1");
  const post = { method: "POST", body: "{}" };
  const response = await fetch(`${away.url}/v1/completions`, post);
  expect(response.status).toBe(502);
  expect(await response.json()).toMatchObject({
    error: {
      message: expect.stringContaining("ECONNREFUSED"),
      code: "ERR_LAZYGRAPH_UPSTREAM",
    },
  });
  expect(await away.recorder.close()).toMatchObject({ recorded: 0, unanswered: 1 });

  const broken = createServer((_request, answer) => {
    answer.writeHead(200, { "content-length": "100" });
    answer.write("half", () => answer.destroy());
  });
  const to = await listening(broken);
  const cut = await proxy(to);
  const told: string[] = [];
  onTestFinished(onEvent("lazygraph:problem", ({ message }) => void told.push(message)));
  for (let count = 0; count < 2; count++) {
    const half = await fetch(`${cut.url}/v1/completions`, post);
    await expect(half.text()).rejects.toThrow();
  }
  const sentence = `Expected the whole answer of ${to}, got `;
  expect(told).toEqual([expect.stringContaining(sentence)]);
  expect(await cut.recorder.close()).toMatchObject({ unanswered: 2, reasons: { cut_off: 2 } });
});

test("a request that comes back by another name is refused, and counted once", async () => {
  const hop = createServer((request, answer) => {
    const { method = "", headers } = request;
    const back = sendRequest(`${own.url}${request.url}`, { method, headers }, (from) => {
      answer.writeHead(from.statusCode ?? 0, from.headers);
      from.pipe(answer);
    });
    request.pipe(back);
  });
  const own = await proxy(await listening(hop));
  const post = { method: "POST", body: "{}" };
  const response = await fetch(`${own.url}/v1/completions`, post);
  expect(response.status).toBe(508);
  expect(await response.json()).toMatchObject({
    error: { message: expect.stringMatching(/own request back/), code: "ERR_LAZYGRAPH_UPSTREAM" },
  });
  expect(await own.recorder.close()).toMatchObject({ reasons: { http_error: 1 }, passed: 1 });
});

test("a server that is away is told once, and every request to it is counted", async () => {
  const file = join(await temporaryFolder(), "own.csv");
  const options = ["--listen", "127.0.0.1:0", "--json"];
  const away = ["--upstream", "http://127.0.0.1:1", "--output", file];
  const running = lazygraph(["record", ...away, ...options]);
  const line = await running.line("stderr", /recording at http:\S+ in front of/);
  const url = /at (http:\S+) /.exec(line)?.[1] ?? "";
  for (let count = 0; count < 3; count++) {
    const post = { method: "POST", body: JSON.stringify({ prompt: "x".repeat(count * 100_000) }) };
    expect((await fetch(`${url}/v1/chat/completions`, post)).status).toBe(502);
  }
  running.process.kill("SIGTERM");
  const { stdout, stderr } = await running.finished;
  expect(JSON.parse(stdout)).toMatchObject({
    recorded: 0,
    unanswered: 3,
    leftOut: 0,
    reasons: { no_answer: 3 },
  });
  expect(stderr.match(/\[ERR_LAZYGRAPH_UPSTREAM\]/g)).toHaveLength(1);
  expect(stderr).toContain("3 without a whole answer (no_answer 3).");
});

test("a signal lets answers end and says so, a second one ends at once, with the counts", async () => {
  const file = join(await temporaryFolder(), "own.csv");
  const options = ["--output", file, "--listen", "127.0.0.1:0", "--json"];
  const running = lazygraph(["record", "--upstream", upstream.url, ...options]);
  const line = await running.line("stderr", /recording at http:\S+ in front of/);
  const url = /at (http:\S+) /.exec(line)?.[1] ?? "";
  const body = { model: upstream.model, prompt: "x", max_tokens: 50_000, stream: true };
  const post = { method: "POST", body: JSON.stringify(body) };
  const reader = (await fetch(`${url}/v1/completions`, post)).body?.getReader();
  await reader?.read();
  running.process.kill("SIGINT");
  await running.line("stderr", /SIGINT: 1 answer under way may end, .*; once more ends at once\./);
  running.process.kill("SIGINT");
  const { code, stdout, stderr } = await running.finished;
  expect(code).toBe(130);
  expect(stderr).toContain(`1 request in ${file}`);
  expect(JSON.parse(stdout)).toMatchObject({ recorded: 1 });
  expect(await rows(file)).toHaveLength(1);
});

describe("what can't work ends in one sentence", () => {
  const to = ["--upstream", "http://127.0.0.1:1"];
  test.for([
    [[], "Expected --upstream to be a URL such as http://127.0.0.1:8000, got none."],
    [["--upstream", "ftp://x"], "Expected --upstream to be a URL"],
    [to, "Expected --output to be a file such as trace.csv.gz, got none."],
    [[...to, "--output", "x", "--listen", "0.0.0.0:0"], "Expected --listen to be on loopback"],
    [
      [...to, "--output", "/nowhere/x"],
      "Expected /nowhere/x to be a new file that can be written, got ENOENT: there is no such folder",
    ],
    [
      ["--upstream", "http://localhost:1", "--output", "/nowhere/x", "--listen", "127.0.0.1:1"],
      "Expected --upstream to be a server, got http://localhost:1, where",
    ],
  ] as const)("record %j", async ([options, sentence]) => {
    const { code, stdout, stderr } = await finish(["record", ...options]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(sentence);
    expect(stderr).toMatch(/^lazygraph: .* \[ERR_LAZYGRAPH_\w+\]\n$/);
  });

  test("an occupied address leaves no file behind", async () => {
    const { host } = new URL(await listening(createServer()));
    const file = join(await temporaryFolder(), "own.csv");
    const options = [...to, "--output", file, "--listen", host];
    const { code, stderr } = await finish(["record", ...options]);
    expect(code).toBe(1);
    expect(stderr).toContain("Expected a free address for --listen");
    expect(existsSync(file)).toBe(false);
  });
});

describe("forms of requests", () => {
  let asked: IncomingMessage[];
  let counts: () => Promise<object>;
  /** All that comes back for a head, whose connection ends with its answer. */
  let send: (line: string, ...headers: string[]) => Promise<string>;

  beforeEach(async () => {
    asked = [];
    const server = createServer((request, response) => {
      asked.push(request);
      if (request.url?.endsWith("/hints")) {
        response.writeProcessing();
        response.writeEarlyHints({ link: "</a>; rel=preload" });
      }
      if (request.url?.endsWith("/same")) response.writeHead(304, { "content-length": 5 });
      response.end();
    });
    const { host } = new URL(await listening(server));
    const { url, recorder } = await proxy(`http://key@${host}/base/v1`);
    counts = () => recorder.close();
    send = async (line, ...headers) => {
      const socket = connect(Number(new URL(url).port), "127.0.0.1");
      socket.write([line, "Host: x", ...headers, "", ""].join("\r\n"));
      return text(socket);
    };
  });

  test.for([
    ["OPTIONS *", "*"],
    ["OPTIONS http://x", "*"],
    ["OPTIONS /v1/models", "/base/v1/models"],
    ["GET http://x", "/base/"],
    ["GET HTTPS://x:1?a=b", "/base/?a=b"],
    ["GET http://x/v1/models?a=/b", "/base/v1/models?a=/b"],
    ["HEAD //x/v1", "/base//x/v1"],
  ] as const)("%s asks the server for %s", async ([line, path]) => {
    const answer = await send(`${line} HTTP/1.1`, "Connection: close");
    expect(answer).toMatch(/^HTTP\/1.1 200 OK\r\n/);
    expect(asked.map(({ url, headers }) => [url, headers.authorization])).toEqual([
      [path, "Basic a2V5Og=="],
    ]);
  });

  test("the server gets one header more, behind those of others on the way", async () => {
    await send("GET /v1/models HTTP/1.0", "Via: 1.1 other", "X-Own: 1");
    const { via = "", ...headers } = asked[0]?.headers ?? {};
    expect(via).toMatch(/^1\.1 other, 1\.0 lazygraph-[0-9a-f]{16}$/);
    expect(Object.keys(headers).sort()).toEqual(["authorization", "connection", "host", "x-own"]);
  });

  test("a client that takes it for its proxy is recorded, too", async () => {
    await send("POST http://x/v1/completions HTTP/1.1", "Content-Length: 0", "Connection: close");
    expect(asked).toHaveLength(1);
    expect(await counts()).toMatchObject({ unanswered: 1, passed: 0 });
  });

  test.for([
    ["GET *", 400, "ERR_HTTP_TARGET", "Connection: close"],
    ["TRACE /", 501, "ERR_HTTP_METHOD", "Connection: close"],
    ["CONNECT x:443", 501, "ERR_HTTP_METHOD", "Connection: close"],
    [
      "GET /v1/realtime",
      501,
      "ERR_HTTP_UPGRADE",
      "Connection: close, upgrade\r\nUpgrade: WebSocket",
    ],
  ] as const)("%s is refused with a sentence", async ([line, status, code, header]) => {
    const answer = await send(`${line} HTTP/1.1`, header);
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(answer).toMatch(/"Expected .+, got .+\."/);
    expect(answer).toContain(`"code":"${code}"`);
    expect(asked).toEqual([]);
  });

  test("an offer to speak another protocol is left alone", async () => {
    const offer = ["Connection: close, upgrade", "Upgrade: h2c"];
    expect(await send("GET /v1/models HTTP/1.1", ...offer)).toMatch(/^HTTP\/1.1 200 /);
    expect(asked[0]?.headers).not.toHaveProperty("upgrade");
  });

  test("what comes before an answer is passed on, but to clients of HTTP/1.0", async () => {
    const interim = await send("GET /hints HTTP/1.1", "Connection: close");
    expect(interim.match(/HTTP\/1.1 \d+|Link: .*/g)).toEqual([
      ...["HTTP/1.1 102", "HTTP/1.1 103", "Link: </a>; rel=preload", "HTTP/1.1 200"],
    ]);
    expect(await send("GET /hints HTTP/1.0")).toMatch(/^HTTP\/1.1 200 /);
  });

  test("an answer without a body that tells a length leaves the connection open", async () => {
    const again = "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close";
    const answers = await send("GET /same HTTP/1.1", `\r\n${again}`);
    expect(answers.match(/HTTP\/1.1 \d+/g)).toEqual(["HTTP/1.1 304", "HTTP/1.1 200"]);
  });
});

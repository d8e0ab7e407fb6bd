import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import OpenAI from "openai";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { createRecordingProxy } from "../../src/record/proxy.ts";
import { createTraceRecorder } from "../../src/record/recorder.ts";
import { type SimulatedServer, startSimulatedServer } from "../../src/sim/live/server.ts";
import { readTrace } from "../../src/trace/trace.ts";
import { finish, lazygraph } from "../cli/helpers/command.ts";
import { temporaryFolder } from "../cli/helpers/folder.ts";

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
  const server = createRecordingProxy(new ServerAddress(new URL(to)), recorder).listen(
    0,
    "127.0.0.1",
  );
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, recorder, file };
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
  expect(await recorder.close()).toMatchObject({ recorded: 1, estimated: 1 });
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
  }).listen(0, "127.0.0.1");
  onTestFinished(() => void broken.close());
  await once(broken, "listening");
  const { port } = broken.address() as AddressInfo;
  const cut = await proxy(`http://127.0.0.1:${port}`);
  const half = await fetch(`${cut.url}/v1/completions`, post);
  await expect(half.text()).rejects.toThrow();
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

describe("what can't work ends in one sentence", () => {
  const to = ["--upstream", "http://127.0.0.1:1"];
  test.for([
    [[], "Expected --upstream to be a URL such as http://127.0.0.1:8000, got none."],
    [["--upstream", "ftp://x"], "Expected --upstream to be a URL"],
    [to, "Expected --output to be a file such as trace.csv.gz, got none."],
    [[...to, "--output", "x", "--listen", "0.0.0.0:0"], "Expected --listen to be on loopback"],
    [[...to, "--output", "/nowhere/x"], "Expected /nowhere/x to be a new file"],
  ] as const)("record %j", async ([options, sentence]) => {
    const { code, stdout, stderr } = await finish(["record", ...options]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(sentence);
    expect(stderr).toMatch(/^lazygraph: .* \[ERR_LAZYGRAPH_\w+\]\n$/);
  });

  test("an occupied address leaves no file behind", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    onTestFinished(() => void server.close());
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const file = join(await temporaryFolder(), "own.csv");
    const options = [...to, "--output", file, "--listen", `127.0.0.1:${port}`];
    const { code, stderr } = await finish(["record", ...options]);
    expect(code).toBe(1);
    expect(stderr).toContain("Expected a free address for --listen");
    expect(existsSync(file)).toBe(false);
  });
});

import { expect, onTestFinished, test } from "vitest";
import { DEFAULT_PROFILE, loadProfile, withSizes } from "../../src/profile/load.ts";
import { startSimulatedEngine } from "../../src/sim/live/child.ts";
import { type SimulatedServer, startSimulatedServer } from "../../src/sim/live/server.ts";
import type { SimulatedServerOptions } from "../../src/sim/live/server-options.ts";
import type { RequestSample } from "../../src/sim/model/batcher.ts";
import { quickProfile } from "../bench/helpers/profile.ts";

async function start(options: SimulatedServerOptions = {}): Promise<SimulatedServer> {
  const profile = { ...loadProfile(DEFAULT_PROFILE), startupSeconds: 0.01 };
  const server = await startSimulatedServer({ profile, model: "m", mode: "lazy", ...options });
  onTestFinished(() => server.close());
  return server;
}

async function post(server: SimulatedServer, path: string, body: unknown): Promise<Response> {
  return fetch(`${server.url}/${path}`, { method: "POST", body: JSON.stringify(body) });
}

const eventsOf = (text: string): string[] =>
  text
    .split("\n\n")
    .filter((event) => event !== "")
    .map((event) => event.slice("data: ".length));

test("it is not ready at first, then serves and names its model", async () => {
  const server = await start({ profile: { ...loadProfile(), startupSeconds: 3600 } });
  expect((await fetch(`${server.url}/health`)).status).toBe(503);
  const early = await post(server, "v1/completions", { prompt: "a" });
  expect(early.status).toBe(503);
  expect(early.headers.get("retry-after")).toBe("1");
  const ready = await start();
  await ready.ready;
  expect((await fetch(`${ready.url}/health`)).status).toBe(200);
  const models = (await (await fetch(`${ready.url}/v1/models`)).json()) as { data: unknown[] };
  expect(models.data).toMatchObject([{ id: "m" }]);
});

test("a streamed completion: a token an event, usage, and its end", async () => {
  const server = await start();
  await server.ready;
  const response = await post(server, "v1/completions", {
    model: "m",
    prompt: "one two three",
    max_tokens: 4,
    stream: true,
    stream_options: { include_usage: true },
    ignore_eos: true,
    temperature: 0,
  });
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  const events = eventsOf(await response.text());
  expect(events.at(-1)).toBe("[DONE]");
  const chunks = events.slice(0, -1).map((event) => JSON.parse(event));
  expect(chunks.slice(0, 4).map(({ choices }) => choices[0].text)).toEqual([
    " 1",
    " 2",
    " 3",
    " 4",
  ]);
  expect(chunks[3].choices[0].finish_reason).toBe("length");
  expect(chunks[4]).toMatchObject({
    choices: [],
    usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 },
  });
});

test("a chat, streamed and whole", async () => {
  const server = await start();
  await server.ready;
  const body = { messages: [{ role: "user", content: "hello there" }], max_tokens: 2 };
  const whole = (await (await post(server, "v1/chat/completions", body)).json()) as object;
  expect(whole).toMatchObject({
    object: "chat.completion",
    choices: [{ message: { role: "assistant", content: " 1 2" }, finish_reason: "length" }],
    usage: { prompt_tokens: 6, completion_tokens: 2 },
  });
  const streamed = await post(server, "v1/chat/completions", { ...body, stream: true });
  const [first, second, ...rest] = eventsOf(await streamed.text());
  expect(JSON.parse(first ?? "").choices[0].delta).toEqual({ role: "assistant", content: " 1" });
  expect(JSON.parse(second ?? "").choices[0].delta).toEqual({ content: " 2" });
  expect(rest).toEqual(["[DONE]"]);
});

test("token ids count as they are, and /tokenize counts words", async () => {
  const server = await start();
  await server.ready;
  const response = await post(server, "v1/completions", { prompt: [5, 6, 7, 8], max_tokens: 1 });
  expect(await response.json()).toMatchObject({ usage: { prompt_tokens: 4 } });
  const tokens = (await (await post(server, "tokenize", { prompt: "a b  a" })).json()) as {
    count: number;
    tokens: number[];
  };
  expect(tokens.count).toBe(3);
  expect(tokens.tokens[0]).toBe(tokens.tokens[2]);
  expect(tokens.tokens[0]).not.toBe(tokens.tokens[1]);
});

test.for<[string, unknown, number, string]>([
  ["v1/completions", { model: "other", prompt: "a" }, 404, "does not exist"],
  ["v1/completions", { prompt: "" }, 400, "at least one token"],
  ["v1/completions", { prompt: ["a", "b"] }, 400, "one text or one list of token ids"],
  ["v1/completions", { prompt: "a", max_tokens: 0 }, 400, "whole number from 1"],
  ["v1/completions", { prompt: "a", max_tokens: 1e9 }, 400, "tokens in all"],
  ["v1/completions", "text", 400, "JSON object"],
  ["v1/chat/completions", { messages: [] }, 400, "at least one"],
  ["v1/nonsense", {}, 404, "There is no POST /v1/nonsense here"],
])("%s with %j is %i", async ([path, body, status, sentence]) => {
  const server = await start();
  await server.ready;
  const response = await post(server, path, body);
  expect(response.status).toBe(status);
  const { error } = (await response.json()) as { error: { message: string; code: number } };
  expect(error.message).toContain(sentence);
  expect(error.code).toBe(status);
});

test("more requests at once than it takes are answered 429", async () => {
  const server = await start({ requestsMax: 1 });
  await server.ready;
  const first = await post(server, "v1/completions", {
    prompt: "a",
    max_tokens: 100_000,
    stream: true,
  });
  const second = await post(server, "v1/completions", { prompt: "a", max_tokens: 1 });
  expect(second.status).toBe(429);
  await first.body?.cancel();
});

test("a client that leaves frees its place in the engine", async () => {
  const server = await start();
  await server.ready;
  const controller = new AbortController();
  const response = await fetch(`${server.url}/v1/completions`, {
    method: "POST",
    body: JSON.stringify({ prompt: "a", max_tokens: 100_000, stream: true }),
    signal: controller.signal,
  });
  await response.body?.getReader().read();
  expect(server.engine.model.running).toBe(1);
  controller.abort();
  await expect.poll(() => server.engine.model.running).toBe(0);
  const next = await post(server, "v1/completions", { prompt: "a", max_tokens: 2 });
  expect(next.status).toBe(200);
});

test("requests at the same time share steps", async () => {
  const samples: RequestSample[] = [];
  const server = await start({
    mode: "eager",
    onEvent: (event) => {
      if (event.type === "request") samples.push(event);
    },
  });
  await server.ready;
  const ended = Array.from(
    { length: 16 },
    () =>
      new Promise<void>((resolve) => {
        server.engine.submit(2, 40, (left) => {
          if (left === 0) resolve();
        });
      }),
  );
  await Promise.all(ended);
  const first = Math.min(...samples.map(({ arrivalSeconds }) => arrivalSeconds));
  const last = Math.max(...samples.map(({ completionSeconds }) => completionSeconds));
  const each = samples.map((sample) => sample.completionSeconds - sample.arrivalSeconds);
  expect(samples).toHaveLength(16);
  // One after the other they would take the sum of their times.
  expect(last - first).toBeLessThan(each.reduce((sum, seconds) => sum + seconds, 0) / 4);
});

test("as a process it says where it listens, with the sizes asked for", async () => {
  await using engine = await startSimulatedEngine({
    profile: await quickProfile(),
    http: "127.0.0.1:0",
    mode: "eager",
    sizes: [1, 8],
  });
  const { url } = await engine.waitFor("listening");
  await engine.waitFor("ready");
  expect((await fetch(`${url}/health`)).status).toBe(200);
});

test("sizes leave other graphs out; none is an engine without graphs", () => {
  const profile = loadProfile();
  const ids = withSizes(profile, [1, 8]).captures.costs.map(({ graph }) => graph.id);
  expect(new Set(ids)).toEqual(new Set(["PIECEWISE:8", "FULL:8", "PIECEWISE:1", "FULL:1"]));
  expect(withSizes(profile, []).captures.costs).toEqual([]);
});

test.each([
  [{ sped: 2 }, "sped", /did you mean speed/],
  [{ port: 70_000 }, "port", /from 0 to 65535, got 70000/],
  [{ mode: "fast" }, "mode", /one of eager, lazy, idle/],
  [{ onEvent: "log" }, "onEvent", /a function/],
])("a server with %j is refused before anything starts", async (options, option, sentence) => {
  await expect(startSimulatedServer(options as never)).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_OPTION",
    option,
    message: expect.stringMatching(sentence),
  });
});

/** OpenAI's own client for JavaScript, through the gateway. */

import { beforeEach, expect, onTestFinished, test } from "vitest";
import type { SimulatedServer } from "../../src/sim/live/server.ts";
import { LONG_TOKENS, openai, startController, startEngine, startGateway } from "./helpers.ts";
import { startToolEngine } from "./tool-engine.ts";

let engines: SimulatedServer[];
let url: string;
let client: ReturnType<typeof openai>;

beforeEach(async () => {
  const controller = await startController();
  const { endpoint } = controller;
  engines = await Promise.all(["a", "b"].map((name) => startEngine(name, { endpoint })));
  await Promise.all(engines.map(({ ready }) => ready));
  const [a, b] = engines.map((engine) => engine.url);
  ({ url } = await startGateway({ a: a ?? "", b: b ?? "" }, { controller }));
  client = openai(url);
});

const MESSAGES = [{ role: "user" as const, content: "one two three" }];

test("models, completions and chat, whole and streamed", async () => {
  expect((await client.models.list()).data.map(({ id }) => id)).toEqual(["sim"]);
  const whole = await client.chat.completions.create({
    model: "sim",
    messages: MESSAGES,
    max_tokens: 3,
  });
  expect(whole.choices[0]?.message.content).toBe(" 1 2 3");
  expect(whole.usage?.completion_tokens).toBe(3);
  const stream = await client.chat.completions.create({
    model: "sim",
    messages: MESSAGES,
    max_tokens: 20,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let tokens: number | undefined;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    tokens = chunk.usage?.completion_tokens ?? tokens;
  }
  expect(text.trim().split(" ")).toHaveLength(20);
  expect(tokens).toBe(20);
});

test("an engine's error is its own", async () => {
  const request = client.chat.completions.create({ model: "other", messages: MESSAGES });
  await expect(request).rejects.toMatchObject({
    status: 404,
    message: expect.stringContaining("does not exist"),
  });
});

const running = () => engines.reduce((sum, { engine }) => sum + engine.model.running, 0);

test("a stream cancelled half-way: its engine's work ends", async () => {
  const stream = await client.completions.create({
    model: "sim",
    prompt: "x",
    max_tokens: LONG_TOKENS,
    stream: true,
  });
  for await (const _chunk of stream) {
    expect(running()).toBe(1);
    break;
  }
  await expect.poll(running).toBe(0);
});

test("a whole answer cancelled half-way: its engine's work ends", async () => {
  const abort = new AbortController();
  const request = { model: "sim", messages: MESSAGES, max_tokens: LONG_TOKENS };
  const answer = client.chat.completions.create(request, { signal: abort.signal });
  const refused = expect(answer).rejects.toThrow("aborted");
  await expect.poll(running).toBe(1);
  abort.abort();
  await refused;
  await expect.poll(running).toBe(0);
});

test("200 at once, streamed and whole", async () => {
  const answers = await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const request = { model: "sim", messages: MESSAGES, max_tokens: 4 + (index % 5) };
      if (index % 2 === 0) {
        const whole = await client.chat.completions.create(request);
        return whole.choices[0]?.message.content;
      }
      let text = "";
      const stream = await client.chat.completions.create({ ...request, stream: true });
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
      return text;
    }),
  );
  answers.forEach((text, index) => {
    expect(text?.trim().split(" ")).toHaveLength(4 + (index % 5));
  });
});

test("tools: the call arrives as the engine made it, whole and streamed", async () => {
  const stub = await startToolEngine();
  const gateway = await startGateway({ stub: stub.url });
  const stubbed = openai(gateway.url);
  const tool = {
    type: "function" as const,
    function: {
      name: "weather",
      parameters: { type: "object", properties: { city: { type: "string" } } },
    },
  };
  const request = { model: "sim", messages: MESSAGES, tools: [tool] };
  const whole = await stubbed.chat.completions.create(request);
  const stream = stubbed.chat.completions.stream(request);
  onTestFinished(() => stream.abort());
  const final = await stream.finalChatCompletion();
  for (const answer of [whole, final]) {
    const [made] = answer.choices[0]?.message.tool_calls ?? [];
    expect(made).toMatchObject({ id: "call-1", function: { name: "weather" } });
    const text = made?.type === "function" ? made.function.arguments : "";
    expect(JSON.parse(text)).toEqual({ city: "Zürich" });
  }
  expect(stub.seen).toEqual([[tool], [tool]]);
});

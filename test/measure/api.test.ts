import { expect, test } from "vitest";
import * as measure from "../../src/measure.ts";

test("the exported names", () => {
  expect(Object.keys(measure).sort()).toEqual([
    "ServerAddress",
    "createAnswerReader",
    "isEventStream",
    "isGenerating",
    "serverUrl",
    "shownUrl",
  ]);
});

test.for([
  ["POST", "/v1/chat/completions", true],
  ["POST", "/v1/completions/?x=1", true],
  ["POST", "/chat/completions", true],
  ["POST", "/v1/responses", true],
  ["POST", "/v1/messages", true],
  ["POST", "/v1/messages/count_tokens", false],
  ["POST", "/v1/embeddings", false],
  ["GET", "/v1/responses", false],
] as const)("%s %s makes an engine generate: %s", ([method, path, is]) => {
  expect(measure.isGenerating(method, path)).toBe(is);
});

test("a document is read by its first byte where no content type says so", () => {
  const read = (body: string) => {
    let found: unknown;
    const reader = measure.createAnswerReader({ contentType: undefined });
    reader?.push(Buffer.from(body), 5);
    reader?.end((answer) => {
      found = answer;
    });
    return found;
  };
  const usage = { prompt_tokens: 3, completion_tokens: 4 };
  const choices = [{ message: { content: "hi" }, finish_reason: "stop" }];
  const whole = { firstContentAtMs: 5, promptTokens: 3, outputTokens: 4, failure: undefined };
  expect(read(` \n${JSON.stringify({ choices, usage })}`)).toMatchObject(whole);
  const response = {
    object: "response",
    status: "completed",
    output: [{ content: [{ type: "output_text", text: "hi" }] }],
    usage: { input_tokens: 3, output_tokens: 4 },
  };
  expect(read(JSON.stringify(response))).toMatchObject(whole);
  const message = {
    type: "message",
    content: [{ type: "text", text: "hi" }],
    stop_reason: "end_turn",
    usage: { input_tokens: 3, output_tokens: 4 },
  };
  expect(read(JSON.stringify(message))).toMatchObject(whole);
  expect(read(`data: ${JSON.stringify({ choices })}\n\ndata: [DONE]\n\n`)).toMatchObject({
    firstContentAtMs: 5,
    failure: undefined,
  });
  const filtered = [{ message: { content: "hi" }, finish_reason: "content_filter" }];
  expect(read(JSON.stringify({ choices: filtered }))).toMatchObject({
    failure: { kind: "bad_finish" },
  });
  expect(measure.createAnswerReader({ contentType: "x", contentEncoding: "rot13" })).toBe(
    undefined,
  );
});

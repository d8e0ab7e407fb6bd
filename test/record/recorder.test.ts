import { existsSync } from "node:fs";
import {
  type FileHandle,
  open,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { expect, onTestFinished, test } from "vitest";
import { onEvent } from "../../src/engine/events.ts";
import { createTraceRecorder, type TraceRecorderOptions } from "../../src/index.ts";
import { TraceFile } from "../../src/record/trace-file.ts";
import { readTrace, type TraceRequest } from "../../src/trace/trace.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { temporaryFolder } from "../helpers/folder.ts";

async function record(options: Partial<TraceRecorderOptions> = {}, name = "trace.csv") {
  const file = join(await temporaryFolder(), name);
  const clock = new FakeClock();
  const recorder = await createTraceRecorder({ file, clock, ...options });
  return { file, clock, recorder };
}

function usage(promptTokens: number, outputTokens: number): Uint8Array {
  const counts = { prompt_tokens: promptTokens, completion_tokens: outputTokens };
  return Buffer.from(`data: ${JSON.stringify({ choices: [], usage: counts })}\n\ndata: [DONE]\n\n`);
}

async function rows(file: string): Promise<TraceRequest[]> {
  const requests: TraceRequest[] = [];
  for await (const request of readTrace(file)) requests.push(request);
  return requests;
}

test.for(["trace.csv", "trace.csv.gz"])(
  "%s: rows in order of arrival, whoever ends first",
  async (name) => {
    const { file, clock, recorder } = await record({}, name);
    const first = recorder.arrived();
    clock.advance(1.5);
    const second = recorder.arrived();
    second.chunk(usage(20, 2));
    second.end();
    clock.advance(0.25);
    recorder.arrived().end();
    first.chunk(usage(10, 300));
    first.end();
    expect(await recorder.close()).toEqual({
      recorded: 2,
      estimated: 0,
      leftEarly: 0,
      unanswered: 1,
      leftOut: 0,
      passed: 0,
      reasons: { no_answer: 1 },
    });
    expect(await rows(file)).toEqual([
      { atSeconds: 0, promptTokens: 10, outputTokens: 300 },
      { atSeconds: 1.5, promptTokens: 20, outputTokens: 2 },
    ]);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  },
);

test("what is on disk is a trace at every moment, without what is under way", async () => {
  const { file, clock, recorder } = await record({ flushSeconds: 1 }, "trace.csv.gz");
  for (let index = 1; index <= 3; index++) {
    const request = recorder.arrived();
    request.chunk(usage(index, index));
    request.end();
  }
  const open = recorder.arrived();
  const behind = recorder.arrived();
  behind.chunk(usage(5, 5));
  behind.end();
  clock.advance(1);
  // A process that is killed here leaves this file: wait for the write, not for the recorder.
  await expect.poll(async () => (await rows(file).catch(() => [])).length).toBe(3);
  expect(gunzipSync(await readFile(file)).toString()).toMatch(
    /^seconds,.*\n(?:[\d.]+,\d,\d\n){3}$/,
  );
  open.chunk(usage(4, 4));
  open.end();
  await recorder.close();
  expect((await rows(file)).map(({ promptTokens }) => promptTokens)).toEqual([1, 2, 3, 4, 5]);
});

test("a request that never ends holds the others back only so long", async () => {
  const { file, clock, recorder } = await record({ flushSeconds: 1, requestSecondsMax: 60 });
  const stuck = recorder.arrived();
  clock.advance(1);
  const request = recorder.arrived();
  request.chunk(usage(1, 1));
  request.end();
  clock.advance(60);
  stuck.chunk(usage(9, 9));
  stuck.end();
  recorder.arrived();
  const reasons = { too_long: 1, closed: 1 };
  expect(await recorder.close()).toMatchObject({ recorded: 1, leftOut: 2, reasons });
  expect(await rows(file)).toHaveLength(1);
});

test("usage is found across pieces, the last one counts, and content that looks like it doesn't", async () => {
  const { file, recorder } = await record();
  const spoof = JSON.stringify({
    choices: [{ delta: { content: '"usage":{"prompt_tokens":1,"completion_tokens":1}' } }],
  });
  const details = '"prompt_tokens_details":{"cached_tokens":3}';
  const text =
    `data: ${spoof}\n\ndata: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\n` +
    `data: {"choices":[], "usage": {"prompt_tokens": 7, ${details}, "completion_tokens": 42}}\n\n` +
    "data: [DONE]\n\n";
  const whole = recorder.arrived();
  whole.chunk(Buffer.from(text));
  whole.end();
  const cut = recorder.arrived();
  for (const byte of Buffer.from(text)) cut.chunk(Buffer.of(byte));
  cut.end();
  const spoofed = recorder.arrived();
  spoofed.body(400);
  spoofed.chunk(Buffer.from(`data: ${spoof}\n\ndata: [DONE]\n\n`));
  spoofed.end();
  expect(await recorder.close()).toMatchObject({ recorded: 3, estimated: 1 });
  expect(await rows(file)).toMatchObject([
    { promptTokens: 7, outputTokens: 42 },
    { promptTokens: 7, outputTokens: 42 },
    { promptTokens: 100, outputTokens: 1 },
  ]);
});

test("without usage events with content are tokens, cut anywhere", async () => {
  const { file, recorder } = await record();
  const request = recorder.arrived();
  request.body(80);
  const texts = ["", "one", "two"].map((text) => JSON.stringify({ choices: [{ text }] }));
  const events = [...texts, "[DONE]"].map((data) => `data: ${data}\n\n`).join("");
  for (const byte of Buffer.from(events)) request.chunk(Buffer.of(byte));
  request.end();
  expect(await recorder.close()).toMatchObject({ recorded: 1, estimated: 1 });
  expect(await rows(file)).toMatchObject([{ promptTokens: 20, outputTokens: 2 }]);
});

test("a client that leaves within an event leaves a row of what was generated until then", async () => {
  const { recorder, file } = await record();
  const request = recorder.arrived();
  request.body(40);
  request.answer({ status: 200, headers: { "content-type": "text/event-stream" } });
  const event = `data: ${JSON.stringify({ choices: [{ index: 0, text: " one" }] })}\n\n`;
  request.chunk(Buffer.from(event + event + event.slice(0, -9)));
  request.left();
  expect(await recorder.close()).toMatchObject({ recorded: 1, estimated: 1, unanswered: 0 });
  expect(await rows(file)).toEqual([{ atSeconds: 0, promptTokens: 10, outputTokens: 2 }]);
});

test("limits: rows, and what comes after the end", async () => {
  const { file, recorder } = await record({ requestsMax: 2 });
  for (let index = 0; index < 3; index++) {
    const request = recorder.arrived();
    request.chunk(usage(1, 1));
    request.end();
  }
  expect(await recorder.close()).toMatchObject({ recorded: 2, leftOut: 1 });
  recorder.arrived().end();
  expect(recorder.counts).toMatchObject({ leftOut: 2 });
  expect(await rows(file)).toHaveLength(2);
});

test("a file that is there, can't be made, or a limit out of range: one sentence", async () => {
  const { file, recorder } = await record();
  await expect(createTraceRecorder({ file })).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_TRACE",
    message: `Expected ${file} to be a new file that can be written, got one that is there already: give another name.`,
  });
  await expect(createTraceRecorder({ file: `${file}/x` })).rejects.toMatchObject({
    message: expect.stringMatching(/got ENOTDIR\.$/),
  });
  await expect(createTraceRecorder({ file: "x", flushSeconds: 0 })).rejects.toMatchObject({
    message: "Expected flushSeconds to be a number from 0.01 to 3600, got 0 (number).",
  });
  await expect(createTraceRecorder({} as TraceRecorderOptions)).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_OPTION",
    option: "file",
    message: "Expected file to be the path of a new file, got nothing.",
  });
  const misspelt = { file: join(`${file}s`), flushSecond: 1 } as TraceRecorderOptions;
  await expect(createTraceRecorder(misspelt)).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_OPTION",
    message: 'Expected a known option, got "flushSecond": did you mean flushSeconds?',
  });
  expect(existsSync(misspelt.file)).toBe(false);
  await recorder.close();
});

test.for(["trace.csv", "trace.csv.gz"])(
  "%s: a disk that takes half of a write leaves whole rows",
  async (name) => {
    const { recorder, file } = await record({}, name);
    for (const _ of [1, 2]) {
      const request = recorder.arrived();
      request.chunk(usage(123, 45));
      request.end();
    }
    const probe = await open(file, "r");
    const handles = Object.getPrototypeOf(probe) as FileHandle;
    await probe.close();
    const { appendFile } = handles;
    onTestFinished(() => {
      handles.appendFile = appendFile;
    });
    let asked = 0;
    handles.appendFile = async function (data) {
      asked++;
      await appendFile.call(this, (data as Buffer).subarray(0, data.length - 4));
      throw Object.assign(new Error("No space."), { code: "ENOSPC" });
    };
    expect(await recorder.close()).toMatchObject({ recorded: 0, leftOut: 2, reasons: { file: 2 } });
    expect(asked).toBe(1);
    const whole = await readFile(file);
    const text = (name.endsWith(".gz") ? gunzipSync(whole) : whole).toString();
    expect(text).toBe("seconds,prompt_tokens,output_tokens\n");
  },
);

test("a disk that is full from the start leaves no file in the way of the next try", async () => {
  const file = join(await temporaryFolder(), "trace.csv");
  const { append } = TraceFile.prototype;
  onTestFinished(() => {
    TraceFile.prototype.append = append;
  });
  TraceFile.prototype.append = () => Promise.reject(Object.assign(new Error(), { code: "ENOSPC" }));
  await expect(createTraceRecorder({ file })).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_FILE",
    message: `Expected ${file} to take all that is written, got ENOSPC: make room, or give another path.`,
  });
  TraceFile.prototype.append = append;
  await (await createTraceRecorder({ file })).close();
  expect(await readFile(file, "utf8")).toBe("seconds,prompt_tokens,output_tokens\n");
});

test("a disk that is full ends the recording with a problem, not the program", async () => {
  const { recorder } = await record();
  const append = TraceFile.prototype.append;
  onTestFinished(() => {
    TraceFile.prototype.append = append;
  });
  TraceFile.prototype.append = async () => {
    throw Object.assign(new Error("No space."), { code: "ENOSPC" });
  };
  const problems: string[] = [];
  onTestFinished(onEvent("lazygraph:problem", ({ message }) => problems.push(message)));
  const request = recorder.arrived();
  request.chunk(usage(1, 1));
  request.end();
  // What could not be written is in a count all the same.
  expect(await recorder.close()).toMatchObject({ recorded: 0, leftOut: 1, reasons: { file: 1 } });
  expect(problems).toEqual([expect.stringMatching(/all that is written, got ENOSPC: make room/)]);
});

test.for([
  ["moved", (file: string) => rename(file, `${file}.1`)],
  ["removed", (file: string) => rm(file)],
  ["cut, as copytruncate does", (file: string) => truncate(file)],
  ["replaced", (file: string) => rm(file).then(() => writeFile(file, "another's"))],
] as const)("a file that is %s meanwhile is told at the end", async ([, change]) => {
  const { recorder, file } = await record();
  const problems: string[] = [];
  onTestFinished(onEvent("lazygraph:problem", ({ message }) => problems.push(message)));
  await change(file);
  expect(await recorder.close()).toMatchObject({ recorded: 0 });
  expect(problems).toEqual([
    expect.stringContaining(`Expected ${file} to stay as it is written until the end`),
  ]);
});

test("a file that stays where it is is no problem", async () => {
  const { recorder } = await record();
  const problems: string[] = [];
  onTestFinished(onEvent("lazygraph:problem", ({ message }) => problems.push(message)));
  const request = recorder.arrived();
  request.chunk(usage(1, 1));
  request.end();
  expect(await recorder.close()).toMatchObject({ recorded: 1 });
  expect(problems).toEqual([]);
});

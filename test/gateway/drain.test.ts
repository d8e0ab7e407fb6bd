/** Streams under way when the gateway is told to stop, started as people start it. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { readyz, startEngine } from "./helpers.ts";
import { installExample } from "./installed.ts";

const STREAMS = 500;
const TOKENS = 60;

test.each([
  // Under npm and its shell: the signal has to reach the gateway through both.
  ["npm start", "npm", ["start"]],
  // What an image has for process 1.
  ["node as it is in an image", process.execPath, ["--import", "tsx", "src/main.ts"]],
])("%s drains: no stream is cut off", { timeout: 120_000 }, async (_, program, args) => {
  const folder = await installExample();
  const engine = await startEngine("a", { speed: 1, requestsMax: STREAMS });
  await engine.ready;
  const child = spawn(program, args, {
    cwd: folder,
    env: {
      ...process.env,
      LISTEN: "127.0.0.1:0",
      ENGINES: `a=${engine.url}`,
      LAZYGRAPH_ENDPOINT: "tcp://127.0.0.1:0",
      DRAIN_SECONDS: "90",
    },
    stdio: ["ignore", "pipe", "inherit"],
    // A group of its own, so that a failed test can end npm's children, too.
    detached: true,
  });
  onTestFinished(() => {
    if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, "SIGKILL");
  });
  const lines = createInterface({ input: child.stdout });
  const url = await new Promise<string>((resolve) => {
    lines.on("line", (line) => {
      const [found] = /http:\/\/\S+(?=;)/.exec(line) ?? [];
      if (found !== undefined) resolve(found);
    });
  });
  await expect.poll(async () => (await readyz(url)).ready).toBe(true);

  let started = 0;
  let allStarted: () => void = () => undefined;
  const everyStream = new Promise<void>((resolve) => {
    allStarted = resolve;
  });
  const streams = Array.from({ length: STREAMS }, () =>
    read(url, engine.model, () => {
      started++;
      if (started === STREAMS) allStarted();
    }),
  );
  await everyStream;
  const ended = once(child, "close");
  child.kill("SIGTERM");
  expect(await Promise.all(streams)).toEqual(streams.map(() => "whole"));
  const [code, signal] = await ended;
  expect({ code, signal }).toEqual({ code: 0, signal: null });
});

/** "whole" once a stream has ended with its last event; what it came to otherwise. */
async function read(url: string, model: string, onFirst: () => void): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, prompt: "x", max_tokens: TOKENS, stream: true }),
  });
  if (response.body === null) return `status ${response.status} without a body`;
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const chunk of response.body) {
      if (text === "") onFirst();
      text += decoder.decode(chunk as Uint8Array, { stream: true });
    }
  } catch (error) {
    return `cut off after ${text.length} characters: ${error}`;
  }
  return text.trimEnd().endsWith("data: [DONE]") ? "whole" : `ended with ${text.slice(-80)}`;
}

/** Streams under way when a gateway, started as people do, is told to stop. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { readyz, startEngine } from "./helpers.ts";
import { installExample } from "./installed.ts";
import { begun } from "./streams.ts";

const STREAMS = 500;

test.each([
  // The signal has to get through npm and its shell.
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

  const streams = await begun(url, engine.model, STREAMS);
  const ended = once(child, "close");
  child.kill("SIGTERM");
  expect(await Promise.all(streams)).toEqual(streams.map(() => "whole"));
  const [code, signal] = await ended;
  expect({ code, signal }).toEqual({ code: 0, signal: null });
});

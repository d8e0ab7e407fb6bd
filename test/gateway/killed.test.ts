/** Engines as processes, killed under load. */

import { APIError } from "openai";
import { expect, onTestFinished, test } from "vitest";
import { startSimulatedEngine } from "../../src/testing.ts";
import { openai, readyz, startController, startGateway } from "./helpers.ts";

const STREAMS = 16;
const TOKENS = 200;

test("an engine killed under load loses only its own unfinished streams", async () => {
  const controller = await startController();
  const { endpoint } = controller;
  const engines = await Promise.all(
    ["a", "b"].map(async (engine) => {
      const http = "127.0.0.1:0";
      const process = await startSimulatedEngine({ endpoint, engine, http, speed: 5 });
      onTestFinished(() => void process.kill("SIGKILL"));
      const { url, model } = await process.waitFor("listening");
      await process.waitFor("ready");
      return { engine, process, url, model };
    }),
  );
  const [a, b] = engines;
  if (a === undefined || b === undefined) throw new Error("no engines");
  const { url } = await startGateway({ a: a.url, b: b.url }, { controller });
  const client = openai(url);
  const { model } = a;
  const inFlight = async (engine: string) => (await readyz(url)).engines[engine]?.inFlight ?? 0;
  await expect
    .poll(async () => Object.values((await readyz(url)).engines).every(({ ready }) => ready))
    .toBe(true);

  // Endless streams, so that the engine has at least one when it dies; both may be on one, where
  // the other's health check is late.
  const endless = { model, prompt: "x", max_tokens: 100_000, stream: true as const };
  const anchors = await Promise.all([
    client.completions.create(endless),
    client.completions.create(endless),
  ]);
  const anchored = anchors.map(async (stream) => {
    for await (const _chunk of stream);
  });
  const anchorsOnA = await inFlight("a");
  const dies = anchorsOnA > 0 ? a : b;
  const its = anchorsOnA > 0 ? anchorsOnA : anchors.length;
  let started = 0;
  let allStarted: () => void = () => {};
  const everyStream = new Promise<void>((resolve) => {
    allStarted = resolve;
  });
  const request = { model, prompt: "one two", max_tokens: TOKENS };
  const streams = Array.from({ length: STREAMS }, async () => {
    let tokens = 0;
    try {
      const stream = await client.completions.create({ ...request, stream: true });
      for await (const { choices } of stream) {
        if (choices.length > 0) tokens++;
        if (tokens !== 1) continue;
        started++;
        if (started === STREAMS) allStarted();
      }
      return { tokens, error: undefined };
    } catch (error) {
      return { tokens, error };
    }
  });
  // No byte of these has come when the engine dies: another one does them from the start.
  const whole = Array.from({ length: 4 }, () => client.completions.create(request));
  await everyStream;
  const onIt = await inFlight(dies.engine);
  expect(onIt).toBeGreaterThanOrEqual(its);
  dies.process.kill("SIGKILL");

  const brokeOff = `The stream of ${dies.engine} broke off`;
  await expect(Promise.race(anchored)).rejects.toThrow(brokeOff);
  const ends = await Promise.all(streams);
  const lost = ends.filter(({ error }) => error !== undefined);
  const kept = ends.filter(({ error }) => error === undefined);
  // Others of those on it may have ended in time.
  expect(lost.length).toBeLessThanOrEqual(onIt - its);
  for (const { tokens } of kept) expect(tokens).toBe(TOKENS);
  for (const { error } of lost) {
    expect(error).toBeInstanceOf(APIError);
    expect(String(error)).toContain(brokeOff);
  }
  for (const { choices } of await Promise.all(whole)) {
    expect(choices[0]?.text.trim().split(" ")).toHaveLength(TOKENS);
  }
  for (const { controller: limit } of anchors) limit.abort();
  await Promise.allSettled(anchored);
  await expect.poll(async () => (await readyz(url)).engines[dies.engine]?.ready).toBe(false);
  const after = await client.completions.create({ ...request, max_tokens: 2 });
  expect(after.choices[0]?.text).toBe(" 1 2");
  expect((await readyz(url)).status).toBe(200);
}, 120_000);

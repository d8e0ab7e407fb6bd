import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { statusOf } from "../../src/base/http-status.ts";
import { type Controller, createController } from "../../src/controller/controller.ts";
import { createHttpServer } from "../../src/http/server.ts";
import { type ConnectOptions, connectController } from "../../src/replica/client.ts";
import { startSimulatedEngine } from "../../src/testing.ts";
import { listening } from "../helpers/listening.ts";

const POLL_MS = 50;

function connect(url: string, options: ConnectOptions = {}) {
  const client = connectController(url, { pollMs: POLL_MS, ...options });
  onTestFinished(() => client.close());
  return client;
}

/** Waits for the next look that finds something else. */
function changes(): { readonly onChange: () => void; next(): Promise<void> } {
  let wake: () => void = () => undefined;
  return { onChange: () => wake(), next: () => new Promise((resolve) => (wake = resolve)) };
}

describe("a controller over HTTP", () => {
  let controller: Controller;
  let server: Server;
  let url: string;

  beforeEach(async () => {
    controller = createController({ mode: "lazy", plan: false });
    await controller.start();
    onTestFinished(() => controller.close());
    server = createHttpServer(controller);
    url = await listening(server);
    const engine = await startSimulatedEngine({
      endpoint: controller.endpoint,
      engine: "gpu-0/a b",
      speed: 100,
    });
    onTestFinished(() => engine.close().then(() => undefined));
  });

  test("that wants a token says so, and takes the right one", async () => {
    const token = "a-token-of-some-length";
    const guarded = await listening(createHttpServer(controller, { token, tokenForReads: true }));
    const stranger = connect(guarded);
    await expect(stranger.setMode("gpu-0/a b", "idle")).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_TOKEN",
    });
    expect(stranger.engines()).toEqual([]);
    const client = connect(guarded, { token });
    await client.waitForEngine({ engine: "gpu-0/a b" });
    await client.setMode("gpu-0/a b", "idle");
    expect(controller.engines()[0]?.mode).toBe("idle");
    expect(() => connectController(guarded, { token: "short" })).toThrow(/token to be 16 to 512/);
    expect(() => createHttpServer(controller, { token: "short" })).toThrow(/token to be 16 to 512/);
  });

  test("that wants a token for reading tells waiters and who asked to be told, nobody twice", async () => {
    const token = "a-token-of-some-length";
    const asked = createHttpServer(controller, { token, tokenForReads: true });
    const guarded = await listening(asked);
    const answered = async (times: number) => {
      for (let count = 0; count < times; count++) await once(asked, "request");
    };
    const refusal = { code: "ERR_LAZYGRAPH_TOKEN", name: "LazygraphError" };
    const problems: unknown[] = [];
    const onProblem = (error: unknown) => void problems.push(error);
    const stranger = connect(guarded, { token: "another-token-of-some-length", onProblem });
    // Without the token no engine will ever show.
    await expect(stranger.waitForEngine()).rejects.toMatchObject(refusal);
    await expect(stranger.waitForEngine()).rejects.toMatchObject(refusal);
    expect(stranger.problem).toMatchObject(refusal);
    await answered(3);
    expect(problems).toEqual([expect.objectContaining(refusal)]);
    const warned = once(process, "warning");
    connect(guarded);
    expect(await warned).toEqual([expect.objectContaining(refusal)]);
    const client = connect(guarded, { token, onProblem });
    await client.waitForEngine();
    expect([client.problem, problems.length]).toEqual([undefined, 1]);
  });

  test("that wants a token for changes tells of announcements without", async () => {
    const token = "a-token-of-some-length";
    const guarded = await listening(createHttpServer(controller, { token }));
    const problems: unknown[] = [];
    const stranger = connect(guarded, { onProblem: (error) => void problems.push(error) });
    await stranger.waitForEngine();
    for (const count of [1, 2]) {
      stranger.announce("gpu-0/a b", { inSeconds: 1 });
      await expect.poll(() => stranger.announcementsDropped).toBe(count);
    }
    expect(problems).toEqual([expect.objectContaining({ code: "ERR_LAZYGRAPH_TOKEN" })]);
    expect(stranger.connected).toBe(true);
  });

  test("shows engines, waits for them and passes on what is asked", async () => {
    const client = connect(url);
    const found = await client.waitForEngine({ engine: "gpu-0/a b", phase: "serving" });
    expect(found).toMatchObject({ engine: "gpu-0/a b", mode: "lazy", connected: true });
    expect(client.connected).toBe(true);
    await client.setMode("gpu-0/a b", "idle");
    expect(controller.engines()[0]?.mode).toBe("idle");
    await client.freeze("gpu-0/a b", "the evening");
    await expect.poll(() => controller.engines()[0]?.frozen).toBe(true);
    client.announce("gpu-0/a b", { inSeconds: 5, requests: 3 });
    await expect
      .poll(() => controller.engines()[0]?.decisions.some(({ reason }) => /evening/.test(reason)))
      .toBe(true);
    expect(client.announcementsDropped).toBe(0);
    // All that the controller itself takes: 2,048 characters, as long as JSON can write them.
    await client.freeze("gpu-0/a b", "\u0001".repeat(2048));
    await client.freeze("gpu-0/a b", "\u00e9".repeat(2048));
    await client.close();
    expect(client.engines()).toMatchObject([{ engine: "gpu-0/a b", connected: false }]);
  });

  test("is reached on a port that browsers, and so fetch, refuse", async () => {
    const blocked = [10_080, 6000, 6566, 6697, 5060, 4190];
    const side = createHttpServer(controller);
    for (const port of blocked) {
      const free = await listening(side, port).catch(() => undefined);
      if (free === undefined) continue;
      await expect(fetch(free)).rejects.toMatchObject({ cause: { message: "bad port" } });
      await connect(free).waitForEngine();
      expect(await statusOf(new URL("/healthz", free), 10_000)).toBe(200);
      return;
    }
    expect.fail(`None of the ports ${blocked} is free.`);
  });

  test("that refuses the name by which it is asked says so", async () => {
    const error = { code: "ERR_HTTP_HOST", message: "Expected another host, got this one." };
    const named = createServer((_, response) => {
      response.writeHead(421).end(JSON.stringify({ error }));
    });
    const client = connect(await listening(named));
    await expect
      .poll(() => client.problem)
      .toMatchObject({
        code: "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE",
        message: expect.stringMatching(
          /got HTTP status 421: Expected another host, got this one\.$/,
        ),
      });
  });

  test("takes no picture of all engines for one", async () => {
    await controller.waitForEngine({ engine: "gpu-0/a b" });
    const looks = vi.spyOn(controller, "engines");
    const engine = `${url}/v1/engines/gpu-0%2Fa%20b`;
    const announced = { method: "POST", body: JSON.stringify({ inSeconds: 5 }) };
    for (const answer of [await fetch(engine), await fetch(`${engine}/announce`, announced)]) {
      expect(await answer.json()).toMatchObject({ engine: "gpu-0/a b" });
    }
    expect((await fetch(`${url}/v1/engines/gpu-9`)).status).toBe(404);
    expect(looks).not.toHaveBeenCalled();
  });

  test("refuses in the controller's words", async () => {
    const client = connect(url);
    await client.waitForEngine();
    await expect(client.setMode("nobody", "idle")).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_UNKNOWN",
    });
    expect(() => client.announce("nobody", { inSeconds: 1 })).toThrow(/name of an engine/);
    expect(() => client.announce("gpu-0/a b", { inSeconds: -1 })).toThrow(/inSeconds/);
    await expect(client.setMode("gpu-0/a b", "fast" as never)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_OPTION",
    });
  });

  test("that is closed is healthy no more, and no standby follows it", async () => {
    expect(await (await fetch(`${url}/healthz`)).json()).toMatchObject({ ok: true });
    await controller.close();
    const { status } = await fetch(`${url}/healthz`);
    expect(status).toBe(503);
  });

  test("that is gone leaves its engines listed as not connected, until it is back", async () => {
    const { onChange, next } = changes();
    const client = connect(url, { onChange });
    await client.waitForEngine();
    server.close();
    server.closeAllConnections();
    while (client.connected) await next();
    const [engine] = client.engines();
    expect(engine).toMatchObject({ engine: "gpu-0/a b", connected: false });
    expect(engine?.lostReason).toContain("Expected a controller's HTTP side at http://127.0.0.1:");
    expect(() => client.announce("gpu-0/a b", { inSeconds: 1 })).toThrow(
      expect.objectContaining({ code: "ERR_LAZYGRAPH_ENGINE_LOST" }),
    );
    const waiting = client.waitForEngine();
    await listening(createHttpServer(controller), Number(new URL(url).port));
    expect((await waiting).connected).toBe(true);
    const late = client.waitForEngine({ engine: "nobody", signal: AbortSignal.timeout(10) });
    await expect(late).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_TIMEOUT",
      cause: expect.objectContaining({ name: "TimeoutError" }),
    });
  });
});

test("a wait that ends says why nothing came, and by whose word it ended", async () => {
  const server = createServer();
  const url = await listening(server);
  server.close();
  const problems: unknown[] = [];
  const client = connect(url, { onProblem: (error) => void problems.push(error) });
  await expect.poll(() => problems.length).toBe(1);
  const timeout = AbortSignal.timeout(20);
  await expect(client.waitForEngine({ signal: timeout })).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE",
    cause: expect.objectContaining({ name: "TimeoutError" }),
  });
  const mine = new Error("no longer wanted");
  const stopping = new AbortController();
  const waiting = client.waitForEngine({ signal: stopping.signal });
  stopping.abort(mine);
  await expect(waiting).rejects.toBe(mine);
});

describe("what is no controller", () => {
  test.each([
    ["a page", (_: unknown) => "<html>"],
    ["other JSON", () => "[]"],
    ["engines of another shape", () => '{"engines": [{"engine": 1}]}'],
  ])("%s counts as not connected", async (_, body) => {
    let asked: () => void = () => undefined;
    const twice = new Promise<void>((resolve) => {
      let times = 0;
      asked = () => ++times === 2 && resolve();
    });
    const url = await listening(
      createServer((_request, response) => {
        response.end(body(undefined));
        asked();
      }),
    );
    const client = connect(url);
    await twice;
    expect(client.connected).toBe(false);
    expect(client.engines()).toEqual([]);
  });

  test.each(["", "host:7480", "ftp:x", "http://u:secret@x"])("%j is no URL", (url) => {
    expect(() => connectController(url)).toThrow(
      expect.objectContaining({ code: "ERR_LAZYGRAPH_OPTION", option: "url" }),
    );
    expect(() => connectController(url)).toThrow(/got ("[^@]*"|one with them)\.$/);
  });

  test("unknown options are refused", () => {
    expect(() => connectController("http://x", { poll: 5 } as never)).toThrow(
      /did you mean pollMs/,
    );
  });
});

test("an answer may take longer the more there is in it", async () => {
  const engines = Array(2000).fill({ engine: "a", phase: "serving", connected: true, graphs: [] });
  const text = JSON.stringify({ engines, more: "x".repeat(3 << 20) });
  const server = createServer(async (_, response) => {
    if (client.connected) await pause(2500);
    for (let at = 0; at < text.length; at += 1 << 20) {
      if (at > 0 && !client.connected) await pause(700);
      response.write(text.slice(at, at + (1 << 20)));
    }
    response.end();
  });
  const problems: unknown[] = [];
  const url = await listening(server);
  const client = connect(url, { timeoutMs: 2000, onProblem: (error) => problems.push(error) });
  for (let looks = 0; looks < 3; looks++) await once(server, "request");
  expect(problems).toEqual([]);
});

test("an engine counts as serving once it is known what it holds", async () => {
  const engine = { engine: "a", phase: "serving", connected: true, graphs: [], graphsPlanned: 0 };
  const known = { ...engine, cudagraphMode: "FULL", graphsPlanned: 8 };
  const answers = [engine, known];
  const server = createServer((_, response) => {
    response.end(JSON.stringify({ engines: [answers.shift() ?? known] }));
  });
  const client = connect(await listening(server));
  expect(await client.waitForEngine({ phase: "serving" })).toMatchObject({ graphsPlanned: 8 });
});

test("a closed client says so, and ends what waits", async () => {
  const client = connectController("http://127.0.0.1:9", { pollMs: POLL_MS });
  const waiting = expect(client.waitForEngine()).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_CLOSED",
  });
  await client.close();
  await waiting;
  await expect(client.waitForEngine()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
});

import { once } from "node:events";
import { link as hardLink, readFile, rename, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { curveKeyPair, Dealer } from "zeromq";
import { systemClock } from "../../src/base/clock.ts";
import { createController } from "../../src/controller/controller.ts";
import { onEvent } from "../../src/engine/events.ts";
import { startSimulatedEngine } from "../../src/testing.ts";
import {
  checkEndpoint,
  isLoopback,
  removeSocketFile,
  socketFileOf,
  waitUntilFree,
} from "../../src/wire/endpoint.ts";
import { openRouter, type RouterLink } from "../../src/wire/router.ts";
import { FakeEngine } from "../helpers/fake-engine.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { joinEngine, startController } from "../helpers/joined.ts";

describe("endpoints", () => {
  test.for([
    ["tcp://127.0.0.1:1", true],
    ["tcp://127.9.9.9:0", true],
    ["tcp://localhost:5557", true],
    ["tcp://[::1]:5557", true],
    ["ipc:///tmp/x", true],
    ["tcp://0.0.0.0:5557", false],
    ["tcp://*:5557", false],
    ["tcp://[::]:5557", false],
    ["tcp://eth0:5557", false],
    ["tcp://localhost.evil.example:1", false],
    ["tcp://127.0.0.1.example:1", false],
    ["inproc://x", false],
  ] as const)("%s is loopback: %s", ([endpoint, expected]) => {
    expect(isLoopback(endpoint)).toBe(expected);
  });

  test.for(["", "5557", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "http://x:1", "ipc://"])(
    "%j is none",
    (endpoint) => {
      expect(() => checkEndpoint("endpoint", endpoint)).toThrow(/^Expected endpoint to be/);
    },
  );
});

test("a path that no socket's address can hold is named as too long", () => {
  const longest = `ipc:///${"x".repeat(106)}`;
  checkEndpoint("endpoint", longest);
  expect(() => checkEndpoint("endpoint", `${longest}x`)).toThrow(
    /a path of at most 107 bytes, got/,
  );
});

describe("a socket file", () => {
  test("is not made where there is a file or a folder, which stays", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, "precious.json");
    await writeFile(path, "{}");
    for (const taken of [path, folder]) {
      await expect(listen(undefined, `ipc://${taken}`)).rejects.toMatchObject({
        code: "ERR_LAZYGRAPH_BIND",
        message: expect.stringContaining("is left alone"),
      });
    }
    expect(await readFile(path, "utf8")).toBe("{}");
  });

  test("is gone once its link is closed, which waits for nothing else", async () => {
    const path = join(await temporaryFolder(), "x.sock");
    const { link } = await listen(undefined, `ipc://${path}`);
    expect((await stat(path)).isSocket()).toBe(true);
    const taken = createServer().listen(`${path}.taken`);
    await once(taken, "listening");
    // Where somebody goes on listening all looks are taken.
    const late = waitUntilFree(`ipc://${path}.taken`).then(() => "late");
    expect(await Promise.race([late, link.close().then(() => "closed")])).toBe("closed");
    taken.close();
    await expect(stat(path)).rejects.toThrow("ENOENT");
  });

  test("that libzmq left is removed; a successor's, served or not, stays", async () => {
    const path = join(await temporaryFolder(), "x.sock");
    const endpoint = `ipc://${path}`;
    const served = createServer().listen(path);
    await once(served, "listening");
    const own = await socketFileOf(endpoint);
    await removeSocketFile(endpoint, own);
    expect((await stat(path)).isSocket()).toBe(true);
    // Another name keeps the file when the server is closed, as a killed process does.
    await hardLink(path, `${path}.kept`);
    served.close();
    await once(served, "close");
    await rename(`${path}.kept`, path);
    await removeSocketFile(endpoint, { dev: 0, ino: 0 });
    expect((await stat(path)).isSocket()).toBe(true);
    await removeSocketFile(endpoint, own);
    await expect(stat(path)).rejects.toThrow("ENOENT");
    expect(await socketFileOf("ipc://@abstract")).toBeUndefined();
    expect(await socketFileOf("tcp://127.0.0.1:1")).toBeUndefined();
  });
});

interface Received {
  readonly link: RouterLink;
  readonly frames: [string, string][];
  readonly undeliverable: [string, string][];
  /** Resolves once `count` frames have come. */
  readonly came: (count: number) => Promise<void>;
  readonly gone: () => Promise<void>;
}

async function listen(
  onFrame: (peer: string) => void = () => undefined,
  endpoint = "tcp://127.0.0.1:0",
): Promise<Received> {
  const frames: [string, string][] = [];
  const undeliverable: [string, string][] = [];
  const wake: (() => void)[] = [];
  const notify = (): void => {
    for (const waiter of wake.splice(0)) waiter();
  };
  const until = async (done: () => boolean): Promise<void> => {
    while (!done()) await new Promise<void>((resolve) => wake.push(resolve));
  };
  const link = await openRouter({
    endpoint,
    clock: systemClock,
    onFrame: (peer, frame) => {
      frames.push([peer, Buffer.from(frame).toString()]);
      onFrame(peer);
      notify();
    },
    onDropped: () => undefined,
    onFlood: () => undefined,
    onUndeliverable: (peer, reason) => {
      undeliverable.push([peer, reason]);
      notify();
    },
    nothing: Buffer.from("nothing"),
    onFault: (error) => {
      throw error;
    },
  });
  return {
    link,
    frames,
    undeliverable,
    came: (count) => until(() => frames.length >= count),
    gone: () => until(() => undeliverable.length > 0),
  };
}

/** Asleep, so that libzmq's threads have the processor. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

describe("the router", () => {
  test("sends in order to each of several peers", async () => {
    const { link, frames, came } = await listen();
    const dealers = ["a", "b", "c"].map((name) => {
      const dealer = new Dealer({ linger: 0 });
      dealer.connect(link.endpoint);
      return { name, dealer };
    });
    for (const { name, dealer } of dealers) await dealer.send(name);
    await came(3);
    for (let n = 0; n < 100; n += 1) {
      for (const [peer, name] of frames)
        expect(link.send(peer, Buffer.from(`${name}${n}`))).toBe(true);
    }
    for (const { name, dealer } of dealers) {
      for (let n = 0; n < 100; n += 1) {
        const [frame] = await dealer.receive();
        expect(frame?.toString()).toBe(`${name}${n}`);
      }
      dealer.close();
    }
    await link.close();
  });

  test("tells for how long frames may have lain unread", async () => {
    const unread: number[] = [];
    const { link, came } = await listen(() => {
      unread.push(link.unreadSeconds());
      if (unread.length === 1) standStill(500);
    });
    const dealers = [new Dealer({ linger: 0 }), new Dealer({ linger: 0 })];
    for (const dealer of dealers) dealer.connect(link.endpoint);
    await Promise.all(dealers.map((dealer) => dealer.send("")));
    await came(2);
    expect(unread[1]).toBeGreaterThan(0.4);
    await expect.poll(() => link.unreadSeconds()).toBe(0);
    for (const dealer of dealers) dealer.close();
    await link.close();
  });

  test("tells whose frames come next, several at once and in their order", async () => {
    const FRAMES = 200;
    let due: string[] = [];
    let told = 0;
    let wrong = 0;
    let left = 2 * FRAMES;
    let wake = (): void => undefined;
    const all = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const link = await openRouter({
      endpoint: "tcp://127.0.0.1:0",
      clock: systemClock,
      onBatch: (peers) => {
        if (due.length > 0) wrong += 1;
        due = [...peers];
        told += due.length;
      },
      onFrame: (peer) => {
        if (due.length > 0 && due.shift() !== peer) wrong += 1;
        left -= 1;
        if (left === 0) wake();
      },
      onDropped: () => undefined,
      onFlood: () => undefined,
      onUndeliverable: () => undefined,
      nothing: Buffer.from("nothing"),
      onFault: (error) => {
        throw error;
      },
    });
    const dealers = [new Dealer({ linger: 0 }), new Dealer({ linger: 0 })];
    for (const dealer of dealers) dealer.connect(link.endpoint);
    for (let n = 0; n < FRAMES; n += 1) {
      for (const dealer of dealers) await dealer.send(`${n}`);
    }
    await all;
    expect({ wrong, due }).toEqual({ wrong: 0, due: [] });
    expect(told).toBeGreaterThan(1);
    for (const dealer of dealers) dealer.close();
    await link.close();
  });

  test("a peer that doesn't read fills its own outbox and holds up nobody else", async () => {
    const { link, frames, came, undeliverable } = await listen();
    const deaf = new Dealer({ linger: 0, receiveHighWaterMark: 1 });
    const good = new Dealer({ linger: 0 });
    deaf.connect(link.endpoint);
    good.connect(link.endpoint);
    await deaf.send("deaf");
    await came(1);
    await good.send("good");
    await came(2);
    const deafPeer = frames[0]?.[0] ?? "";
    const goodPeer = frames[1]?.[0] ?? "";
    const big = Buffer.alloc(1 << 20);
    // Sockets and buffers in between take some; then frames stay in the outbox until it is full.
    let accepted = 0;
    while (link.send(deafPeer, big)) {
      accepted += 1;
      expect(accepted).toBeLessThan(20_000);
      if (accepted % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(undeliverable).toEqual([[deafPeer, "it left 256 frames unread"]]);
    expect(link.send(goodPeer, Buffer.from("hello"))).toBe(true);
    const [answer] = await good.receive();
    expect(answer?.toString()).toBe("hello");
    deaf.close();
    good.close();
    await link.close();
  });

  test("what a peer left in the queue is dropped once a sending has found it gone", async () => {
    let isFirst = true;
    const { link, frames, came } = await listen((peer) => {
      if (!isFirst) return;
      isFirst = false;
      // All of it is in the queue by now, and then its sender goes.
      standStill(500);
      leaver.close();
      standStill(1000);
      link.send(peer, Buffer.from("who are you?"));
    });
    const leaver = new Dealer({ linger: 0 });
    leaver.connect(link.endpoint);
    const stayer = new Dealer({ linger: 0 });
    stayer.connect(link.endpoint);
    for (let n = 0; n < 20; n += 1) await leaver.send(`queued ${n}`);
    await came(1);
    for (let n = 0; n < 20; n += 1) await stayer.send("stayed");
    await came(21);
    expect(frames.filter(([, text]) => text !== "stayed")).toHaveLength(1);
    stayer.close();
    await link.close();
  });

  test("a frame queued after a full outbox was thrown away is not lost", async () => {
    const { link, frames, came, undeliverable } = await listen();
    const dealer = new Dealer({ linger: 0 });
    dealer.connect(link.endpoint);
    await dealer.send("x");
    await came(1);
    const peer = frames[0]?.[0] ?? "";
    // All in one turn: the first frame is on its way while the outbox behind it fills.
    while (link.send(peer, Buffer.from("early")));
    expect(undeliverable).toHaveLength(1);
    expect(link.send(peer, Buffer.from("late"))).toBe(true);
    let last = "";
    while (last !== "late") last = String((await dealer.receive())[0]);
    dealer.close();
    await link.close();
  });

  test("a peer that is gone is reported, an unknown one refused", async () => {
    const { link, frames, came, gone, undeliverable } = await listen();
    expect(link.send("00", Buffer.from("x"))).toBe(false);
    const dealer = new Dealer({ linger: 0 });
    dealer.connect(link.endpoint);
    await dealer.send("x");
    await came(1);
    const peer = frames[0]?.[0] ?? "";
    dealer.close();
    const timer = setInterval(() => link.send(peer, Buffer.from("y")), 5);
    await gone();
    clearInterval(timer);
    expect(undeliverable[0]).toEqual([peer, "its connection has ended"]);
    await Promise.all([link.close(), link.close()]);
    expect(link.send(peer, Buffer.from("z"))).toBe(false);
  });
});

describe("CURVE", () => {
  const server = curveKeyPair();
  const friend = curveKeyPair();
  const stranger = curveKeyPair();

  test("an allowed client joins, another one doesn't, and neither does one without keys", async () => {
    await using controller = await startController({
      endpoint: "tcp://0.0.0.0:0",
      curve: { ...server, allowedClients: [friend.publicKey] },
      heartbeatMs: 50,
    });
    const endpoint = controller.endpoint.replace("0.0.0.0", "127.0.0.1");
    const serverKey = server.publicKey;
    await using refused = new FakeEngine({ name: "stranger", curve: { ...stranger, serverKey } });
    await using plain = new FakeEngine({ name: "plain" });
    await using allowed = new FakeEngine({ name: "friend", curve: { ...friend, serverKey } });
    await refused.connect(endpoint);
    await plain.connect(endpoint);
    await allowed.connect(endpoint);
    await controller.waitForEngine({ engine: "friend", settled: true });
    expect(controller.engines().map((engine) => engine.engine)).toEqual(["friend"]);
    expect(refused.received).toEqual([]);
    expect(plain.received).toEqual([]);
  });

  /** Sentences of this controller about keys, each a problem without an engine. */
  function keySentences(): { readonly said: string[]; next(): Promise<string> } {
    const said: string[] = [];
    const waiting: ((sentence: string) => void)[] = [];
    const stop = onEvent("lazygraph:problem", ({ engine, code, message }) => {
      if (code !== "ERR_LAZYGRAPH_KEYS") return;
      expect(engine).toBe("");
      said.push(message);
      for (const wake of waiting.splice(0)) wake(message);
    });
    onTestFinished(stop);
    return { said, next: () => new Promise((resolve) => waiting.push(resolve)) };
  }

  test.for([
    ["an engine without keys", server, undefined, /engines with CURVE keys|left in the middle/],
    [
      "keys where there are none",
      undefined,
      server.publicKey,
      /engines without CURVE keys|left in/,
    ],
    ["another controller's key", server, stranger.publicKey, /have this controller's public key/],
    ["a key that is not allowed", server, server.publicKey, /whose public keys are allowed/],
  ] as const)("says what doesn't fit, and the honest don't notice: %s", async (given) => {
    const [, own, serverKey, sentence] = given;
    const sentences = keySentences();
    const first = sentences.next();
    const curve = own && { ...own, allowedClients: [friend.publicKey] };
    await using controller = await startController({
      plan: false,
      heartbeatMs: 50,
      ...(curve === undefined ? {} : { curve }),
    });
    const honestKeys = own && { ...friend, serverKey: own.publicKey };
    await using _honest = await joinEngine(controller, {
      name: "honest",
      ...(honestKeys === undefined ? {} : { curve: honestKeys }),
    });
    await controller.waitForEngine({ engine: "honest", settled: true });
    const wrong = await startSimulatedEngine({
      endpoint: controller.endpoint,
      ...(serverKey === undefined ? {} : { curve: { ...stranger, serverKey } }),
    });
    onTestFinished(() => wrong.close().then(() => undefined));
    const said = await first;
    expect(said).toMatch(sentence);
    expect(said).toMatch(/^Expected [^\n]*\.$/);
    expect(controller.engines()).toMatchObject([{ engine: "honest", connected: true }]);
    expect(sentences.said.length).toBeLessThanOrEqual(2);
  });

  test("who is allowed meanwhile joins without a restart of either side", async () => {
    const allowed: string[] = [];
    const sentences = keySentences();
    const refused = sentences.next();
    const curve = { ...server, allowedClients: () => allowed };
    await using controller = await startController({ curve, plan: false, heartbeatMs: 50 });
    const engine = await startSimulatedEngine({
      endpoint: controller.endpoint,
      curve: { ...friend, serverKey: server.publicKey },
    });
    onTestFinished(() => engine.close().then(() => undefined));
    await refused;
    expect(controller.engines()).toEqual([]);
    allowed.push(friend.publicKey);
    await controller.waitForEngine({ phase: "serving" });
  });

  test("without a list every client that knows the server's key joins", async () => {
    await using controller = await startController({ curve: server, heartbeatMs: 50 });
    await using _engine = await joinEngine(controller, {
      curve: { ...stranger, serverKey: server.publicKey },
    });
    await controller.waitForEngine({ settled: true });
  });
});

test("IPv6: the endpoint is told as it can be connected to, and is free after closing", async () => {
  const controller = await startController({ endpoint: "tcp://[::1]:0", plan: false });
  expect(controller.endpoint).toMatch(/^tcp:\/\/\[::1\]:[1-9]\d*$/);
  const { endpoint } = controller;
  const engine = await startSimulatedEngine({ endpoint });
  onTestFinished(() => engine.close().then(() => undefined));
  await controller.waitForEngine({ phase: "serving" });
  // With its sentence: that holds the reason of the operating system.
  const second = await createController({ endpoint, plan: false }).start().catch(String);
  expect(second).toContain(`Expected ${endpoint} to be free, but another process listens there`);
  await controller.close();
  await using next = await startController({ endpoint, plan: false });
  expect(next.endpoint).toBe(endpoint);
});

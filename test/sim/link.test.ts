import { once } from "node:events";
import { createServer } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { Dealer, Router } from "zeromq";
import { EngineLink } from "../../src/sim/live/link.ts";
import { TurnsLink } from "../../src/sim/live/turns.ts";
import { waitUntilFree } from "../../src/wire/endpoint.ts";
import { listening } from "../helpers/listening.ts";
import { HandController } from "./hand-controller.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

function failing(code: string): () => never {
  return () => {
    throw Object.assign(new Error("of libzmq"), { code });
  };
}

test("a connection that a signal interrupts is made again", async () => {
  const controller = new Router({ linger: 0 });
  await controller.bind("tcp://127.0.0.1:*");
  const connect = vi.spyOn(Dealer.prototype, "connect").mockImplementationOnce(failing("EINTR"));
  const endpoint = String(controller.lastEndpoint);
  const events = new EventTarget();
  const up = once(events as never, "up");
  const link = new EngineLink({
    ...{ endpoint, onMessage: () => {}, onDown: () => {} },
    onUp: () => void events.dispatchEvent(new Event("up")),
  });
  link.open();
  await up;
  expect(connect).toHaveBeenCalledTimes(2);
  await link.close();
  controller.close();
});

test("two without a place are asked when they say", async () => {
  const pair = [new HandController(), new HandController()] as const;
  for (const { socket } of pair) await socket.bind("tcp://127.0.0.1:*");
  const link: TurnsLink = new TurnsLink({
    endpoints: pair.map(({ socket }) => String(socket.lastEndpoint)),
    ...{ isSettled: () => false, onMessage: () => {}, onDown: () => {} },
    onUp: () => void link.send({ type: "heartbeat" }),
  });
  link.open();
  const began = performance.now();
  for (const each of [...pair, ...pair]) {
    await each.next("heartbeat");
    await each.send({ type: "later", code: "X", message: "x", retrySeconds: 1 });
  }
  expect(performance.now() - began).toBeGreaterThan(900);
  await link.close();
  for (const { socket } of pair) socket.close();
});

test("each connection has a name of its own: of two with one a router may hear neither", async () => {
  const names: string[] = [];
  let endpoint = "tcp://127.0.0.1:*";
  let link: EngineLink | undefined;
  for (let controllers = 0; controllers < 2; controllers++) {
    const controller = new Router({ linger: 0 });
    await controller.bind(endpoint);
    endpoint = String(controller.lastEndpoint);
    if (link === undefined) {
      const own: EngineLink = new EngineLink({
        ...{ endpoint, onMessage: () => {}, onDown: () => {} },
        onUp: () => void own.send({ type: "heartbeat" }),
      });
      link = own;
      link.open();
    }
    const [name] = await controller.receive();
    names.push(String(name));
    controller.close();
    await waitUntilFree(endpoint);
  }
  await link?.close();
  expect(new Set(names).size).toBe(2);
});

test("any other failure is the caller's", async () => {
  vi.spyOn(Dealer.prototype, "connect").mockImplementationOnce(failing("EINVAL"));
  const endpoint = "tcp://127.0.0.1:1";
  const quiet = { onMessage: () => {}, onDown: () => {}, onUp: () => {} };
  const link = new EngineLink({ endpoint, ...quiet });
  expect(() => link.open()).toThrow("of libzmq");
  await link.close();
});

test("who hangs up on it is asked again when its time has come, and not at once", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const { host } = new URL(await listening(createServer((socket) => void socket.destroy())));
  const connect = vi.spyOn(Dealer.prototype, "connect").mockClear();
  const quiet = { endpoint: `tcp://${host}`, onMessage: () => {}, onUp: () => {} };
  const link = await new Promise<EngineLink>((down) => {
    const own: EngineLink = new EngineLink({ ...quiet, onDown: () => down(own) });
    own.open();
  });
  expect(connect).toHaveBeenCalledTimes(1);
  vi.advanceTimersToNextTimer();
  expect(connect).toHaveBeenCalledTimes(2);
  await link.close();
});

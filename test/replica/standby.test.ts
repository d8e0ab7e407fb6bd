import { createServer } from "node:http";
import { Server } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { freePort } from "../../src/bench/engine-command.ts";
import { onEvent } from "../../src/engine/events.ts";
import { createStandby, type Standby, type StandbyOptions } from "../../src/replica/standby.ts";
import { FakeEngine } from "../helpers/fake-engine.ts";

function standby(port: number, peer: number, more: Partial<StandbyOptions> = {}): Standby {
  const replica = createStandby({
    peers: [`http://127.0.0.1:${peer}`],
    controller: { plan: false },
    http: { host: "127.0.0.1", port },
    goneSeconds: 0.5,
    pollMs: 20,
    ...more,
  });
  onTestFinished(() => replica.close());
  return replica;
}

test("of two that lead at once the older start steps down and follows", async () => {
  const [one, other, nobody] = await Promise.all([freePort(), freePort(), freePort()]);
  // The first can't see the second yet: they are parted.
  const parted = standby(one, nobody);
  await expect.poll(() => parted.controller).toBeDefined();
  const older = parted.controller?.incarnation ?? 0;
  const second = standby(other, nobody);
  await expect.poll(() => second.controller).toBeDefined();
  expect(second.controller?.incarnation).toBeGreaterThan(older);
  await Promise.all([parted.close(), second.close()]);

  const first = standby(one, other);
  await expect.poll(() => first.controller).toBeDefined();
  // It looks for nobody, so it leads beside the first, which sees it.
  const younger = standby(other, nobody);
  await expect.poll(() => first.following).toBe(`http://127.0.0.1:${other}/`);
  expect(first.controller).toBeUndefined();
  expect(younger.controller).toBeDefined();
});

test.each([
  ["~", true],
  [undefined, true],
  ["", false],
])("beside one that is as old, in process %j, it starts anew: %j", async (process, anew) => {
  const [port, peer] = await Promise.all([freePort(), freePort()]);
  const replica = standby(port, peer);
  await expect.poll(() => replica.controller).toBeDefined();
  const incarnation = replica.controller?.incarnation ?? 0;
  let looks = 0;
  const other = createServer((_, response) => {
    looks++;
    response.end(JSON.stringify({ ok: true, incarnation, process }));
  }).listen(peer, "127.0.0.1");
  onTestFinished(() => void other.close());
  await expect.poll(() => looks).toBeGreaterThan(2);
  await expect.poll(() => (replica.controller?.incarnation ?? 0) > incarnation).toBe(anew);
});

test("a wait outlasts the controller that it began with", async () => {
  const [one, other] = await Promise.all([freePort(), freePort()]);
  const first = standby(one, other);
  await expect.poll(() => first.controller).toBeDefined();
  const second = standby(other, one, { place: 1 });
  await expect.poll(() => second.following).toBeDefined();
  const controller = new AbortController();
  const waiting = second.waitForEngine({ signal: controller.signal });
  await first.close();
  await expect.poll(() => second.controller).toBeDefined();
  const found = second.waitForEngine();
  const engine = new FakeEngine({ name: "late" });
  onTestFinished(() => engine.disconnect());
  await engine.connect(second.controller?.endpoint ?? "");
  await expect(found).resolves.toMatchObject({ engine: "late" });
  await expect(waiting).resolves.toMatchObject({ engine: "late" });
  await second.close();
  await expect(second.waitForEngine()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
});

test("a wait that times out has a code, whether anybody leads or not", async () => {
  const [port, peer] = await Promise.all([freePort(), freePort()]);
  const alone = standby(port, peer, { place: 1 });
  const late = { code: "ERR_LAZYGRAPH_ENGINE_TIMEOUT", cause: { name: "TimeoutError" } };
  const wait = (): Promise<unknown> => alone.waitForEngine({ signal: AbortSignal.timeout(10) });
  await expect(wait()).rejects.toMatchObject(late);
  await expect.poll(() => alone.controller).toBeDefined();
  await expect(wait()).rejects.toMatchObject(late);
});

test("a controller that can't be opened is told once, and tried again", async () => {
  const [port, peer] = await Promise.all([freePort(), freePort()]);
  const taken = standby(port, peer);
  await expect.poll(() => taken.controller).toBeDefined();
  let looks = 0;
  const follower = createServer((_, response) => {
    looks += 1;
    response.writeHead(503).end();
  }).listen(peer, "127.0.0.1");
  onTestFinished(() => void follower.close());
  const problems: unknown[] = [];
  const late = standby(port, peer, { onProblem: (error) => problems.push(error) });
  await expect.poll(() => problems.length).toBe(1);
  const before = looks;
  await expect.poll(() => looks).toBeGreaterThan(before + 5);
  expect(problems).toMatchObject([{ code: "ERR_LAZYGRAPH_ADDRESS_IN_USE" }]);
  await taken.close();
  await expect.poll(() => late.controller).toBeDefined();
});

test("one whose listeners throw leads nevertheless, once it can", async () => {
  const [port, peer] = await Promise.all([freePort(), freePort()]);
  const taken = createServer().listen(port, "127.0.0.1");
  onTestFinished(() => void taken.close());
  const warn = vi.spyOn(process, "emitWarning").mockReturnValue();
  onTestFinished(() => warn.mockRestore());
  const fail = () => {
    throw new Error("a test");
  };
  const replica = standby(port, peer, { onProblem: fail, onChange: async () => fail() });
  await expect.poll(() => warn.mock.calls.length).toBe(1);
  taken.close();
  await expect.poll(() => replica.controller).toBeDefined();
  await expect.poll(() => warn.mock.calls.length).toBe(2);
});

test("one whose controller was closed under it steps down, and the next takes over", async () => {
  const [one, other] = await Promise.all([freePort(), freePort()]);
  const first = standby(one, other);
  await expect.poll(() => first.controller).toBeDefined();
  const second = standby(other, one, { place: 1 });
  await expect.poll(() => second.following).toBeDefined();
  await first.controller?.close();
  await expect.poll(() => first.controller).toBeUndefined();
  // Either may: the places decide only while nobody has led.
  const leads = () => [first, second].some(({ controller }) => controller?.listening === true);
  await expect.poll(leads).toBe(true);
});

test("a connection that its HTTP side can't take is told, and no end", async () => {
  const [port, peer] = await Promise.all([freePort(), freePort()]);
  const listen = vi.spyOn(Server.prototype, "listen");
  onTestFinished(() => listen.mockRestore());
  const onProblem = vi.fn();
  const replica = standby(port, peer, { onProblem });
  await expect.poll(() => replica.controller).toBeDefined();
  const error = new Error("accept EMFILE");
  (listen.mock.contexts[0] as Server).emit("error", error);
  expect(onProblem).toHaveBeenCalledWith(error);
});

test("who hears of an engine finds it, though no peer can ask yet", async () => {
  const [port, peer, taken] = await Promise.all([freePort(), freePort(), freePort()]);
  const endpoint = `tcp://127.0.0.1:${taken}`;
  const listen = vi.spyOn(Server.prototype, "listen").mockReturnThis();
  const controller = { plan: false, endpoint };
  const replica = standby(port, peer, { controller, onProblem: () => undefined });
  const found = new Promise((resolve) => {
    const hear = () => resolve(replica.engines().map(({ engine }) => engine));
    onTestFinished(onEvent("lazygraph:engine:join", hear));
  });
  await using engine = new FakeEngine();
  await engine.connect(endpoint);
  const names = await found;
  const [server] = listen.mock.contexts as Server[];
  listen.mockRestore();
  server?.emit("error", new Error("over"));
  expect(names).toEqual(["engine-0"]);
});

test("the signal of its controller closes it, and the next takes over", async () => {
  const [one, other] = await Promise.all([freePort(), freePort()]);
  const stop = new AbortController();
  const first = standby(one, other, { controller: { plan: false, signal: stop.signal } });
  await expect.poll(() => first.controller).toBeDefined();
  const second = standby(other, one, { place: 1 });
  await expect.poll(() => second.following).toBeDefined();
  stop.abort();
  await expect(first.waitForEngine()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
  await expect.poll(() => second.controller).toBeDefined();
  const late = standby(one, other, { controller: { signal: stop.signal } });
  await expect(late.waitForEngine()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
});

test("closed it says so", async () => {
  const [port, peer] = await Promise.all([freePort(), freePort()]);
  const replica = standby(port, peer);
  await replica.close();
  await expect(replica.waitForEngine()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
  expect(replica.engines()).toEqual([]);
});

test.each([
  [{ peers: [] }, "peers"],
  [{ peers: ["gateway-0"] }, "peers"],
  [{ place: -1 }, "place"],
  [{ goneSeconds: 0 }, "goneSeconds"],
  [{ http: undefined }, "http"],
  [{ http: { port: 0 } }, "http.host"],
  [{ http: { host: "127.0.0.1", port: -1 } }, "http.port"],
  [{ http: { host: "127.0.0.1", port: 0, token: "short" } }, "token"],
  [{ controller: { mode: "fast" } }, "mode"],
  [{ per: [] }, "per"],
])("%j is refused", (wrong, option) => {
  const options = { peers: ["http://a:1"], controller: {}, http: { host: "127.0.0.1", port: 0 } };
  expect(() => createStandby({ ...options, ...wrong } as never)).toThrow(
    expect.objectContaining({ code: "ERR_LAZYGRAPH_OPTION", option }),
  );
});

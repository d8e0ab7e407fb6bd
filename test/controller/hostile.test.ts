/** Peers that mean no good, beside an engine that does: it must not notice. */

import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { Dealer } from "zeromq";
import type { Controller } from "../../src/controller/controller.ts";
import type { ControllerOptions } from "../../src/controller/options.ts";
import { encode } from "../../src/wire/codec.ts";
import type { FromEngine, Inventory } from "../../src/wire/protocol.ts";
import { EventLog } from "../helpers/events.ts";
import { CONFIGURATION, FakeEngine, plan, RANK } from "../helpers/fake-engine.ts";
import { startController } from "../helpers/joined.ts";

const HEARTBEAT_MS = 200;

async function started(options: ControllerOptions = {}): Promise<Controller> {
  const controller = await startController({ heartbeatMs: HEARTBEAT_MS, ...options });
  onTestFinished(() => controller.close());
  return controller;
}

function peer(endpoint: string): Dealer {
  const dealer = new Dealer({ linger: 0, sendTimeout: 0 });
  dealer.connect(endpoint);
  onTestFinished(() => dealer.close());
  return dealer;
}

/** As large as an inventory may be. */
function largeInventory(): Buffer {
  const inventory: Inventory = {
    type: "inventory",
    phase: "loading",
    graphs: plan(...Array.from({ length: 2048 }, (_, n) => n + 1)),
    captured: [],
    ranks: [RANK],
    ...CONFIGURATION,
    epoch: 0,
  };
  return encode(inventory);
}

/** Sends as fast as the socket takes it, until told to stop. */
function flood(dealer: Dealer, frame: Buffer): () => Promise<void> {
  let isOver = false;
  const running = (async () => {
    while (!isOver) {
      await dealer.send(frame).catch(() => undefined);
      await sleep(2);
    }
  })();
  return async () => {
    isOver = true;
    await running;
  };
}

test.for(["a session", "no session"] as const)(
  "an engine isn't lost beside a peer with %s that sends large inventories all the time",
  async (kind) => {
    const controller = await started();
    const honest = new FakeEngine({ name: "honest", heartbeatMs: HEARTBEAT_MS });
    onTestFinished(() => honest.disconnect());
    using lost = new EventLog("lazygraph:engine:lost", "honest");
    using problems = new EventLog("lazygraph:problem");
    await honest.connect(controller.endpoint);
    await controller.waitForEngine({ engine: "honest" });
    const hostile = peer(controller.endpoint);
    if (kind === "a session") {
      await hostile.send(encode({ ...honest.hello, engine: "hostile", session: "h" }));
      await controller.waitForEngine({ engine: "hostile" });
    }
    const stop = flood(hostile, largeInventory());
    const before = honest.ofType("heartbeat").length;
    if (kind === "a session") {
      const { message } = await problems.first(({ code }) => code === "ERR_LAZYGRAPH_ENGINE_FLOOD");
      expect(message).toMatch(/no more than takes 25% of the time to read, got \d+ more/);
    }
    // Twice as long as an engine may be silent.
    await honest.got("heartbeat", before + 10);
    await stop();
    expect(lost.all).toEqual([]);
    expect(honest.ofType("resync")).toEqual([]);
    // Nothing of a stranger's is worked at that is no hello.
    if (kind === "no session") expect(controller.engines()).toHaveLength(1);
  },
);

test("strangers don't push out an engine, however many there are", async () => {
  const controller = await started({ heartbeatMs: 60_000 });
  const honest = new FakeEngine({ name: "honest", heartbeatMs: 0 });
  onTestFinished(() => honest.disconnect());
  await honest.connect(controller.endpoint);
  await controller.waitForEngine({ engine: "honest" });
  const frame = encode({ type: "heartbeat" });
  for (let crowd = 0; crowd < 12; crowd += 1) {
    const dealers = Array.from({ length: 100 }, () => {
      const dealer = new Dealer({ linger: 0 });
      dealer.connect(controller.endpoint);
      return dealer;
    });
    // Each is asked who it is: it has been heard.
    await Promise.all(
      dealers.map(async (dealer) => {
        await dealer.send(frame);
        await dealer.receive();
        dealer.close();
      }),
    );
  }
  controller.setMode("honest", "lazy");
  expect((await honest.got("mode")).mode).toBe("lazy");
});

test("who comes back under its routing id is let in again", async () => {
  const controller = await started({ heartbeatMs: 60_000 });
  using joined = new EventLog("lazygraph:engine:join");
  const { hello } = new FakeEngine({ name: "gone" });
  const dealer = new Dealer({ linger: 0, routingId: "gone" });
  dealer.connect(controller.endpoint);
  const frames: FromEngine[] = [{ type: "heartbeat" }, hello];
  for (const frame of frames) await dealer.send(encode(frame));
  await joined.first();
  dealer.close();
  // Whatever is sent to it now finds nobody.
  using lost = new EventLog("lazygraph:engine:lost");
  while (lost.all.length === 0) {
    if (controller.engines()[0]?.connected === true) controller.setMode("gone", "lazy");
    if (controller.engines()[0]?.connected === true) controller.setMode("gone", "idle");
    await sleep(5);
  }
  expect(lost.all).toHaveLength(1);
  // It comes back under its routing id, and is let in.
  const again = new Dealer({ linger: 0, routingId: "gone" });
  again.connect(controller.endpoint);
  onTestFinished(() => again.close());
  await again.send(encode(hello));
  await joined.first(({ reconnected }) => reconnected);
});

test("frames without a session that are no messages are told once for all that send some", async () => {
  const controller = await started();
  using problems = new EventLog("lazygraph:problem");
  for (const engine of ["one", "two"]) {
    const dealer = new Dealer({ linger: 0 });
    dealer.connect(controller.endpoint);
    onTestFinished(() => dealer.close());
    for (const byte of [0xc1, 0x00, 0xc1]) await dealer.send(Buffer.of(byte));
    // Behind them on the same connection.
    await dealer.send(encode(new FakeEngine({ name: engine }).hello));
    await controller.waitForEngine({ engine });
  }
  expect(problems.all).toMatchObject([
    {
      engine: "",
      code: "ERR_LAZYGRAPH_PROTOCOL_FRAME",
      message: expect.stringMatching(/ It came from a peer without a session, whose address/),
    },
  ]);
});

test("who is kept out and asks with every frame is told of 64 times a minute", async () => {
  const controller = await started();
  using problems = new EventLog("lazygraph:problem");
  const strange = peer(controller.endpoint);
  const { hello } = new FakeEngine({ hello: { versionMin: 9, versionMax: 9 } });
  for (let count = 0; count < 100; count++) await strange.send(encode(hello));
  // Behind them on the same connection.
  await strange.send(encode({ ...hello, versionMin: 1, engine: "last" }));
  await controller.waitForEngine({ engine: "last" });
  expect(problems.all.map(({ code }) => code)).toEqual(
    Array(64).fill("ERR_LAZYGRAPH_PROTOCOL_VERSION"),
  );
});

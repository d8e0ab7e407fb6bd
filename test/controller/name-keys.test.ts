/** Names of engines belong to CURVE keys: over real sockets. */

import { describe, expect, onTestFinished, test } from "vitest";
import { curveKeyPair } from "zeromq";
import { type Controller, createController } from "../../src/controller/controller.ts";
import { onEvent } from "../../src/engine/events.ts";
import { startSimulatedEngine } from "../../src/testing.ts";
import type { AllowedClients } from "../../src/wire/curve.ts";
import { proveKey } from "../../src/wire/key-proof.ts";
import { FakeEngine } from "../helpers/fake-engine.ts";

const own = curveKeyPair();
const [first, second] = [curveKeyPair(), curveKeyPair()];
const CODE = "ERR_LAZYGRAPH_ENGINE_NAME";

async function start(allowedClients?: AllowedClients): Promise<Controller> {
  const controller = createController({
    heartbeatMs: 50,
    curve: { ...own, ...(allowedClients === undefined ? {} : { allowedClients }) },
  });
  onTestFinished(() => controller.close());
  await controller.start();
  return controller;
}

let sessions = 0;

async function join(
  controller: Controller,
  keys: ReturnType<typeof curveKeyPair>,
  name: string,
  { proof = true, session = `s${++sessions}` } = {},
): Promise<FakeEngine> {
  const claimed = { engine: name, session };
  const engine = new FakeEngine({
    name,
    session,
    curve: { ...keys, serverKey: own.publicKey },
    hello: proof ? { proof: proveKey(keys, own.publicKey, claimed) } : {},
  });
  onTestFinished(() => engine.disconnect());
  await engine.connect(controller.endpoint);
  return engine;
}

function problems(): { code: string; message: string }[] {
  const told: { code: string; message: string }[] = [];
  onTestFinished(onEvent("lazygraph:problem", (problem) => told.push(problem)));
  return told;
}

describe("a name that an engine has", () => {
  test("isn't another key's to take: said on both sides, and the engine isn't told", async () => {
    const told = problems();
    const controller = await start();
    const honest = await join(controller, first, "a");
    await controller.waitForEngine({ engine: "a", settled: true });
    const thief = await join(controller, second, "a");
    const later = await thief.got("later");
    expect(later).toMatchObject({ code: CODE });
    expect(later.message).toMatch(
      /^Expected engine a to have the key .{8}…, which had that name first/,
    );
    expect(told).toContainEqual(expect.objectContaining({ code: CODE, engine: "a" }));
    const [seen] = controller.engines();
    expect(seen).toMatchObject({ connected: true, problems: { namesakes: 1, replaced: 0 } });
    expect(honest.received.map(({ type }) => type)).not.toContain("later");
    const { endpoint } = controller;
    const curve = { ...second, serverKey: own.publicKey };
    await using it = await startSimulatedEngine({ endpoint, engine: "a", curve });
    expect((await it.waitFor("problem")).code).toBe(CODE);
  });

  test("isn't to be had without a proof, nor by the session of who has it", async () => {
    const controller = await start();
    await join(controller, first, "a", { session: "known" });
    await controller.waitForEngine({ engine: "a", settled: true });
    const silent = await join(controller, second, "a", { proof: false });
    expect(await silent.got("later")).toMatchObject({ code: CODE });
    const copy = await join(controller, second, "a", { session: "known" });
    expect(await copy.got("later")).toMatchObject({ code: CODE });
    expect(controller.engines()).toMatchObject([{ connected: true, problems: { namesakes: 2 } }]);
  });

  test("stays its key's while it is lost, and is its key's to take again", async () => {
    const controller = await start();
    const before = await join(controller, first, "a");
    await controller.waitForEngine({ engine: "a", settled: true });
    before.disconnect();
    await expect.poll(() => controller.engines()[0]?.connected).toBe(false);
    const thief = await join(controller, second, "a");
    expect(await thief.got("later")).toMatchObject({ code: CODE });
    const after = await join(controller, first, "a");
    expect(await after.got("welcome")).toMatchObject({ type: "welcome" });
  });

  test("is free again once its key may not connect any more", async () => {
    let allowed = [first.publicKey, second.publicKey];
    const controller = await start(() => allowed);
    const before = await join(controller, first, "a");
    await controller.waitForEngine({ engine: "a", settled: true });
    before.disconnect();
    allowed = [second.publicKey];
    const after = await join(controller, second, "a");
    expect(await after.got("welcome")).toMatchObject({ type: "welcome" });
  });

  test("is whoever's without a key, as before: an older plugin proves none", async () => {
    const controller = await start();
    const old = await join(controller, first, "a", { proof: false });
    await controller.waitForEngine({ engine: "a", settled: true });
    const young = await join(controller, second, "a", { proof: false });
    expect(await young.got("welcome")).toMatchObject({ type: "welcome" });
    expect(await old.got("later")).toMatchObject({ code: "ERR_LAZYGRAPH_ENGINE_REPLACED" });
  });
});

describe("names that are given to keys", () => {
  const given: AllowedClients = [
    { key: first.publicKey, engines: ["a", "llama-*"] },
    second.publicKey,
  ];

  test.for(["a", "llama-", "llama-7"])("%s is its key's", async (name) => {
    const controller = await start(given);
    const thief = await join(controller, second, name);
    const later = await thief.got("later");
    expect(later.message).toContain("to have the key to which that name is given");
    const honest = await join(controller, first, name);
    expect(await honest.got("welcome")).toMatchObject({ type: "welcome" });
  });

  test("are all that their key may take, and a key without any takes every other name", async () => {
    const controller = await start(given);
    const beyond = await join(controller, first, "b");
    expect(await beyond.got("later")).toMatchObject({
      code: CODE,
      message: expect.stringContaining("to have a name that is given to it (a, llama-*), got b"),
    });
    const other = await join(controller, second, "b");
    expect(await other.got("welcome")).toMatchObject({ type: "welcome" });
  });

  test("are cut between characters: peers take no half of one", async () => {
    const engines = Array.from("abc", (name) => name + "😀".repeat(63));
    const engine = await join(await start([{ key: first.publicKey, engines }]), first, "b");
    expect((await engine.got("later")).message).not.toMatch(/\p{Surrogate}/u);
  });

  test("need a proof from everybody", async () => {
    const controller = await start(given);
    const silent = await join(controller, first, "b", { proof: false });
    const later = await silent.got("later");
    expect(later.message).toMatch(/^Expected engine b to prove a key that is allowed/);
  });

  test("are looked at again, so that a mistake is mended while both sides run", async () => {
    let allowed: AllowedClients = [{ key: first.publicKey, engines: ["a"] }, second.publicKey];
    const controller = await start(() => allowed as readonly string[]);
    const engine = await join(controller, second, "a");
    expect(await engine.got("later")).toMatchObject({ code: CODE });
    allowed = [first.publicKey, { key: second.publicKey, engines: ["a"] }];
    engine.send(engine.hello);
    expect(await engine.got("welcome")).toMatchObject({ type: "welcome" });
  });
});

test("without keys on the controller's side nothing is asked for", async () => {
  const controller = createController({ heartbeatMs: 50 });
  onTestFinished(() => controller.close());
  await controller.start();
  const engine = new FakeEngine({ name: "a", hello: { proof: { key: "k", mac: "m" } } });
  onTestFinished(() => engine.disconnect());
  await engine.connect(controller.endpoint);
  expect(await engine.got("welcome")).toMatchObject({ type: "welcome" });
});

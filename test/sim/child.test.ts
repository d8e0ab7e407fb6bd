import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { curveKeyPair } from "zeromq";
import { createController } from "../../src/controller/controller.ts";
import {
  type SimulatedEngineEvent,
  type SimulatedEngineOptions,
  startSimulatedEngine,
  startSimulatedServer,
} from "../../src/testing.ts";
import { MAIN, SIMULATED_ENGINE } from "../helpers/built.ts";
import { EventLog } from "../helpers/events.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { startController } from "../helpers/joined.ts";
import { listening } from "../helpers/listening.ts";

const trace = "azure-llm-2023-conversation";
const checkout = fileURLToPath(new URL("../..", import.meta.url));

/** "Settled" comes over the socket, events over a pipe: the last of them may come after it. */
async function capturedOnceEach(
  events: readonly SimulatedEngineEvent[],
  graphs: number,
): Promise<void> {
  const captures = () => events.flatMap((event) => (event.type === "capture" ? [event.graph] : []));
  await expect.poll(captures).toHaveLength(graphs);
  expect(new Set(captures()).size).toBe(graphs);
}

let folder: string;
let endpoint: string;
beforeEach(async () => {
  folder = await temporaryFolder();
  endpoint = `ipc://${join(folder, "controller")}`;
});

describe("a simulated engine as a process", () => {
  test("joins a controller, takes its mode, serves its trace and is filled", async () => {
    await using controller = await startController({ mode: "idle", plan: false });
    const events: SimulatedEngineEvent[] = [];
    await using engine = await startSimulatedEngine({
      endpoint: controller.endpoint,
      engine: "east",
      mode: "eager",
      handshakeMs: 60_000,
      speed: 60,
      trace: { file: trace, speed: 0.5, requests: 20 },
      onEvent: (event) => void events.push(event),
    });
    await controller.waitForEngine({ engine: "east", settled: true });
    expect(await engine.waitFor("drained")).toMatchObject({ requests: 20, requestsRefused: 0 });
    const [snapshot] = controller.engines();
    expect(snapshot).toMatchObject({
      engine: "east",
      session: engine.session,
      pid: engine.pid,
      mode: "idle",
      simulated: "llama-3.1-8b-h200",
      phase: "serving",
      graphsCaptured: 102,
      graphsPlanned: 102,
    });
    // Both tops take 73 ms; one graph more fits a thirtieth of what stock spends. Which small one it
    // is goes by whether a request waits by then, and differs by less than 0.1 ms.
    expect(snapshot?.captureBeforeReadySeconds).toBeCloseTo(0.0872, 3);
    expect(snapshot?.problems).toMatchObject({ malformed: 0, unknownTypes: 0, unknownGraphs: 0 });
    await capturedOnceEach(events, 99);
    expect(await engine.close()).toEqual({ exitCode: 0, signal: null });
  });

  test("without its controller it goes on, and the next controller finds all it has", async () => {
    const options = { mode: "idle", endpoint, heartbeatMs: 50, plan: false } as const;
    const first = await startController(options);
    using ends = new EventLog("lazygraph:capture:end", "west");
    const events: SimulatedEngineEvent[] = [];
    await using engine = await startSimulatedEngine({
      endpoint,
      engine: "west",
      handshakeMs: 60_000,
      speed: 10,
      trace: { file: trace, speed: 0.5, requests: 10 },
      onEvent: (event) => void events.push(event),
    });
    await ends.first((event) => event.graphsCaptured >= 10);
    await first.close();
    await using second = await startController(options);
    const snapshot = await second.waitForEngine({ engine: "west", settled: true });
    expect(snapshot).toMatchObject({ session: engine.session, graphsCaptured: 102 });
    expect(await engine.waitFor("drained")).toMatchObject({ requests: 10, requestsRefused: 0 });
    // Beside the tops one more came before ready: its costs are known, and it fits the budget.
    await capturedOnceEach(events, 99);
  });

  test("killed, it is gone for its controller and for who waits for it", async () => {
    await using controller = await startController({ mode: "lazy", heartbeatMs: 50 });
    using lost = new EventLog("lazygraph:engine:lost", "south");
    await using engine = await startSimulatedEngine({
      endpoint: controller.endpoint,
      engine: "south",
      speed: 20,
    });
    await controller.waitForEngine({ engine: "south", phase: "serving" });
    const waiting = engine.waitFor("drained");
    engine.kill("SIGKILL");
    await expect(waiting).rejects.toThrow(
      expect.objectContaining({ code: "ERR_LAZYGRAPH_ENGINE_LOST" }),
    );
    expect(await engine.exited).toEqual({ exitCode: null, signal: "SIGKILL" });
    expect((await lost.first()).code).toBe("ERR_LAZYGRAPH_ENGINE_LOST");
  });

  test("aborted before it has started, the caller gets the signal's own reason", async () => {
    const reason = new Error("no longer needed");
    const signal = AbortSignal.abort(reason);
    await expect(startSimulatedEngine({ endpoint, signal })).rejects.toBe(reason);
    const abort = new AbortController();
    const starting = startSimulatedEngine({ endpoint, signal: abort.signal });
    abort.abort(reason);
    await expect(starting).rejects.toBe(reason);
  });

  test("proves who it is with CURVE keys that aren't on its command line", async () => {
    const [server, client] = [curveKeyPair(), curveKeyPair()];
    await using controller = await startController({
      mode: "lazy",
      curve: { ...server, allowedClients: [client.publicKey] },
    });
    const start = (keys: typeof client) =>
      startSimulatedEngine({
        ...{ endpoint: controller.endpoint, speed: 20 },
        curve: { ...keys, serverKey: server.publicKey },
      });
    await using engine = await start(client);
    const snapshot = await controller.waitForEngine({ phase: "serving" });
    expect(snapshot.session).toBe(engine.session);
    await using other = await start(curveKeyPair());
    expect((await other.waitFor("problem")).code).toMatch(/_KEYS$/);
  });

  test("a stranger takes its GPU's memory and gives it back", async () => {
    await using engine = await startSimulatedEngine({ freeBytes: 5_000, gpuUuid: "GPU-one" });
    expect(await engine.setStrangerBytes(3_000)).toBe(2_000);
    expect(await engine.setStrangerBytes(9_000)).toBe(0);
    expect(await engine.setStrangerBytes(0)).toBe(5_000);
    await engine.close();
    await expect(engine.setStrangerBytes(1)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_LOST",
    });
  });

  test("out of memory, its process ends with code 1", async () => {
    await using engine = await startSimulatedEngine({
      freeBytes: 1 << 20,
      speed: 100,
      trace: { file: trace, requests: 5 },
    });
    await engine.waitFor("outOfMemory");
    expect(await engine.exited).toEqual({ exitCode: 1, signal: null });
  });

  test("ends when its parent dies", async () => {
    const program = `
      import { startSimulatedEngine } from ${JSON.stringify(join(checkout, "src/testing.ts"))};
      const engine = await startSimulatedEngine({ speed: 1 });
      console.log(engine.pid);
      await engine.exited;`;
    const parent = spawn(
      process.execPath,
      ["--import", "tsx", "--input-type=module", "--eval", program],
      { cwd: checkout, stdio: ["ignore", "pipe", "pipe"] },
    );
    await once(parent.stdout, "data");
    // The engine holds the other end of stderr as well: `close` comes only when both are gone. The
    // pid would say less, since an orphan nobody waits for stays in the process table.
    const closed = once(parent, "close");
    parent.stderr.resume();
    parent.kill("SIGKILL");
    expect(await closed).toEqual([null, "SIGKILL"]);
  });

  test.each([
    [{ endpoint: "foo" }, "endpoint", "Expected endpoint to be an endpoint such as"],
    [{ speed: -1 }, "speed", "Expected speed to be a number from 0.001 to 1000, got -1 (number)."],
    [{ foo: 1 }, "foo", 'Expected a known option, got "foo": known are endpoint, engine, '],
    [{ profil: "x" }, "profil", 'got "profil": did you mean profile?'],
    [{ http: "nowhere" }, "http", "Expected http to be HOST:PORT such as 127.0.0.1:0"],
    [{ trace: { speed: 2 } }, "trace", "Expected trace to be an object such as { file"],
    [{ trace: { file: "x", fil: 1 } }, "fil", 'Expected a known option of trace, got "fil"'],
    [{ curve: {} }, "curve", "Expected curve to be an object with serverKey"],
  ])("%j starts nothing", async (options, option, sentence) => {
    await expect(startSimulatedEngine(options as SimulatedEngineOptions)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_OPTION",
      option,
      message: expect.stringContaining(sentence),
    });
  });

  test("what the engine can't use comes back with its own code", async () => {
    await expect(startSimulatedEngine({ profile: "/nope" })).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_PROFILE",
      message:
        "Profile /nope: expected the file to be readable, got ENOENT: there is no such file, so check its name.",
    });
    await expect(startSimulatedEngine({ trace: { file: "missing.csv" } })).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_TRACE",
      message:
        "Expected missing.csv to be a readable trace file, got ENOENT: there is no such file, so check its name.",
    });
    const { host, port } = new URL(await listening(createServer()));
    await expect(startSimulatedEngine({ http: host })).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ADDRESS_IN_USE",
      message: expect.stringContaining(`got ${host}, which another program uses`),
    });
    await expect(startSimulatedServer({ port: Number(port) })).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ADDRESS_IN_USE",
    });
  });
});

describe("its command line", () => {
  async function run(
    options: readonly string[],
    variables: NodeJS.ProcessEnv = {},
    program: readonly string[] = [SIMULATED_ENGINE],
  ): Promise<{ exitCode: unknown; stderr: string }> {
    const child = spawn(process.execPath, [...program, ...options], {
      cwd: checkout,
      env: { ...process.env, ...variables },
      stdio: ["ignore", "ignore", "pipe"],
    });
    const [stderr, [exitCode]] = await Promise.all([text(child.stderr), once(child, "exit")]);
    return { exitCode, stderr };
  }

  test.each([
    [["--speed", "0"], 'Expected --speed to be a number from 0.001 to 1000, got "0".'],
    [
      ["--trace-requests", "1.5"],
      "Expected --trace-requests to be a whole number from 1 to 100000",
    ],
    [
      ["--trace", "missing.csv"],
      "Expected missing.csv to be a readable trace file, got ENOENT: there is no such file, so check its name.",
    ],
    [["--profil", "x"], 'got the unknown option "--profil": did you mean --profile?'],
  ])("%j", async (options, sentence) => {
    const { exitCode, stderr } = await run(options);
    expect(stderr).toContain(sentence);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(exitCode).toBe(2);
  });

  const LISTED = "tcp://127.0.0.1:1,tcp://127.0.0.1:2";
  test.each([
    ["a", "Expected LAZYGRAPH_ENDPOINT to be an endpoint such as"],
    [`${LISTED},tcp://127.0.0.1:1`, "Expected LAZYGRAPH_ENDPOINT to name each endpoint once"],
    [
      Array.from({ length: 9 }, (_, index) => `tcp://127.0.0.1:${index + 1}`).join(),
      "Expected LAZYGRAPH_ENDPOINT to have at most 8 endpoints, got 9.",
    ],
    [`${LISTED},tcp://10.0.0.1:1`, "keys for LAZYGRAPH_ENDPOINT tcp://10.0.0.1:1, behind which"],
  ])("LAZYGRAPH_ENDPOINT=%s is refused by its own name", async (value, sentence) => {
    const program = [MAIN, "simulated-engine"];
    const { exitCode, stderr } = await run([], { LAZYGRAPH_ENDPOINT: value }, program);
    expect(stderr).toContain(sentence);
    expect([exitCode, stderr.trim().split("\n").length]).toEqual([2, 1]);
  });
});

test("of several addresses each gets its turn, also when the one that it was at is gone", async () => {
  const addresses = ["none", "first", "second"].map((name) => `ipc://${join(folder, name)}`);
  const [, first = "", second = ""] = addresses;
  const open = async (at: string) => {
    const controller = createController({ endpoint: at, plan: false, heartbeatMs: 100 });
    onTestFinished(() => controller.close());
    await controller.start();
    return controller;
  };
  const leading = await open(first);
  const engine = await startSimulatedEngine({ endpoint: addresses.join(","), speed: 50 });
  onTestFinished(() => engine.close().then(() => undefined));
  await leading.waitForEngine({ settled: true });
  const standby = await open(second);
  await leading.close();
  // Its graphs come after its phase.
  const found = await standby.waitForEngine({ settled: true });
  expect(found).toMatchObject({ session: engine.session, graphsCaptured: 102 });
  // And back: whichever takes it, in order round and round.
  await standby.close();
  const again = await open(first);
  expect((await again.waitForEngine()).session).toBe(engine.session);
});

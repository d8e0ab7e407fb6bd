/**
 * OpenAI's client for Python, through the gateway. `npm test` prepares a Python that has it;
 * without one these tests are skipped with a reason.
 */

import { execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import type { SimulatedServer } from "../../src/sim/live/server.ts";
import { startController, startEngine, startGateway, startStub } from "./helpers.ts";
import { startToolEngine } from "./tool-engine.ts";

const SCRIPT = fileURLToPath(new URL("python_client.py", import.meta.url));
const CASE_MS_MAX = 120_000;

interface OpenaiPythonModule {
  knownOpenaiPython(): string | undefined;
}

const { knownOpenaiPython }: OpenaiPythonModule = await import(
  new URL("../../scripts/openai-python.mjs", import.meta.url).href
);

/** A Python that has the client, or why there is none. */
function pythonWithClient(): { file: string } | { missing: string } {
  const file = knownOpenaiPython();
  if (file === undefined) {
    const missing = "`npm test` made no Python with the package openai, see what it said";
    if (process.env["REQUIRE_OPENAI_PYTHON"] === "1") throw new Error(`Required: ${missing}.`);
    return { missing };
  }
  const { status } = spawnSync(file, ["-c", "import openai"], { timeout: CASE_MS_MAX });
  if (status !== 0) throw new Error(`Expected ${file} to have the package openai.`);
  return { file };
}

const python = pythonWithClient();
const file = "file" in python ? python.file : "";
const reason = "missing" in python ? ` (skipped: ${python.missing})` : "";

async function simulated(): Promise<{ url: string; engines: SimulatedServer[] }> {
  const controller = await startController();
  const { endpoint } = controller;
  const engines = await Promise.all(["a", "b"].map((name) => startEngine(name, { endpoint })));
  await Promise.all(engines.map(({ ready }) => ready));
  const [a, b] = engines.map((engine) => engine.url);
  const { url } = await startGateway({ a: a ?? "", b: b ?? "" }, { controller });
  return { url, engines };
}

async function passes(name: string, url: string): Promise<void> {
  const { stdout } = await promisify(execFile)(file, [SCRIPT, name, url]);
  expect(JSON.parse(stdout)).toMatchObject({ ok: name });
}

describe.skipIf("missing" in python)(`OpenAI's client for Python${reason}`, () => {
  test.for(["whole and streamed", "an engine's error", "200 at once"])(
    "%s",
    {
      timeout: CASE_MS_MAX,
    },
    async (name) => {
      const { url, engines } = await simulated();
      await passes(name, url);
      const running = () => engines.reduce((sum, { engine }) => sum + engine.model.running, 0);
      await expect.poll(running).toBe(0);
    },
  );

  test("tools", { timeout: CASE_MS_MAX }, async () => {
    const stub = await startToolEngine();
    const { url } = await startGateway({ stub: stub.url });
    await passes("tools", url);
    const parameters = { type: "object", properties: { city: { type: "string" } } };
    const tool = { type: "function", function: { name: "weather", parameters } };
    expect(stub.seen).toMatchObject([[tool], [tool]]);
  });

  test("a stream that breaks off", { timeout: CASE_MS_MAX }, async () => {
    const stub = await startStub((_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write('data: {"id":"1","choices":[]}\n\ndata: {"id', () => response.destroy());
    });
    const { url } = await startGateway({ stub: stub.url });
    await passes("a stream that breaks off", url);
  });

  test.for(["a cancelled stream", "a cancelled whole answer"])(
    "%s ends its engine's work",
    {
      timeout: CASE_MS_MAX,
    },
    async (name) => {
      const { url, engines } = await simulated();
      const running = () => engines.reduce((sum, { engine }) => sum + engine.model.running, 0);
      const child = spawn(file, [SCRIPT, name, url], { stdio: ["pipe", "pipe", "inherit"] });
      onTestFinished(() => void child.kill("SIGKILL"));
      const closed = once(child, "close");
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      await expect.poll(running).toBe(1);
      child.stdin.write("cancel\n");
      expect((await lines.next()).value).toBe("cancelled");
      // The client's process is still there: it left this request, and nothing else.
      await expect.poll(running).toBe(0);
      expect(child.exitCode).toBeNull();
      child.stdin.end();
      expect(JSON.parse((await lines.next()).value ?? "")).toMatchObject({ ok: name });
      expect(await closed).toEqual([0, null]);
    },
  );
});

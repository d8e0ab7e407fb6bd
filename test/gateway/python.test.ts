/**
 * OpenAI's client for Python, through the gateway. It is not among the tests' own requirements (a
 * dozen packages, 60 MB): LAZYGRAPH_OPENAI_PYTHON names a Python that has it, or it is installed
 * into worker/.venv.
 */

import { execFile, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { startController, startEngine, startGateway, startStub } from "./helpers.ts";

const SCRIPT = fileURLToPath(new URL("python_client.py", import.meta.url));
const VENV = fileURLToPath(new URL("../../worker/.venv/bin/python", import.meta.url));

/** A Python that has the client, or why there is none. */
function pythonWithClient(): { file: string } | { missing: string } {
  const named = process.env["LAZYGRAPH_OPENAI_PYTHON"];
  const file = named ?? VENV;
  const { status } = spawnSync(file, ["-c", "import openai"], { timeout: 30_000 });
  if (status === 0) return { file };
  if (named !== undefined) throw new Error(`Expected ${named} to have the package openai.`);
  return { missing: "no Python with the package openai: name one in LAZYGRAPH_OPENAI_PYTHON" };
}

test("whole, streamed, with tools, cancelled, 200 at once, and an error", async (context) => {
  const python = pythonWithClient();
  if ("missing" in python) return context.skip(python.missing);
  const controller = await startController();
  const { endpoint } = controller;
  const engines = await Promise.all(["a", "b"].map((name) => startEngine(name, { endpoint })));
  await Promise.all(engines.map(({ ready }) => ready));
  const [a, b] = engines.map(({ url }) => url);
  const { url } = await startGateway({ a: a ?? "", b: b ?? "" }, { controller });
  const stub = await startStub((_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('data: {"id":"1","choices":[]}\n\ndata: {"id', () => response.destroy());
  });
  const broken = await startGateway({ stub: stub.url });
  const { stdout } = await promisify(execFile)(python.file, [SCRIPT, url, broken.url]);
  expect(JSON.parse(stdout)).toMatchObject({ ok: true });
  const running = () => engines.reduce((sum, { engine }) => sum + engine.model.running, 0);
  await expect.poll(running).toBe(0);
}, 120_000);

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { finish } from "../cli/helpers/command.ts";
import { pluginSite } from "../cli/helpers/plugin-site.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { worker, workerPython } from "./python-engine.ts";

const SERVER = ["-m", "vllm.entrypoints.openai.api_server", "--model", "M"];

/** Where the plugin is installed beside a vLLM that only says its version. */
async function site(version: string): Promise<string> {
  const folder = await pluginSite(await temporaryFolder());
  await mkdir(join(folder, "vllm"));
  await writeFile(join(folder, "vllm", "__init__.py"), 'print("vLLM says something")\n');
  await writeFile(join(folder, "vllm", "version.py"), `__version__ = "${version}"\n`);
  return `${worker}/src:${folder}`;
}

/** What `doctor` says of a server in that Python. */
async function doctor(env: NodeJS.ProcessEnv): Promise<Record<string, unknown>> {
  const run = await finish(["doctor", "--json", "--", workerPython(), ...SERVER], env);
  return { code: run.code, stderr: run.stderr, ...(JSON.parse(run.stdout) as object) };
}

test("the plugin's own answer, in the words that the command reads", async () => {
  expect(await doctor({ PYTHONPATH: await site("0.99.0+cu130") })).toEqual({
    code: 0,
    stderr: "",
    command: [workerPython(), ...SERVER],
    python: workerPython(),
    lazily: false,
    reason: expect.stringMatching(/^vLLM 0\.99\.0\+cu130 was not tried \(tried: 0\.26\.0, /),
    vllm: "0.99.0+cu130",
    plugin: "0.1.0",
    traits: [],
    gpus: [],
    untested: [],
    ignored: [],
  });
});

test("a switch in the environment is told before vLLM is asked", async () => {
  const env = { PYTHONPATH: await site("0.26.0"), LAZYGRAPH_DISABLE: "1" };
  const answer = await doctor(env);
  expect(answer).toMatchObject({
    code: 0,
    lazily: false,
    reason: expect.stringContaining("_DISABLE=1"),
  });
  expect(answer).not.toHaveProperty("vllm");
});

test("a vLLM that isn't whole can't be judged", async () => {
  const answer = await doctor({ PYTHONPATH: await site("0.26.0") });
  expect(answer).toMatchObject({ code: 1, lazily: null, vllm: "0.26.0", adapter: "v26" });
  expect(answer["reason"]).toMatch(/^looking at it failed: ModuleNotFoundError: No module named/);
});

/** The gateway as a stranger runs it: a copy of its folder, the package installed from its tarball. */

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readdir, readFile, symlink } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { startSimulatedEngine } from "../../src/testing.ts";
import { readTrace } from "../../src/trace.ts";
import { temporaryFolder } from "../cli/helpers/folder.ts";
import { packInto, ROOT } from "../package/packed.ts";
import { completion, readyz } from "./helpers.ts";

/**
 * A copy of the example with what its package.json names. This package comes out of its tarball;
 * the others are those that are installed here, which have the very versions it asks for.
 */
async function install(): Promise<string> {
  const folder = await temporaryFolder();
  await cp(join(ROOT, "examples", "gateway"), folder, { recursive: true });
  const modules = join(folder, "node_modules");
  await mkdir(join(modules, "lazygraph"), { recursive: true });
  const tarball = await packInto(folder);
  const untar = ["-xzf", join(folder, tarball), "--strip-components=1"];
  await promisify(execFile)("tar", [...untar, "-C", join(modules, "lazygraph")]);
  for (const name of await readdir(join(ROOT, "node_modules"))) {
    if (name !== "lazygraph") await symlink(join(ROOT, "node_modules", name), join(modules, name));
  }
  return folder;
}

interface Manifest {
  readonly version: string;
  readonly dependencies: Record<string, string>;
  readonly devDependencies: Record<string, string>;
}

async function manifest(path: string): Promise<Manifest> {
  return JSON.parse(await readFile(join(ROOT, path), "utf8")) as Manifest;
}

test("its dependencies have the versions that the tests have", async () => {
  const own = await manifest("package.json");
  const { dependencies, devDependencies } = await manifest("examples/gateway/package.json");
  const known = { ...own.dependencies, ...own.devDependencies, lazygraph: own.version };
  expect(known).toMatchObject({ ...dependencies, ...devDependencies });
});

test("its files can be read in one sitting", async () => {
  const folder = join(ROOT, "examples", "gateway", "src");
  for (const name of await readdir(folder)) {
    const lines = (await readFile(join(folder, name), "utf8")).split("\n").length;
    expect(lines, name).toBeLessThanOrEqual(200);
  }
});

test("starts, serves, records, drains on SIGTERM and ends", async () => {
  const folder = await install();
  const endpoint = `ipc://${join(folder, "lazygraph.sock")}`;
  const engine = await startSimulatedEngine({
    endpoint,
    engine: "a",
    http: "127.0.0.1:0",
    speed: 20,
  });
  onTestFinished(() => void engine.kill("SIGKILL"));
  const { url: upstream, model } = await engine.waitFor("listening");
  const gateway = spawn(process.execPath, ["--import", "tsx", "src/main.ts"], {
    cwd: folder,
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      PATH: process.env["PATH"],
      LISTEN: "127.0.0.1:0",
      ENGINES: `a=${upstream}`,
      LAZYGRAPH_ENDPOINT: endpoint,
      LAZYGRAPH_MODE: "lazy",
      TRACE_FOLDER: folder,
      XDG_STATE_HOME: folder,
    },
  });
  onTestFinished(() => void gateway.kill("SIGKILL"));
  const closed = once(gateway, "close");
  const lines = createInterface({ input: gateway.stdout })[Symbol.asyncIterator]();
  const url = /^gateway at (http:\S+); engines/.exec((await lines.next()).value ?? "")?.[1] ?? "";
  // Held until the engine is ready.
  const first = await completion(url, { model, max_tokens: 3 });
  expect(await first.json()).toMatchObject({ choices: [{ text: " 1 2 3" }] });
  await expect
    .poll(async () => (await readyz(url)).engines["a"])
    .toMatchObject({ ready: true, phase: "serving", mode: "lazy" });
  const metrics = await (await fetch(`${url}/metrics`)).text();
  expect(metrics).toContain('lazygraph_engine_mode{engine="a",mode="lazy"} 1');
  expect(metrics).toContain('gateway_requests_total{engine="a",outcome="done"} 1');

  const options = {
    model,
    max_tokens: 4000,
    stream: true,
    stream_options: { include_usage: true },
  };
  const stream = await completion(url, options);
  gateway.kill("SIGTERM");
  expect((await lines.next()).value).toBe("stopping");
  // The stream that was under way ends whole.
  const text = await stream.text();
  expect(text).toMatch(/"completion_tokens":4000.*\n\ndata: \[DONE\]\n\n$/);
  expect(await closed).toEqual([0, null]);
  const [trace] = (await readdir(folder)).filter((name) => /^trace-.*\.csv\.gz$/.test(name));
  const rows: object[] = [];
  for await (const { promptTokens, outputTokens } of readTrace(join(folder, trace ?? ""))) {
    rows.push({ promptTokens, outputTokens });
  }
  expect(rows).toEqual([
    { promptTokens: 2, outputTokens: 3 },
    { promptTokens: 2, outputTokens: 4000 },
  ]);
}, 120_000);

/** The gateway as strangers run it: its folder copied, the package packed. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { startSimulatedEngine } from "../../src/testing.ts";
import { readTrace } from "../../src/trace/trace.ts";
import { listening } from "../helpers/listening.ts";
import { failedStart, ROOT } from "../package/packed.ts";
import { completion, readyz } from "./helpers.ts";
import { installExample } from "./installed.ts";

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

test("starts, serves, records, drains and ends", async () => {
  const folder = await installExample();
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
  // The stream under way ends whole.
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

test("an unusable setting is one sentence and exit code 2", async () => {
  const folder = await installExample();
  const { host: busy } = new URL(await listening(createServer()));
  const base = {
    PATH: process.env["PATH"],
    ENGINES: "a=http://127.0.0.1:1",
    LISTEN: "127.0.0.1:0",
    LAZYGRAPH_ENDPOINT: `ipc://${join(folder, "lazygraph.sock")}`,
    XDG_STATE_HOME: folder,
  };
  const cases: readonly [NodeJS.ProcessEnv, RegExp][] = [
    [{ ENGINES: "foo" }, /^Expected ENGINES to be NAME=URL,.*, got "foo"\.\n$/],
    [{ LISTEN: "zz" }, /^Expected LISTEN to be HOST:PORT, got "zz"\.\n$/],
    [{ HOLD_MAX: "-4" }, /^Expected HOLD_MAX to be from 0 to 100000, got "-4"\.\n$/],
    [{ LAZYGRAPH_MODE: "fast" }, /^Expected LAZYGRAPH_MODE to be .*, got "fast"\.\n$/],
    [{ LAZYGRAPH_ENDPOINT: "zz" }, /^Expected endpoint to be .*"zz"\. \[ERR_\w+_OPTION\]\n$/],
    [
      { TRACE_FOLDER: join(folder, "none") },
      /^Expected .* a new file .* ENOENT: .* \[ERR_\w+\]\n$/,
    ],
    [{ LAZYGRAPH_ENDPOINT: `tcp://${busy}` }, /^Expected tcp:.* free, .* \[ERR_\w+_IN_USE\]\n$/],
    [{ LISTEN: busy }, /^listen EADDRINUSE: address already in use [\d.:]+ \[EADDRINUSE\]\n$/],
  ];
  for (const [more, sentence] of cases) {
    const env = { ...base, ...more };
    const { code, stderr } = await failedStart(["--import", "tsx", "src/main.ts"], folder, env);
    expect(stderr).toMatch(sentence);
    expect(code, stderr).toBe(2);
  }
}, 240_000);

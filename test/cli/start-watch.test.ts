/** `GET /startupz` of `run --http`, over the start of a stand-in that goes on when it is told to. */

import { once } from "node:events";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { EngineCommand, freePort } from "../../src/bench/engine-command.ts";
import { watchStart } from "../../src/cli/start-watch.ts";
import { SIMULATED_ENGINE } from "../helpers/built.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { listening } from "../helpers/listening.ts";
import { finish, lazygraph } from "./helpers/command.ts";

/** Writes its phases as the plugin does; each lasts until a file of its name is there. */
const ENGINE = `
const { appendFileSync, existsSync } = require("node:fs");
const { join } = require("node:path");
const [, , port] = process.argv;
const folder = process.env.STAND_IN_FOLDER;
const own = process.env.LAZYGRAPH_STARTUP_DIR;
const now = () => Number(process.hrtime.bigint()) / 1e9;
const line = (kind, body) =>
  appendFileSync(join(own, kind + "-" + process.pid + ".jsonl"), JSON.stringify(body) + "\\n");
(async () => {
  for (const name of ["weights", "captures"]) {
    const begin = now();
    line("begun", { name, begin });
    while (!existsSync(join(folder, name))) await new Promise((go) => setTimeout(go, 20));
    line("spans", { name, begin, end: now() });
  }
  require("node:http").createServer((_, answer) => answer.end()).listen(Number(port), "127.0.0.1");
})();
`;

interface Told {
  readonly ready: boolean;
  readonly passed: boolean;
  readonly phase: string;
  readonly phaseSeconds: number;
  readonly elapsedSeconds: number;
}

interface Answer {
  readonly status: number;
  readonly retryAfter: number;
  readonly body: Readonly<Record<string, unknown>>;
}

async function started(plans: string, ...before: string[]) {
  const folder = await temporaryFolder();
  const port = String(await freePort());
  const run = lazygraph(
    [
      ...["run", "--http", "127.0.0.1:0", "--plan-dir", plans, "--"],
      ...[...before, process.execPath, "-e", ENGINE, "--", "--port", port],
    ],
    { STAND_IN_FOLDER: folder },
  );
  const line = await run.line("stderr", /HTTP at/);
  const url = /http:\S+?(?=\.?$)/.exec(line)?.[0] ?? "";
  const ask = async (query = ""): Promise<Answer> => {
    const response = await fetch(`${url.replace(/\/$/, "")}/startupz${query}`);
    const body = (await response.json()) as Answer["body"];
    return {
      status: response.status,
      retryAfter: Number(response.headers.get("retry-after")),
      body,
    };
  };
  const until = async (wanted: (answer: Answer) => boolean, query = ""): Promise<Answer> => {
    for (;;) {
      const answer = await ask(query);
      if (wanted(answer)) return answer;
      await new Promise((go) => setTimeout(go, 20));
    }
  };
  return { run, until, end: (phase: string) => writeFile(join(folder, phase), "") };
}

test("the phase while it starts, seconds left from past starts, and 200 at the end", async () => {
  const plans = join(await temporaryFolder(), "plans");
  await mkdir(plans);
  const first = await started(plans);
  const loading = await first.until(({ body }) => body["phase"] === "weights");
  expect(loading).toMatchObject({
    status: 503,
    body: { ready: false, passed: false, pastStarts: 0 },
  });
  expect(loading.body).not.toHaveProperty("leftSeconds");
  expect(loading.retryAfter).toBe(1);
  const other = await first.until(() => true, "?until=foo");
  expect(other).toMatchObject({ status: 400, body: { error: { code: "ERR_HTTP_QUERY" } } });
  expect(JSON.stringify(other.body)).toMatch(/got .{1,3}foo.*imports.*weights.*captures/);
  const unknown = await first.until(() => true, "?unti=weights");
  expect(unknown).toMatchObject({ status: 400, body: { error: { code: "ERR_HTTP_QUERY" } } });
  await first.end("weights");
  const passed = await first.until(({ status }) => status === 200, "?until=weights");
  expect(passed.body).toMatchObject({ ready: false, passed: true });
  expect((await first.until(({ body }) => body["phase"] === "captures")).status).toBe(503);
  await first.end("captures");
  const ready = await first.until(({ status }) => status === 200);
  expect(ready.body).toMatchObject({ ready: true, passed: true });
  expect(ready.body["readySeconds"]).toBeGreaterThan(0);
  await expect.poll(() => readdir(join(plans, "starts")).catch(() => [])).toHaveLength(1);
  first.run.process.kill("SIGTERM");
  await first.run.finished;

  // Another port: the same command all the same.
  const second = await started(plans);
  const again = await second.until(({ body }) => body["phase"] === "weights");
  expect(again.body).toMatchObject({ pastStarts: 1, leftSeconds: expect.any(Number) });
  expect(again.retryAfter).toBeGreaterThanOrEqual(1);
  second.run.process.kill("SIGTERM");
  await second.run.finished;
});

test("the folder may be the command's own choice", async () => {
  const folder = await temporaryFolder();
  const env = ["env", `LAZYGRAPH_STARTUP_DIR=${folder}`];
  const { run, until } = await started(join(folder, "plans"), ...env);
  await until(({ body }) => body["phase"] === "weights");
  run.process.kill("SIGTERM");
  await run.finished;
  expect(await readdir(folder)).toContainEqual(expect.stringMatching(/^begun-/));
});

test("the simulated engine's phases: never one that has ended, never longer than the start", async () => {
  const port = String(await freePort());
  const run = lazygraph([
    ...["run", "--http", "127.0.0.1:0", "--no-plan", "--mode", "eager", "--"],
    // The watch reads `--port`, as vLLM has it.
    ...["sh", "-c", 'exec "$0" "$1" --http "127.0.0.1:$3" --speed 4'],
    ...[process.execPath, SIMULATED_ENGINE, "--port", port],
  ]);
  const line = await run.line("stderr", /HTTP at/);
  const url = /http:\S+?(?=\.?$)/.exec(line)?.[0]?.replace(/\/$/, "") ?? "";
  const named = new Set<string>();
  for (;;) {
    const { ready, phase, ...told } = (await (await fetch(`${url}/startupz`)).json()) as Told;
    if (ready) break;
    named.add(phase);
    expect(told.phaseSeconds).toBeLessThanOrEqual(told.elapsedSeconds);
    const query = `?until=${encodeURIComponent(phase)}`;
    if (!["spawn", "unattributed"].includes(phase)) {
      const after = (await (await fetch(`${url}/startupz${query}`)).json()) as Told;
      expect(after.ready || !after.passed || after.phase !== phase, phase).toBe(true);
    }
    await new Promise((go) => setTimeout(go, 50));
  }
  expect([...named]).toContain("weights");
  expect([...named]).toContain("captures");
  expect([...named]).not.toContain("imports");
  run.process.kill("SIGTERM");
  await run.finished;
});

test("another server that answers at the command's port is not its being ready", async () => {
  const other = createServer((_, answer) => answer.end());
  const { port } = new URL(await listening(other));
  const asked = once(other, "request").then(() => once(other, "request"));
  const run = lazygraph([
    ...["run", "--http", "127.0.0.1:0", "--no-plan", "--"],
    ...["sh", "-c", "exec sleep 60", "sh", "--port", port],
  ]);
  const url = /http:\S+?(?=\.?$)/.exec(await run.line("stderr", /HTTP at/))?.[0] ?? "";
  // Once before the command is there, and again since.
  await asked;
  await once(other, "request");
  const response = await fetch(`${url.replace(/\/$/, "")}/startupz`);
  expect(response.status).toBe(503);
  expect(await response.json()).toMatchObject({ ready: false });
  run.process.kill("SIGTERM");
  await run.finished;
});

test("where no folder can be made the command is started, and not timed", async () => {
  const words = ["run", "--http", "127.0.0.1:0", "--quiet", "--", process.execPath, "-e"];
  const env = { TMPDIR: "/proc/nowhere" };
  expect((await finish([...words, "process.exit(5)"], env)).code).toBe(5);
});

const HERE = { how: [], environment: {}, planFolder: undefined };

test("a server that hangs up within an answer is asked again", async () => {
  let asked = 0;
  const server = createServer((_, answer) => {
    if (asked++ % 3 === 2) answer.end();
    else answer.writeHead(200, { "content-length": 9 }).write("a", () => answer.destroy());
  });
  const url = new URL(await listening(server));
  const { port } = url;
  await using watch = await watchStart({ ...HERE, command: ["vllm", "--port", port] });
  watch.begin();
  await expect.poll(async () => (await watch.report(undefined)).ready).toBe(true);
  const logFile = join(await temporaryFolder(), "log");
  const command = EngineCommand.start({ command: ["sleep", "60"], environment: {}, logFile });
  onTestFinished(() => command.stop());
  await command.untilReady(url, 100, new AbortController().signal);
});

test("another server that is too busy to answer is there all the same", async () => {
  const asked: ServerResponse[] = [];
  // Of its third answer it has nothing to say in time.
  const server = createServer((_, answer) => asked.push(answer) === 3 || answer.end());
  const { port } = new URL(await listening(server));
  await using watch = await watchStart({ ...HERE, command: ["vllm", "--port", port] });
  watch.begin();
  const isReady = async () => (await watch.report(undefined)).ready;
  await expect.poll(async () => asked.length > 4 || (await isReady())).toBe(true);
  expect(await isReady()).toBe(false);
});

test("what an earlier start has left in a folder that was given is none of this one's", async () => {
  const folder = await temporaryFolder();
  const weights = '{"name": "weights", "begin": 1, "end": 2}';
  await writeFile(join(folder, "spans-7.jsonl"), weights);
  await writeFile(join(folder, "begun-7.jsonl"), `${weights}\n{"name": "killed", "begin": 2}`);
  const environment = { LAZYGRAPH_STARTUP_DIR: folder };
  await using watch = await watchStart({ ...HERE, command: ["vllm", "--port", "1"], environment });
  watch.begin();
  expect(await watch.report("weights")).toMatchObject({ passed: false, phase: "spawn" });
});

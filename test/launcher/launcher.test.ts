/** The launcher from Node, with a stand-in for vLLM in the plugin's Python. */

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmod, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import {
  createLauncher,
  type Launcher,
  type LauncherOptions,
} from "../../src/launcher/launcher.ts";
import { askLauncher, launcherStatus } from "../../src/launcher/status.ts";
import { finish, lazygraph } from "../cli/helpers/command.ts";
import { pluginSite } from "../cli/helpers/plugin-site.ts";
import { worker, workerPython } from "../e2e/python-engine.ts";
import { temporaryFolder } from "../helpers/folder.ts";

interface Facts {
  readonly argv: string[];
  readonly cwd: string;
  readonly word: string | null;
  readonly forked: boolean;
}

let python: string;
beforeAll(() => {
  python = workerPython();
});

/** A folder with a `vllm` and variables that lead to the plugin. */
async function place(): Promise<{ folder: string; vllm: string; env: NodeJS.ProcessEnv }> {
  const folder = await temporaryFolder();
  const vllm = join(folder, "vllm");
  await writeFile(vllm, `#!${python}\nimport sys\nprint("spawned", *sys.argv[1:])\n`);
  await chmod(vllm, 0o755);
  const path = [join(worker, "src"), join(worker, "tests"), folder, await pluginSite(folder)];
  return { folder, vllm, env: { ...process.env, PYTHONPATH: path.join(delimiter) } };
}

const STAND_IN = { preload: ["launcher_stand_in"], main: "launcher_stand_in:main" };

function launcherIn(folder: string, options: LauncherOptions): Launcher {
  const launcher = createLauncher({ python, socket: join(folder, "s"), ...STAND_IN, ...options });
  onTestFinished(() => launcher.close());
  return launcher;
}

function outputOf({ stdout }: ChildProcess): Readable {
  if (stdout === null) throw new Error("Expected a pipe, got none.");
  return stdout;
}

test("a command is spawned as ever, and was forked", async () => {
  const { folder, vllm, env } = await place();
  const launcher = launcherIn(folder, { environment: env });
  const status = await launcher.start();
  expect(status).toMatchObject({ socket: join(folder, "s"), python, children: 0, models: [] });
  expect(status.residentBytes).toBeGreaterThan(1 << 20);

  const child = await launcher.spawn([vllm, "serve", "MODEL", "7"], {
    cwd: folder,
    env: { ...env, WORD: "the caller's" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [out, [code]] = await Promise.all([text(outputOf(child)), once(child, "exit")]);
  expect(JSON.parse(out)).toMatchObject({ forked: true, word: "the caller's" });
  expect(code).toBe(7);
  const mute = Array.from({ length: 32 }, () => connect(status.socket));
  await Promise.all(mute.map((one) => once(one, "connect")));
  await expect(launcher.status()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_LAUNCHER_BUSY" });
});

test("its output, folder, variables and death by a signal are its own", async () => {
  const { folder, env } = await place();
  const launcher = launcherIn(folder, { environment: env });
  await launcher.start();
  const child = await launcher.spawn(["./vllm", "serve", "kill"], {
    cwd: folder,
    env: { ...env, WORD: "the caller's" },
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [out, [code, signal]] = await Promise.all([text(outputOf(child)), once(child, "exit")]);
  const facts = JSON.parse(out) as Facts;
  expect(facts).toMatchObject({ cwd: folder, word: "the caller's", forked: true });
  expect(facts.argv).toEqual(["./vllm", "serve", "kill"]);
  expect([code, signal]).toEqual([null, "SIGKILL"]);
});

test("servers go on when it is closed", async () => {
  const { folder, vllm, env } = await place();
  const launcher = launcherIn(folder, { environment: env });
  await launcher.start();
  const child = await launcher.spawn([vllm, "serve", "quiet", "wait"], {
    env,
    stdio: ["ignore", "pipe", "ignore"],
  });
  onTestFinished(() => void child.kill("SIGTERM"));
  const lines = createInterface({ input: outputOf(child) });
  expect(await once(lines, "line")).toEqual(["waits"]);
  expect((await launcher.status()).children).toBe(1);
  await launcher.close();
  expect(await launcher.ended).toBe(0);
  child.kill("SIGUSR1");
  expect(await once(lines, "line")).toEqual(["got 10"]);
  child.kill("SIGTERM");
  expect(await once(child, "exit")).toEqual([null, "SIGTERM"]);
});

test("closed before it was started, it has ended and stays so", async () => {
  const launcher = createLauncher();
  await launcher.close();
  expect(await launcher.ended).toBe(0);
  await expect(launcher.start()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
});

test("why it can't be one is told by its own sentence and code", async () => {
  const { folder, env } = await place();
  await writeFile(
    join(folder, "busy.py"),
    "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n",
  );
  const busy = launcherIn(folder, { environment: env, preload: ["busy"] });
  await expect(busy.start()).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_LAUNCHER_FAILED",
    message: expect.stringContaining("Expected imports that start no thread"),
  });
  await writeFile(join(folder, "slow.py"), "import time\ntime.sleep(30)\n");
  const slow = { environment: env, preload: ["slow"], startTimeoutMs: 1500 };
  await expect(launcherIn(folder, slow).start()).rejects.toThrow("got none within 1.5 s");
  const without = launcherIn(folder, { environment: { PATH: process.env["PATH"] } });
  await expect(without.start()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_PLUGIN_MISSING" });
  const none = launcherIn(folder, { python: join(folder, "no-python") });
  await expect(none.start()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_LAUNCHER_FAILED" });
  await expect(none.status()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE" });
  expect(() => createLauncher({ childrenMax: 0 })).toThrow(/childrenMax/);
});

test("what is no launcher's answer is no status", async () => {
  expect(launcherStatus("no JSON")).toBeUndefined();
  expect(launcherStatus("null")).toBeUndefined();
  expect(launcherStatus('{"listening": "a", "python": "b", "client": "c"}')).toBeUndefined();
  await expect(askLauncher("/nowhere/socket")).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE",
  });
});

test("lazygraph launcher and run --launcher, with the command's exit code", async () => {
  const { folder, vllm, env } = await place();
  const socket = join(folder, "socket");
  const words = ["--python", python, "--socket", socket, "--preload", "launcher_stand_in"];
  const launcher = lazygraph(["launcher", ...words, "--main", "launcher_stand_in:main"], env);
  const line = await launcher.line("stderr", /^lazygraph: launcher at /);
  expect(line).toMatch(/imported in [\d.]+ s, \d+ MiB; 0 of at most 16 servers\.$/);

  const status = await finish(["launcher", "--status", "--json", "--socket", socket], env);
  expect(JSON.parse(status.stdout)).toMatchObject({ socket, children: 0 });

  const run = ["run", "--quiet", "--launcher", socket, "--", vllm, "serve", "5"];
  const forked = await finish(run, { ...env, WORD: "run's" });
  expect(forked.code).toBe(5);
  expect(JSON.parse(forked.stdout)).toMatchObject({ forked: true, word: "run's" });

  expect(forked.stderr).toMatch(/\nlazygraph: The command .* ended with exit code 5 .*DIED\]\n$/);
  const set = [...run.slice(0, -3), "env", "WORD=env's", `PATH=${folder}`, "vllm", "serve", "6"];
  const withEnv = await finish(set, env);
  expect(withEnv.code).toBe(6);
  expect(JSON.parse(withEnv.stdout)).toMatchObject({ forked: true, word: "env's" });
  const refused = await finish([...run.slice(0, -2), "bench"], env);
  expect(refused.code).toBe(126);
  expect(refused.stderr).toMatch(
    /NOT_ALLOWED\]\nlazygraph: The command .* was not started; .*_COMMAND_NOT_EXECUTABLE\]\n$/,
  );

  launcher.process.kill("SIGTERM");
  expect((await launcher.finished).code).toBe(0);
  const spawned = await finish(run, env);
  expect(spawned).toMatchObject({ code: 0, stdout: "spawned serve 5\n" });
  expect(spawned.stderr).toMatch(
    /^lazygraph: Not forked but spawned: Expected a launcher at .* \[ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE\]\n$/,
  );
});

test("lazygraph launcher --status asks the one at the default path", async () => {
  const { folder, env } = await place();
  const own = { ...env, XDG_RUNTIME_DIR: folder };
  const words = ["launcher", "--python", python];
  const launcher = lazygraph([...words, "--preload", "launcher_stand_in"], own);
  await launcher.line("stderr", /^lazygraph: launcher at /);
  const status = await finish([...words, "--status", "--json"], own);
  expect(status.stderr).toBe("");
  expect(JSON.parse(status.stdout).socket).toMatch(`${folder}/lazygraph-`);
  launcher.process.kill("SIGTERM");
  await launcher.finished;
  const gone = await finish([...words, "--status"], own);
  expect(gone.code).toBe(1);
  expect(gone.stderr).toMatch(
    /^lazygraph: Expected a launcher at .*\.sock, got .*_UNREACHABLE\]\n$/,
  );
  const none = await finish([...words, "--status"], { ...own, PYTHONPATH: "" });
  expect(none.stderr).toMatch(/ -m pip install .+ERR_LAZYGRAPH_PLUGIN_MISSING/);
});

test("lazygraph launcher says why it has ended", async () => {
  const { folder, env } = await place();
  const words = ["--python", python, "--socket", join(folder, "s"), "--preload", "json", "--json"];
  const launcher = lazygraph(["launcher", ...words], env);
  const { pid } = JSON.parse(await launcher.line("stdout", /^\{/));
  process.kill(pid, "SIGKILL");
  const { code, stderr } = await launcher.finished;
  expect({ code, stderr }).toEqual({
    ...{ code: 1, stderr: expect.stringMatching(/its end by SIGKILL.*_LAUNCHER_FAILED\]\n$/) },
  });
  const large = launcherIn(folder, { environment: { LARGE: "x".repeat(1 << 18) } });
  await expect(large.start()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_LAUNCHER_FAILED" });
  expect(await large.ended).toBe(1);
  const none = launcherIn(folder, { python: "/no/such/python" }).start();
  await expect(none).rejects.toThrow("launcher, got no such program: install it or give");
});

test.for([
  ["no-such-python", "which is not on PATH"],
  ["/no/such/python", "and there is no such file"],
  [new URL(import.meta.url).pathname, "which is not executable"],
] as const)("lazygraph launcher --python %s is a usage error", async ([given, why]) => {
  const { code, stderr } = await finish(["launcher", "--python", given]);
  expect(code).toBe(2);
  expect(stderr).toContain("Expected --python to be a program that can be started, got ");
  expect(stderr).toContain(why);
});

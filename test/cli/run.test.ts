import { ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect, test, vi } from "vitest";
import { startChild } from "../../src/cli/child.ts";
import { noteMissingController } from "../../src/cli/controller-there.ts";
import { noEngineSentence } from "../../src/cli/no-engine.ts";
import { openReport } from "../../src/cli/report.ts";
import { MAIN, SIMULATED_ENGINE } from "../helpers/built.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { startController } from "../helpers/joined.ts";
import { listening } from "../helpers/listening.ts";
import { finish, lazygraph } from "./helpers/command.ts";

const NODE = process.execPath;

/** `run` with a program for Node as its command. */
function withProgram(program: string, ...options: string[]): string[] {
  return ["run", ...options, "--", NODE, "-e", program];
}

describe("the command's own", () => {
  test("environment names the resolved endpoint, the mode and the engine", async () => {
    const names = ["LAZYGRAPH_ENDPOINT", "LAZYGRAPH_MODE", "LAZYGRAPH_ENGINE"];
    const program = `console.log(JSON.stringify(${JSON.stringify(names)}.map((n) => process.env[n])))`;
    const { code, stdout, stderr } = await finish(
      withProgram(program, "--mode", "lazy", "--engine", "replica/0"),
    );
    expect(JSON.parse(stdout)).toEqual([
      expect.stringMatching(/^ipc:\/\/\/\S+\/lazygraph-run-\w{6}\/engine\.sock$/),
      "lazy",
      "replica/0",
    ]);
    const told = "lazygraph: The command has ended, and no engine had joined.\n";
    expect({ code, stderr }).toEqual({ code: 0, stderr: told });
    expect((await finish(withProgram("", "--quiet"))).stderr).toBe("");
    const filling = await finish(withProgram("", "--mode=lazy", "--fill-share=0.1"));
    expect(filling.stderr).toContain("lazygraph: --fill-share has no effect in mode lazy: only");
  });

  test("controller may be another one: then there is none of run's own", async () => {
    const names = ["LAZYGRAPH_ENDPOINT", "LAZYGRAPH_MODE", "LAZYGRAPH_ENGINE"];
    const program = `
      console.log(JSON.stringify(${JSON.stringify(names)}.map((name) => process.env[name])));
      process.exit(3);
    `;
    // Nothing of a controller is looked at: neither its keys nor the folder for its socket.
    const env = { LAZYGRAPH_ENDPOINT: "tcp://other:1", LAZYGRAPH_CONTROLLER_KEYS: "/nowhere" };
    const options = ["--controller", "tcp://a:5757, tcp://b:5757", "--engine=e", "--mode=lazy"];
    const { code, stdout, stderr } = await finish(withProgram(program, ...options), env);
    expect(code).toBe(3);
    expect(stderr).toBe(
      "lazygraph: Mode lazy holds until the engine joins the controller at " +
        "tcp://a:5757,tcp://b:5757, whose mode holds from then on: set it there.\n",
    );
    expect(JSON.parse(stdout)).toEqual(["tcp://a:5757,tcp://b:5757", "lazy", "e"]);
  });

  test("controller that doesn't answer is told, and so is a signal that ends it", async () => {
    const its = ["--controller", await occupiedPort(), "--quiet"];
    const running = lazygraph(
      withProgram("console.log(process.pid); setInterval(() => {}, 1e6)", ...its),
    );
    const pid = Number(await running.line("stdout", /^\d+$/));
    await running.line("stderr", /^lazygraph: No controller answers at tcp:.*_UNREACHABLE\]$/);
    process.kill(pid, "SIGKILL");
    const { code, stderr } = await running.finished;
    expect(code).toBe(137);
    expect(stderr).toMatch(/was ended by SIGKILL, which .* \[ERR_LAZYGRAPH_COMMAND_KILLED\]\n$/);
  });

  test("engine joins the controller that --controller names, under its name", async () => {
    await using controller = await startController({ mode: "eager", plan: false });
    const its = ["--controller", controller.endpoint, "--engine", "e"];
    const running = lazygraph(["run", ...its, "--", NODE, SIMULATED_ENGINE, "--speed=50"]);
    const engine = await controller.waitForEngine({ engine: "e", phase: "serving" });
    expect(engine.mode).toBe("eager");
    const told: string[] = [];
    const never = new Promise(() => undefined);
    await noteMissingController(its[1] ?? "", {}, never, (sentence) => void told.push(sentence));
    expect(told).toEqual([]);
    running.process.kill("SIGTERM");
    expect((await running.finished).stderr).toBe("");
  });

  test("environment may name another controller, which is told not to be used", async () => {
    const env = { LAZYGRAPH_ENDPOINT: "tcp://gateway:5757" };
    const { stderr } = await finish(withProgram(""), env);
    expect(stderr).toContain("LAZYGRAPH_ENDPOINT=tcp://gateway:5757 is not used: `run` has a");
    expect((await finish(withProgram("", "--quiet"), env)).stderr).toBe("");
  });

  test("socket is in a folder that is this user's alone, and gone with the command", async () => {
    const program = `
      const path = process.env.LAZYGRAPH_ENDPOINT.slice("ipc://".length);
      const { statSync } = require("fs");
      const folder = require("path").dirname(path);
      console.log(JSON.stringify([folder, statSync(folder).mode & 0o777, statSync(path).isSocket()]));
    `;
    const { stdout } = await finish(withProgram(program));
    const [folder, mode, isSocket] = JSON.parse(stdout) as [string, number, boolean];
    expect([mode, isSocket]).toEqual([0o700, true]);
    await expect(stat(folder)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test.for(["with blanks", "with,commas", "long".repeat(30)])(
    "in a folder %s it is a port of loopback",
    async (name) => {
      const parent = join(await temporaryFolder(), name);
      await mkdir(parent);
      const program = "console.log(process.env.LAZYGRAPH_ENDPOINT)";
      const { stdout } = await finish(withProgram(program), { TMPDIR: parent });
      expect(stdout).toMatch(/^tcp:\/\/127\.0\.0\.1:[1-9]\d*\n$/);
      expect((await readdir(parent)).filter((file) => file.startsWith("lazygraph"))).toEqual([]);
    },
  );

  test("port is what --endpoint says, resolved", async () => {
    const program = "console.log(process.env.LAZYGRAPH_ENDPOINT)";
    const { stdout } = await finish(withProgram(program, "--endpoint", "tcp://127.0.0.1:0"));
    expect(stdout).toMatch(/^tcp:\/\/127\.0\.0\.1:[1-9]\d*\n$/);
  });

  test("mode comes from the environment when no option says otherwise", async () => {
    const program = "console.log(process.env.LAZYGRAPH_MODE, 'LAZYGRAPH_ENGINE' in process.env)";
    const given = await finish(withProgram(program), { LAZYGRAPH_MODE: "eager" });
    expect(given.stdout).toBe("eager false\n");
    expect((await finish(withProgram(program))).stdout).toBe("idle false\n");
    const wrong = await finish(["run", "--", "env", "LAZYGRAPH_MODE=fast", NODE, "-e", ""]);
    expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('got "fast"') });
  });

  test("arguments arrive untouched, those that look like ours included", async () => {
    const program = "console.log(JSON.stringify(process.argv.slice(1)))";
    const args = ["--mode", "fast", "--", "a b", "--help"];
    const { stdout } = await finish([...withProgram(program), "--", ...args]);
    expect(JSON.parse(stdout)).toEqual(args);
  });

  test("exit code is kept, with a sentence when no engine had joined", async () => {
    const { code, stdout, stderr } = await finish(withProgram("console.log('x'); process.exit(7)"));
    expect({ code, stdout }).toEqual({ code: 7, stdout: "x\n" });
    expect(stderr).toMatch(
      /^lazygraph: The command .* exit code 7 before any engine joined.*\[ERR_LAZYGRAPH_COMMAND_DIED\]\n$/,
    );
  });

  test("keys are neither in what is said of it nor in its figures", async () => {
    const file = join(await temporaryFolder(), "figures.json");
    const command = ["sh", "-c", "exit 7", "--api-key", "very-secret"];
    const { code, stderr } = await finish(["run", "--json", file, "--", ...command]);
    expect(code).toBe(7);
    expect(stderr).toContain('The command "sh -c exit 7 --api-key …" ended');
    expect(JSON.parse(await readFile(file, "utf8"))).toMatchObject({
      command: [...command.slice(0, -1), "…"],
    });
  });

  test("death by a signal is 128 + its number", async () => {
    const { code, stderr } = await finish(withProgram("process.kill(process.pid, 'SIGKILL')"));
    expect(code).toBe(137);
    expect(stderr).toContain("by SIGKILL before any engine joined");
  });

  test.for(["SIGINT", "SIGTERM", "SIGHUP"] as const)("%s is forwarded", async (signal) => {
    const program =
      `process.once("${signal}", () => { console.log("got it"); process.exitCode = 5; ` +
      "clearInterval(t); }); const t = setInterval(() => {}, 1e6); console.log('up');";
    const running = lazygraph(withProgram(program));
    await running.line("stdout", /^up$/);
    running.process.kill(signal);
    expect(await running.finished).toMatchObject({ code: 5, stdout: "up\ngot it\n", stderr: "" });
  });

  test.for(["SIGQUIT", "SIGUSR1", "SIGUSR2"] as const)("%s is forwarded", async (signal) => {
    // Short sleeps and no `wait`: a signal just before that one would not be seen before it ends.
    const trap = `trap 'echo "got it"; exit 5' ${signal.slice(3)}`;
    const program = `${trap}; echo up; while :; do sleep 0.05; done`;
    const running = lazygraph(["run", "--", "/bin/sh", "-c", program]);
    await running.line("stdout", /^up$/);
    running.process.kill(signal);
    const { code, stdout, stderr } = await running.finished;
    expect({ code, stdout }).toEqual({ code: 5, stdout: "up\ngot it\n" });
    expect(stderr).not.toContain("Debugger");
  });

  test.for([
    ["a shell that ignores it", "sh", ["-c", `trap "" HUP; "$@"; exit $?`, "sh"]],
    ["nohup", "nohup", []],
  ] as const)("SIGHUP ends neither of the two under %s", async ([, program, args]) => {
    const command = `kill -HUP $PPID; kill -HUP $$; echo survived`;
    const own = [NODE, MAIN, "run", "--quiet", "--", "sh", "-c", command];
    // As bash does: it names the program that it starts.
    const env = { ...process.env, _: program };
    const child = spawn(program, [...args, ...own], { env, stdio: ["ignore", "pipe", "pipe"] });
    const [stdout, [code]] = await Promise.all([text(child.stdout), once(child, "close")]);
    expect({ stdout, code }).toEqual({ stdout: "survived\n", code: 0 });
  });

  test("life goes on when run is killed, but for a simulated engine's", async () => {
    const orphan =
      "const { ppid } = process; console.log('up'); setInterval(() => " +
      "process.ppid === ppid || (console.log('on its own'), process.exit()), 20)";
    const running = lazygraph(withProgram(orphan));
    await running.line("stdout", /^up$/);
    running.process.kill("SIGKILL");
    await running.line("stdout", /^on its own$/);
    const simulating = lazygraph(["run", "--", NODE, SIMULATED_ENGINE]);
    await simulating.line("stdout", /"type":"started"/);
    simulating.process.kill("SIGKILL");
    // Only when nobody holds its output open any more, the engine neither.
    await simulating.finished;
    const { stdout } = await finish(["run", "--help"]);
    expect(stdout).toContain("a simulated engine alone ends with its parent");
  });

  test("under nohup a command that doesn't exist is told as ever", async () => {
    const result = await finish(["run", "--", "no-such-command-of-ours"], { _: "nohup" });
    expect(result.code).toBe(127);
    expect(result.stderr).toMatch(/^lazygraph: .* is not on PATH.*COMMAND_NOT_FOUND\]\n$/);
  });
});

describe("LAZYGRAPH_DISABLE", () => {
  test("starts the command as stock: no probe, no controller, one line", async () => {
    const folder = await temporaryFolder();
    const file = join(folder, "figures.json");
    await script(join(folder, "python3"), "#!/bin/sh\necho False\n");
    await script(join(folder, "vllm"), "#!/usr/bin/env python3\n");
    const PATH = `${folder}:${process.env["PATH"]}`;
    const args = ["run", "--endpoint", await occupiedPort(), "--json", file, "--", "vllm", "serve"];
    const run = await finish(args, { PATH, LAZYGRAPH_DISABLE: "1" });
    expect(run).toMatchObject({ code: 0, stdout: "False\n" });
    expect(run.stderr).toBe(
      "lazygraph: LAZYGRAPH_DISABLE is set: the command runs as stock, without a controller.\n",
    );
    expect(JSON.parse(await readFile(file, "utf8"))).toMatchObject({ engines: [] });
  });

  test("in front of the command it does the same", async () => {
    const run = ["run", "--", "env", "LAZYGRAPH_DISABLE=1", NODE, "-e", ""];
    expect((await finish(run)).stderr).toContain("runs as stock, without a controller.");
  });

  test("set to 0 it disables nothing", async () => {
    const program = "console.log('LAZYGRAPH_ENDPOINT' in process.env)";
    expect((await finish(withProgram(program), { LAZYGRAPH_DISABLE: "0" })).stdout).toBe("true\n");
    expect((await finish(withProgram(program), { LAZYGRAPH_DISABLE: "yes" })).stdout).toBe(
      "false\n",
    );
  });
});

test("without an engine it says only what is known", () => {
  const sentence = noEngineSentence("tcp://127.0.0.1:5757", 120);
  expect(sentence).toMatch(/^No engine has joined within 120 s; .*may lack lazygraph-vllm, or /);
  expect(sentence).toContain("can't reach tcp://127.0.0.1:5757, as from a container");
});

describe("what can't work ends in one sentence", () => {
  test.for([
    [[], "Expected a command after `--`"],
    [["--"], "Expected a command after `--`"],
    [["--mode", "fast", "--", NODE], '--mode to be eager, lazy or idle, got "fast"'],
    [["--settle-within", "soon", "--", NODE], "--settle-within to be a number of seconds"],
    [["--endpoint", "localhost", "--", NODE], "--endpoint to be an endpoint such as tcp://"],
    [["--controller", "gateway", "--", NODE], "--controller to be an endpoint such as tcp://"],
    [["--controller", "tcp://a:0", "--", NODE], "to name a controller's host and port, got"],
    [["--controller", "tcp://*:1", "--", NODE], "to name a controller's host and port, got"],
    [
      ["--controller", "tcp://a:1", "--http", "127.0.0.1:0", "--", NODE],
      "Expected no --http beside --controller: give it to the controller there.",
    ],
    [
      ["--controller", "tcp://a:1", "--preset", "throughput", "--", NODE],
      "Expected no --preset beside --controller",
    ],
    [["--json", "/nonexistent/x.json", "--", NODE], "--json to be a file in a folder"],
    [["--json", tmpdir(), "--", NODE], "--json to be a file"],
    [["--", "env", "LAZYGRAPH_ENDPOINT=tcp://a:5757", NODE], "`run` to choose LAZYGRAPH_ENDPOINT"],
    [["--json", "-", "--", NODE], "--json to be a file: this one can't go to stdout"],
    [["--json", `${NODE}/x.json`, "--", NODE], "--json to be a file in a folder"],
    [["--json", "/proc/x.json", "--", NODE], "--json to be a file in a folder"],
    [["--http", "0.0.0.0:0", "--", NODE], "--http to be on loopback"],
    [["vllm", "serve", "MODEL"], 'Expected `--` before the command, got "vllm" without.'],
  ] as const)("run %j", async ([args, sentence]) => {
    const { code, stdout, stderr } = await finish(["run", ...args]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(sentence);
    expect(stderr).toMatch(/^lazygraph: .* \[ERR_LAZYGRAPH_OPTION\]\n$/);
  });

  // A pipe of our own and not /dev/null: should the check fail one day, root's run would replace it.
  test("--json with a pipe", async () => {
    const pipe = join(await temporaryFolder(), "pipe");
    execFileSync("mkfifo", [pipe]);
    const { code, stderr } = await finish(["run", "--json", pipe, "--", NODE]);
    expect(code).toBe(2);
    expect(stderr).toContain("--json to be a file, not a device or a pipe");
  });

  test("--json with a file that has become a folder: nothing is left behind", async () => {
    const folder = await temporaryFolder();
    const report = await openReport(join(folder, "x"));
    await mkdir(join(folder, "x"));
    await expect(report.write({})).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_FILE" });
    expect(await readdir(folder)).toEqual(["x"]);
  });

  test("an unknown mode in the environment", async () => {
    const result = await finish(withProgram(""), { LAZYGRAPH_MODE: "fast" });
    expect(result.code).toBe(2);
    expect(result.stderr).toContain('LAZYGRAPH_MODE to be eager, lazy or idle, got "fast"');
  });

  test("a command that doesn't exist: 127", async () => {
    const { code, stderr } = await finish(["run", "--", "no-such-command-of-ours", "serve"]);
    expect(code).toBe(127);
    expect(stderr).toMatch(
      /^lazygraph: Expected a command that exists after --, got "no-such-command-of-ours", which is not on PATH.*\[ERR_LAZYGRAPH_COMMAND_NOT_FOUND\]\n$/,
    );
  });

  test("a variable without env is told as one", async () => {
    const { code, stderr } = await finish(["run", "--", "VLLM_X=1", "vllm", "serve", "m"]);
    expect(code).toBe(127);
    expect(stderr).toContain('got "VLLM_X=1", a variable: write `env` before it. [');
  });

  test("a file that isn't executable: 126", async () => {
    const file = join(await temporaryFolder(), "data");
    await writeFile(file, "x", { mode: 0o644 });
    const { code, stderr } = await finish(["run", "--", file]);
    expect(code).toBe(126);
    expect(stderr).toMatch(/which is not executable.*\[ERR_LAZYGRAPH_COMMAND_NOT_EXECUTABLE\]\n$/);
  });

  test.for(["", "nohup"])("a folder, a path without a file, a lost interpreter (%s)", async (_) => {
    const folder = await temporaryFolder();
    const orphan = join(folder, "vllm");
    await script(orphan, "#!/gone/venv/bin/python3\n");
    const cases = [
      [folder, 126, /which is a folder.*\[ERR_LAZYGRAPH_COMMAND_NOT_EXECUTABLE\]\n$/],
      [join(folder, "none"), 127, /and there is no such file: .*\[ERR_LAZYGRAPH_COMMAND_NOT_FOUND/],
      ["./none-of-ours", 127, /and there is no such file in "\/.*COMMAND_NOT_FOUND\]\n$/],
      [orphan, 127, /interpreter "\/gone\/venv\/bin\/python3".*COMMAND_NOT_FOUND\]\n$/],
    ] as const;
    for (const [command, exit, sentence] of cases) {
      const { code, stderr } = await finish(["run", "--", command], { _ });
      expect({ command, code }).toEqual({ command, code: exit });
      expect(stderr).toMatch(sentence);
      expect(stderr).not.toContain("is not on PATH");
    }
  });

  test("an occupied port: the command is never started", async () => {
    const port = await occupiedPort();
    const marker = join(await temporaryFolder(), "started");
    const { code, stderr } = await finish(
      withProgram(`require("fs").writeFileSync(${JSON.stringify(marker)}, "")`, "--endpoint", port),
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(/^lazygraph: .*\[ERR_LAZYGRAPH_ADDRESS_IN_USE\]\n$/);
    expect(existsSync(marker)).toBe(false);
  });

  test("a vllm whose Python hasn't got the plugin", async () => {
    const folder = await temporaryFolder();
    const marker = join(folder, "started");
    const vllm = join(folder, "vllm");
    await writeFile(vllm, `#!/usr/bin/env python3\nopen(${JSON.stringify(marker)}, "w")\n`);
    await chmod(vllm, 0o755);
    // An isolated Python: whatever this host has installed must not decide the test.
    const python = join(folder, "python3");
    await writeFile(python, "#!/bin/sh\necho False\n");
    await chmod(python, 0o755);
    const PATH = `${folder}:${process.env["PATH"]}`;
    const { code, stderr } = await finish(["run", "--", "vllm", "serve", "MODEL"], { PATH });
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^lazygraph: Expected the plugin lazygraph-vllm in .*: run `\S+ -m pip install \.\/worker` in a checkout of lazygraph, .+ \[ERR_LAZYGRAPH_PLUGIN_MISSING\]\n$/,
    );
    expect(existsSync(marker)).toBe(false);
  });
});

test("--json writes the figures at the end, whole", async () => {
  const file = join(await temporaryFolder(), "figures.json");
  const { code } = await finish(withProgram("", "--json", file));
  expect(code).toBe(0);
  expect(JSON.parse(await readFile(file, "utf8"))).toMatchObject({
    command: [NODE, "-e", ""],
    engines: [],
  });
});

describe("with a simulated engine as the command", () => {
  const engine = [NODE, SIMULATED_ENGINE, "--speed", "20"];

  test("the fill is told, the table shown, the figures written", async () => {
    const file = join(await temporaryFolder(), "figures.json");
    const running = lazygraph(["run", "--mode", "idle", "--json", file, "--", ...engine]);
    await running.line("stderr", /^lazygraph: simulated is settled: /);
    running.process.kill("SIGTERM");
    const { code, stdout, stderr } = await running.finished;
    expect(code).toBe(0);
    expect(stderr).toContain("lazygraph: simulated joined: meta-llama/Llama-3.1-8B, mode idle\n");
    expect(stderr).toMatch(/lazygraph: simulated is ready: 3 of 102 graphs in \d\.\d+ s\n/);
    expect(stderr).toMatch(/is settled: .*\(102 of 102 graphs, /);
    expect(stderr).toContain("(simulated: llama-3.1-8b-h200)");
    expect(stderr).toContain("lazygraph: simulated left: The engine was asked to end.\n");
    expect(stderr).not.toContain("[ERR_");
    // The engine's own output and nothing of ours.
    const types = new Set(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line).type),
    );
    expect(types).toContain("ready");
    const { engines } = JSON.parse(await readFile(file, "utf8"));
    expect(engines).toMatchObject([
      { engine: "simulated", mode: "idle", settled: true, graphsCaptured: 102 },
    ]);
    // Who knows a session can pass for its engine, and a file may be read by others.
    const [, session] = /"session":"([^"]+)"/.exec(stdout) ?? [];
    expect(session).toBeDefined();
    expect(engines[0].session).toMatch(/^[0-9a-f]{16}$/);
    expect(engines[0].session).not.toBe(session);
  });

  test("eager has every graph before ready; --engine and --quiet hold", async () => {
    const options = ["--mode", "eager", "--engine", "replica-7", "--quiet"];
    const http = ["--http", "127.0.0.1:0"];
    const running = lazygraph(["run", ...options, ...http, "--", ...engine]);
    const ready = JSON.parse(await running.line("stdout", /"type":"ready"/));
    expect(ready).toMatchObject({ type: "ready" });
    running.process.kill("SIGTERM");
    const { code, stdout, stderr } = await running.finished;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain('"engine":"replica-7"');
  });

  test("a defect of ours doesn't end the command", async () => {
    const thrower =
      "import { subscribe } from 'node:diagnostics_channel';" +
      "subscribe('lazygraph:engine:join', () => { throw new Error('a defect'); });";
    const NODE_OPTIONS = `--import=data:text/javascript,${encodeURIComponent(thrower)}`;
    const running = lazygraph(["run", "--", ...engine], { NODE_OPTIONS });
    await running.line("stderr", /^lazygraph: A defect in the controller; the command goes on/);
    await running.line("stdout", /"type":"ready"/);
    running.process.kill("SIGTERM");
    const { code, stderr } = await running.finished;
    expect(code).toBe(0);
    expect(stderr).toContain("Error: a defect");
  });

  test("an engine that dies later keeps its exit code, without the other sentence", async () => {
    const running = lazygraph(["run", "--mode", "lazy", "--", ...engine]);
    const started = JSON.parse(await running.line("stdout", /"type":"started"/));
    await running.line("stderr", /simulated is ready/);
    process.kill(started.pid, "SIGKILL");
    const { code, stderr } = await running.finished;
    expect(code).toBe(137);
    expect(stderr).not.toContain("ERR_LAZYGRAPH_COMMAND_DIED");
    expect(stderr).toMatch(/was ended by SIGKILL, which .* \[ERR_LAZYGRAPH_COMMAND_KILLED\]\n$/);
    const [, captured] = /is ready: (\d+) of 102 graphs/.exec(stderr) ?? [];
    expect(stderr).toContain(`simulated is not settled (${captured} of 102 graphs, `);
  });
});

async function script(path: string, text: string): Promise<void> {
  await writeFile(path, text);
  await chmod(path, 0o755);
}

/** A port that another program listens on. */
async function occupiedPort(): Promise<string> {
  return (await listening(createServer())).replace("http:", "tcp:");
}

test("a signal that may not be sent to the command is told, each time", async () => {
  const how = { environment: process.env, ignoreHangup: false };
  const { pid, ended } = await startChild([NODE, "-e", "setInterval(() => {}, 1e6)"], how);
  const kill = vi.spyOn(ChildProcess.prototype, "kill");
  kill.mockImplementation(function (this: ChildProcess) {
    return !this.emit("error", new Error("kill EPERM"));
  });
  const said = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  for (const _ of [1, 2]) process.emit("SIGUSR2", "SIGUSR2");
  expect(said.mock.calls.join()).toMatch(/(got kill EPERM.*){2}/s);
  vi.restoreAllMocks();
  process.kill(pid);
  await ended;
});

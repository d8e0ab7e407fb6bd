/** `lazygraph startup` with the simulated engine: the same command as for vLLM. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { freePort } from "../../src/bench/engine-command.ts";
import type { StartResult } from "../../src/startup/start.ts";
import { SIMULATED_ENGINE } from "../helpers/built.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { finish, lazygraph } from "./helpers/command.ts";

const simulated = (...words: string[]): string[] => [
  process.execPath,
  ...[SIMULATED_ENGINE, "--http", "127.0.0.1:{port}", "--speed", "20"],
  ...words,
];

test("variants take turns; phases add up; the result is told and kept", async () => {
  const folder = join(await temporaryFolder(), "out");
  const lazy = `cd / && A="1 && 2"; exec ${simulated("--mode", "lazy").join(" ")} 2>&1`;
  const words = ["--runs", "2", "--out", folder, "--compare", `lazy=${lazy}`, "--json"];
  const { code, stdout, stderr } = await finish([
    "startup",
    ...words,
    "--",
    ...simulated("--mode", "eager"),
  ]);
  expect({ code, stderr }).toMatchObject({ code: 0 });
  const waits = /, start 1: waiting for http:\/\/127\.0\.0\.1:\d+\/, 900 s at most; its output/g;
  expect(stderr.match(waits)).toHaveLength(2);
  const document = JSON.parse(stdout) as { starts: StartResult[]; simulated: boolean };
  expect(document.simulated).toBe(true);
  expect(document.starts.map(({ variant, run }) => `${variant} ${run}`)).toEqual([
    "base 1",
    "lazy 1",
    "base 2",
    "lazy 2",
  ]);
  for (const { phases, readySeconds, firstTokenSeconds } of document.starts) {
    const sum = phases.reduce((total, { seconds }) => total + seconds, 0);
    expect(sum).toBeCloseTo(readySeconds, 6);
    expect(firstTokenSeconds).toBeGreaterThan(readySeconds);
    const names = phases.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(["imports", "weights", "captures"]));
  }
  expect(stderr.match(/simulated engine: no figures of a GPU/g)).toHaveLength(4);
  expect(JSON.parse(await readFile(join(folder, "startup.json"), "utf8"))).toEqual(document);
  const trace = JSON.parse(await readFile(join(folder, "startup-trace.json"), "utf8"));
  expect(trace.traceEvents.filter(({ name }: { name: string }) => name === "weights")).toHaveLength(
    4,
  );
});

test("what prepares a variant comes before each of its starts; one that fails is told", async () => {
  const folder = await temporaryFolder();
  const file = join(folder, "prepared");
  const words = ["--runs", "2", "--out", join(folder, "out"), "--quiet", "--json"];
  const { code, stdout, stderr } = await finish([
    // What it leaves running holds its output, and isn't waited for.
    ...["startup", ...words, "--prepare", `base=sleep 1000 & echo $! >> ${file}`],
    ...["--compare", `other=${simulated("--mode", "lazy").join(" ")}`],
    ...["--prepare", "other=echo no room >&2; exit 3"],
    ...["--", ...simulated("--mode", "lazy")],
  ]);
  expect(code).toBe(1);
  const left = (await readFile(file, "utf8")).trim().split("\n");
  expect(left).toHaveLength(2);
  for (const pid of left) expect(process.kill(Number(pid))).toBe(true);
  const document = JSON.parse(stdout) as { starts: StartResult[]; failures: object[] };
  expect(document.starts.map(({ variant }) => variant)).toEqual(["base", "base"]);
  expect(document.failures).toHaveLength(2);
  expect(stderr).toMatch(
    /other, start 1: Expected what prepares other .*got no room, exit code 3: see .*_BENCH\]/,
  );
});

test("a command that ends before it is ready is told by its code", async () => {
  const folder = await temporaryFolder();
  await writeFile(join(folder, "startup.json"), "before");
  await using before = await open(join(folder, "startup.json"));
  const words = ["--out", folder, "--", process.execPath, "-e", "process.exit(3)"];
  const { code, stderr } = await finish(["startup", ...words]);
  expect(code).toBe(1);
  expect(stderr).toContain(
    "lazygraph: base, start 1: waiting for http://127.0.0.1:8000/ (vLLM's own port: the command " +
      `names none), 900 s at most; its output is in ${folder}/base-1.log.\n`,
  );
  expect(stderr).toMatch(
    /by exit code 3: see \S+\/base-1\.log\. \[ERR_LAZYGRAPH_COMMAND_DIED\]\n$/,
  );
  // The old file is replaced as a whole, not written over.
  expect(await before.readFile("utf8")).toBe("before");
  expect(await readFile(join(folder, "startup.json"), "utf8")).toContain("COMMAND_DIED");
  await mkdir(join(folder, "full", "startup.json"), { recursive: true });
  const full = await finish(["startup", "--out", join(folder, "full"), ...words.slice(2)]);
  expect(full.stderr).toMatch(/Expected to write the result into .*\[ERR_LAZYGRAPH_BENCH\]\n$/);
});

test("a command that isn't there is told at once, and not by a start that failed", async () => {
  const folder = join(await temporaryFolder(), "out");
  const { code, stderr } = await finish(["startup", "--out", folder, "--", "no-such-server"]);
  expect(code).toBe(127);
  expect(stderr).toMatch(/^lazygraph: Expected a command that exists .*_COMMAND_NOT_FOUND\]\n$/);
  await expect(stat(folder)).rejects.toMatchObject({ code: "ENOENT" });
});

test.for([
  [["--"], "Expected a command after `--`"],
  [["--compare", "no command", "--", "vllm"], 'vllm serve MODEL\', got "no command": put a name'],
  [["--", "env", "LAZYGRAPH_STARTUP_DIR=/x", "vllm"], "`startup` to choose LAZYGRAPH_STARTUP_DIR"],
  [["--compare", "x=cd / && vllm serve M", "--", "vllm"], "put `exec` before the server's."],
  [["--compare", "x=vllm serve M | tee log", "--", "vllm"], "put `exec` before the server's."],
  [["--compare", "base=vllm", "--", "vllm"], "variants with names of their own"],
  [["--prepare", "stock=true", "--", "vllm"], "Expected --prepare once for one of"],
  [["--prepare", "base=a", "--prepare", "base=b", "--", "vllm"], "got one twice"],
  [["--runs", "0", "--", "vllm"], "--runs"],
  [["--", "vllm", "serve", "--port", "$PORT"], "Expected the --port of base to be a number"],
  [["--out", process.execPath, "--", "true"], "Expected --out to be a folder, got"],
  [
    ["--out", "/proc/out-of-nobody", "--", "true"],
    "Expected --out to be a folder that can be made",
  ],
] as const)("%j is a usage error", async ([words, sentence]) => {
  const { code, stderr } = await finish(["startup", ...words]);
  expect(code).toBe(2);
  expect(stderr).toContain(sentence);
});

/** Answers all that a start is asked; with a key only its owner. */
const SERVER = `
const at = process.argv.indexOf("--port");
require("node:http").createServer(({ url, headers }, answer) => {
  const key = process.env.VLLM_API_KEY;
  answer.statusCode = key && url !== "/health" && headers.authorization !== "Bearer " + key ? 401 : 200;
  answer.end("{}");
}).listen(Number(process.argv[at + 1]), "127.0.0.1", () => console.log("listens"));
`;

test("a variant for the shell is asked at its own port, with its own key", async () => {
  const folder = await temporaryFolder();
  const file = join(folder, "server.cjs");
  await writeFile(file, SERVER);
  const [one, other] = [await freePort(), await freePort()];
  const server = `${process.execPath} ${file} --port ${other}`;
  const words = ["--out", join(folder, "out"), "--ready-within", "60", "--json", "--quiet"];
  const { code, stdout, stderr } = await finish([
    ...["startup", ...words, "--compare", `other=VLLM_API_KEY=k ${server}`],
    ...["--", process.execPath, file, "--port", String(one)],
  ]);
  expect({ code, stderr }).toMatchObject({ code: 0 });
  const { starts } = JSON.parse(stdout) as { starts: StartResult[] };
  expect(starts.map(({ variant }) => variant)).toEqual(["base", "other"]);
});

test("another server at the command's port is not measured in its place", async () => {
  const folder = await temporaryFolder();
  const port = await freePort();
  const file = join(folder, "server.cjs");
  await writeFile(file, SERVER);
  const server = spawn(process.execPath, [file, "--port", String(port)], { stdio: "pipe" });
  onTestFinished(() => void server.kill("SIGKILL"));
  await once(server.stdout, "data");
  const words = ["startup", "--out", folder, "--json", "--", process.execPath, "-e", "0"];
  const { code, stdout, stderr } = await finish([...words, "--", "--port", String(port)]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/start 1: Expected nobody to listen at .*_ADDRESS_IN_USE\]\n$/);
  expect(JSON.parse(stdout)).toMatchObject({ starts: [], failures: [{ run: 1 }] });
  await expect(readFile(join(folder, "base-1.log"))).rejects.toThrow("ENOENT");
});

test("a log that can't be written doesn't hold up the command", async () => {
  const folder = await temporaryFolder();
  await symlink("/dev/full", join(folder, "base-1.log"));
  const file = join(folder, "server.cjs");
  // More than a pipe holds, before it listens.
  await writeFile(file, `require("node:fs").writeSync(1, "x\\n".repeat(1 << 20));${SERVER}`);
  const words = ["startup", "--out", folder, "--ready-within", "60", "--quiet", "--json", "--"];
  const port = String(await freePort());
  const { code, stdout } = await finish([...words, process.execPath, file, "--port", port]);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ starts: [{ variant: "base" }], failures: [] });
});

test("the exit code says which signal ended it", async () => {
  const words = ["startup", "--out", await temporaryFolder(), "--", process.execPath, "-e"];
  const port = String(await freePort());
  const run = lazygraph([...words, "setInterval(() => {}, 1000)", "--", "--port", port]);
  await run.line("stderr", /start 1: waiting for/);
  run.process.kill("SIGTERM");
  expect(await run.finished).toMatchObject({ code: 143, signal: null });
});

test("told to stop twice, it leaves no server that doesn't want to end", async () => {
  const folder = await temporaryFolder();
  const stubborn = `process.on("SIGTERM", () => console.log("stays")); setInterval(() => {}, 1000);
    console.log("pid", process.pid);`;
  const words = ["startup", "--out", folder, "--", process.execPath, "-e", stubborn];
  const run = lazygraph([...words, "--", "--port", String(await freePort())]);
  const log = (): Promise<string> => readFile(join(folder, "base-1.log"), "utf8").catch(() => "");
  await expect.poll(log).toMatch(/pid \d+/);
  const pid = Number(/pid (\d+)/.exec(await log())?.[1]);
  // Meanwhile the folder is its own: two would overwrite each other.
  const other = await finish(["startup", "--out", folder, "--", process.execPath, "-e", "0"]);
  expect(other.code).toBe(1);
  expect(other.stderr).toContain(`got process ${run.process.pid} on `);
  run.process.kill("SIGINT");
  await run.line("stderr", /SIGINT: the start under way is ended; once more ends at once/);
  await expect.poll(log).toMatch(/stays/);
  run.process.kill("SIGINT");
  expect(await run.finished).toMatchObject({ code: 130, signal: null });
  await expect.poll(() => isThere(pid)).toBe(false);
});

function isThere(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

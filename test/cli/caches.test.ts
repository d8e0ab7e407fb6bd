/** `lazygraph caches` and `run --caches`, with a command that tells what it was given. */

import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { cacheVariables } from "../../src/caches/kinds.ts";
import { MANIFEST } from "../../src/caches/manifest.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { finish, lazygraph } from "./helpers/command.ts";
import { pluginSite } from "./helpers/plugin-site.ts";

/** Compiles once for each cache, and says whether it did and where. */
const ENGINE = `#!/usr/bin/env python3
import os, pathlib
root = os.environ.get("VLLM_CACHE_ROOT")
print("at", root)
if root:
    file = pathlib.Path(root, "compiled")
    print("was compiled" if file.exists() else "compiles")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("code")
`;

async function engine() {
  const folder = await temporaryFolder();
  const vllm = join(folder, "vllm");
  await writeFile(vllm, ENGINE);
  await chmod(vllm, 0o755);
  const env = { PYTHONPATH: await pluginSite(folder) };
  // What a replacement of text would fill in.
  const caches = join(folder, "caches$&");
  const lazygraph = (...words: string[]) => finish(words, env);
  const run = (...words: string[]) =>
    lazygraph("run", "--caches", caches, ...words, "--", vllm, "serve", "MODEL");
  return { folder, vllm, caches, lazygraph, run };
}

test("a first start fills the folder, a second one finds what was compiled", async () => {
  const { caches, run } = await engine();
  const first = await run();
  expect(first.stdout).toBe(`at ${join(caches, "vllm")}\ncompiles\n`);
  expect(first.stderr).toContain(`Caches: ${caches} is empty and will be filled.`);
  const second = await run("--quiet");
  expect(second).toMatchObject({ code: 0, stdout: `at ${join(caches, "vllm")}\nwas compiled\n` });
});

test.for([
  ["eager", false],
  ["lazy", true],
  ["idle", true],
] as const)("caches that %s mode fills: told who compiles later: %s", async ([mode, told]) => {
  const { caches, run } = await engine();
  const { stderr } = await run("--mode", mode);
  const later = `if others will use ${caches}, fill it with --mode eager.`;
  expect(stderr.includes(later)).toBe(told);
  expect((await run("--mode", mode)).stderr).not.toContain(later);
});

test("packed, unpacked and checked; another command's caches are refused, and the start goes on", async () => {
  const { folder, vllm, caches, lazygraph, run } = await engine();
  await run("--quiet");
  const pack = join(folder, "pack");
  const packed = await lazygraph("caches", "pack", pack, "--caches", caches, "--json");
  expect(JSON.parse(packed.stdout)).toMatchObject({ files: 1, bytes: expect.any(Number) });
  await rm(caches, { recursive: true });
  const same = ["--", vllm, "serve", "MODEL", "--port", "7"];
  const unpacked = await lazygraph("caches", "unpack", pack, "--caches", caches, ...same);
  expect(unpacked).toMatchObject({ code: 0, stderr: "" });
  expect((await run()).stdout).toContain("was compiled");
  expect(await lazygraph("caches", "check", pack, ...same)).toMatchObject({
    ...{ code: 0, stdout: expect.stringMatching(/pack fits\.\nfor {6}MODEL\n/) },
  });

  const other = ["--", vllm, "serve", "MODEL", "--dtype", "float16"];
  const refused =
    /got some made with --dtype none \(here float16\).*\[ERR_LAZYGRAPH_CACHES_FINGERPRINT\]\n$/;
  for (const words of [
    ["check", caches],
    ["unpack", pack, "--caches", join(folder, "new")],
  ]) {
    const { code, stderr } = await lazygraph("caches", ...words, ...other);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(refused) });
  }
  await expect(stat(join(folder, "new"))).rejects.toThrow("ENOENT");
  const { code, stdout, stderr } = await lazygraph("run", "--quiet", "--caches", caches, ...other);
  expect({ code, stdout }).toEqual({ code: 0, stdout: "at None\n" });
  expect(stderr).toMatch(/^lazygraph: Started without these caches: /);
  expect(stderr).toMatch(refused);
});

test("what a file of options says decides, not where it lies", async () => {
  const { folder, vllm, caches, lazygraph } = await engine();
  const [file, moved] = [join(folder, "options.yaml"), join(folder, "moved.yaml")];
  const check = (config: string) =>
    lazygraph("caches", "check", caches, "--", vllm, "serve", "MODEL", "--config", config);
  await writeFile(file, "dtype: bfloat16\n");
  const words = ["--", vllm, "serve", "MODEL", "--config", file];
  await lazygraph("run", "--quiet", "--caches", caches, ...words);
  await writeFile(moved, "dtype: bfloat16\n");
  expect(await check(moved)).toMatchObject({ code: 0 });
  await writeFile(file, "dtype: float16\n");
  expect(await check(file)).toMatchObject({
    ...{ code: 1, stderr: expect.stringMatching(/with --config \w{16} \(here \w{16}\)/) },
  });
});

test("of vLLM's plugins all versions decide but ours", async () => {
  const { folder, vllm, caches, lazygraph, run } = await engine();
  const install = async (name: string, version: string) => {
    const info = join(folder, "site", `${name.replace("-", "_")}.dist-info`);
    await mkdir(info, { recursive: true });
    await writeFile(join(info, "METADATA"), `Name: ${name}\nVersion: ${version}\n`);
    await writeFile(join(info, "entry_points.txt"), "[vllm.general_plugins]\nx = x:register\n");
  };
  const check = () => lazygraph("caches", "check", caches, "--", vllm, "serve", "MODEL");
  await install("acme-kernels", "1.0");
  await run("--quiet");
  await install("lazygraph-vllm", "9.9");
  expect(await check()).toMatchObject({ code: 0 });
  await install("acme-kernels", "1.1");
  const refused = expect.stringContaining("made with acme-kernels 1.0 (here 1.1)");
  expect(await check()).toMatchObject({ code: 1, stderr: refused });
});

test("read-only caches are used as a copy, which is gone when the command has ended", async () => {
  const { caches, run } = await engine();
  await run("--quiet");
  const { stdout, stderr } = await run("--caches-read-only");
  const place = /^at (.*)\nwas compiled\n$/.exec(stdout)?.[1] ?? "";
  expect(place).not.toBe(join(caches, "vllm"));
  expect(stderr).toContain("a private copy");
  await expect(stat(place)).rejects.toThrow("ENOENT");
});

test("a signal before the command runs leaves no copy and no folder; nohup keeps from its one", async () => {
  const { folder, vllm, caches, run } = await engine();
  await run("--quiet");
  // A launcher that never answers when it is asked to start the command.
  const socket = join(folder, "launcher");
  let asked = 0;
  const launcher = createServer((connection) => {
    if (asked++ === 0) connection.destroy();
  }).listen(socket);
  onTestFinished(() => void launcher.close());
  const TMPDIR = join(folder, "temporary");
  await mkdir(TMPDIR);
  const words = ["--caches", caches, "--caches-read-only", "--launcher", socket];
  const env = { PYTHONPATH: await pluginSite(folder), TMPDIR, _: "nohup" };
  const running = lazygraph(
    ["run", ...words, "--http", "127.0.0.1:0", "--", vllm, "serve", "MODEL"],
    env,
  );
  await running.line("stderr", /a private copy/);
  expect(await readdir(TMPDIR)).toHaveLength(3);
  running.process.kill("SIGHUP");
  running.process.kill("SIGTERM");
  expect(await running.finished).toMatchObject({ signal: "SIGTERM", stdout: "" });
  expect(await readdir(TMPDIR)).toEqual([]);
});

test("a copy that can't be removed costs neither the exit code nor the end", async () => {
  const { folder, vllm, caches, lazygraph, run } = await engine();
  await run("--quiet");
  const temporary = join(folder, "temporary");
  await mkdir(temporary);
  const script = `import os\nos.rename("${temporary}", "${temporary}2")\nopen("${temporary}", "w")\nexit(5)\n`;
  await writeFile(vllm, `#!/usr/bin/env python3\n${script}`);
  const words = ["--caches", caches, "--caches-read-only", "--endpoint", "tcp://127.0.0.1:0"];
  const env = { PYTHONPATH: await pluginSite(folder), TMPDIR: temporary };
  const { code, stderr } = await finish(["run", ...words, "--", vllm, "serve", "MODEL"], env);
  expect({ code, stderr }).toEqual({
    ...{ code: 5, stderr: expect.stringMatching(/private copy.*\[ERR_LAZYGRAPH_CACHES\]\n/) },
  });
  const wrong = await lazygraph("caches", "check", join(vllm, "x"), "--", vllm, "serve", "MODEL");
  expect(wrong.stderr).toMatch(/^lazygraph: Expected a pack .*\[ERR_LAZYGRAPH_CACHES\]\n$/);
});

test("unpacked without a command where an image is built; the start checks it", async () => {
  const { folder, caches, lazygraph, run } = await engine();
  await run("--quiet");
  const pack = join(folder, "pack");
  await lazygraph("caches", "pack", pack, "--caches", caches);
  const target = join(folder, "image");
  const words = ["caches", "unpack", pack, "--caches", target, "--unchecked"];
  const { code, stderr } = await lazygraph(...words);
  expect({ code, stderr }).toEqual({
    ...{ code: 0, stderr: expect.stringContaining(`They were filled at ${caches}`) },
  });
  expect(await readFile(join(target, "vllm", "compiled"), "utf8")).toBe("code");
});

test("list: a folder's caches and whose they are, the usual places, the variables", async () => {
  const { caches, lazygraph, run } = await engine();
  await run("--quiet");
  const own = await lazygraph("caches", "list", "--caches", caches);
  expect(own.stdout).toMatch(/^vllm +0\.0 MiB in 1 file +\S+\/caches\S*\/vllm$/m);
  expect(own.stdout).toMatch(/^triton +none/m);
  expect(own.stdout).toMatch(/^for {6}MODEL\nGPU {6}\S.*\nPython {3}3\.\S+\npackages \S.*\S\n$/m);
  const usual = JSON.parse((await lazygraph("caches", "list", "--json")).stdout);
  expect(usual.caches.map(({ name }: { name: string }) => name)).toEqual([
    ...["vllm", "inductor", "triton", "flashinfer", "driver"],
  ]);
  const { stdout } = await lazygraph("caches", "list", "--caches", caches, "--variables");
  const expected = Object.entries(cacheVariables(caches)).map(([name, at]) => `${name}=${at}\n`);
  expect(stdout).toBe(expected.join(""));
});

test("with LAZYGRAPH_DISABLE the command runs without these caches, too", async () => {
  const { folder, vllm, caches } = await engine();
  const env = { PYTHONPATH: join(folder, "site"), LAZYGRAPH_DISABLE: "1" };
  const words = ["run", "--quiet", "--caches", caches, "--", vllm, "serve", "MODEL"];
  expect(await finish(words, env)).toMatchObject({ code: 0, stdout: "at None\n" });
  await expect(stat(join(caches, MANIFEST))).rejects.toThrow("ENOENT");
});

test.for([
  [["caches"], "where ACTION is list, pack, unpack or check, got 0 arguments"],
  [["caches", "pak", "x"], "did you mean pack?"],
  [["caches", "pack", "--caches", "d"], "Expected a FILE after caches pack"],
  [["caches", "pack", "x"], "Expected --caches DIR"],
  [["caches", "list", "--unchecked"], "Expected no --unchecked with caches list"],
  [["caches", "check", "x"], "Expected the command that the caches are for"],
  [["caches", "unpack", "x", "--caches", "d", "--unchecked", "--", "vllm"], "Expected no command"],
  [["run", "--caches-read-only", "--", "vllm"], "Expected --caches DIR with --caches-read-only"],
] as const)("%j is a usage error", async ([words, sentence]) => {
  const { code, stderr } = await finish([...words]);
  expect(code).toBe(2);
  expect(stderr).toContain(sentence);
});

test("a command that is no vLLM server has no fingerprint", async () => {
  const { code, stderr } = await finish(["caches", "check", "x", "--", "docker", "run"]);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(/ERR_LAZYGRAPH_(CACHES|COMMAND_NOT_VLLM)\]\n$/);
});

/** The package on a host that has Node and nothing else: no compiler, no CMake, no Python. */

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FAKE_NVML, nvmlScript } from "../gpu-memory/fake.ts";
import { REMOVED } from "../helpers/removal.ts";
import { installPacked, ROOT } from "../package/packed.ts";

const execute = promisify(execFile);

let bin: string;
let folder: string;
let remove: () => Promise<void>;
let bare: NodeJS.ProcessEnv;

beforeAll(async () => {
  await execute(process.execPath, [join(ROOT, "scripts/prebuild.mjs")]);
  bin = await mkdtemp(join(tmpdir(), "lazygraph-bin-"));
  // What npm itself needs, and no more.
  for (const name of ["node", "npm", "sh"]) await symlink(await which(name), join(bin, name));
  bare = { ...process.env, PATH: bin };
  ({ folder, remove } = await installPacked(bare));
}, 300_000);

afterAll(async () => {
  await remove?.();
  if (bin !== undefined) await rm(bin, REMOVED);
});

async function which(name: string): Promise<string> {
  if (name === "node") return process.execPath;
  for (const path of (process.env["PATH"] ?? "").split(delimiter)) {
    const names = await readdir(path).catch((): string[] => []);
    if (names.includes(name)) return join(path, name);
  }
  throw new Error(`the test needs ${name} on PATH`);
}

interface Document {
  readonly findings: readonly { name: string; status: string; found: string; remedy?: string }[];
  readonly devices?: readonly { uuid: string; freeBytes: number }[];
}

/** Runs the installed command; an exit code of 1 is an answer like any other. */
async function doctor(env: NodeJS.ProcessEnv = {}): Promise<Document> {
  const main = join(folder, "node_modules/lazygraph/dist/cli/main.js");
  const options = { cwd: folder, env: { ...bare, ...env } };
  const { stdout } = await execute(process.execPath, [main, "doctor", "--json"], options).catch(
    (error: { code: unknown; stdout: string }) => {
      if (error.code !== 1) throw error;
      return error;
    },
  );
  return JSON.parse(stdout) as Document;
}

test("the tools of a build are really out of reach", async () => {
  for (const tool of ["c++", "g++", "cc", "cmake", "python3", "make"]) {
    await expect(execute(tool, ["--version"], { env: bare })).rejects.toMatchObject({
      code: "ENOENT",
    });
  }
});

test("the packed addon loads, answers, and what is missing is said", async () => {
  const { findings } = await doctor({ LAZYGRAPH_NVML_PATH: "/nowhere/libnvidia-ml.so.1" });
  const finding = (name: string) => findings.find((candidate) => candidate.name === name);
  expect(finding("addon")).toMatchObject({
    status: "ok",
    found: expect.stringContaining(`prebuilds/${process.platform}-${process.arch}`),
  });
  for (const name of ["driver", "gpu", "python"]) {
    expect(finding(name)).toMatchObject({ status: "missing", remedy: expect.stringMatching(/./) });
  }
});

test("the packed addon reads a driver's devices", async () => {
  const script = nvmlScript(["device GPU-a name=H200 total=1000 free=900 cc=9.0"]);
  const env = { LAZYGRAPH_NVML_PATH: FAKE_NVML, LAZYGRAPH_FAKE_NVML: script };
  expect((await doctor(env)).devices).toMatchObject([{ uuid: "GPU-a", freeBytes: 900 }]);
});

test("nothing of the tests travels, and nothing runs at install", async () => {
  const files = await readdir(join(folder, "node_modules/lazygraph"), { recursive: true });
  expect(files).toContain("native/src/nvml.cc");
  expect(files).toContain("binding.gyp");
  expect(files.filter((file) => /native\/(fake|test)|sanitize/.test(file))).toEqual([]);
  const { default: manifest } = (await import(join(folder, "node_modules/lazygraph/package.json"), {
    with: { type: "json" },
  })) as { default: { scripts: Record<string, string>; gypfile: boolean } };
  expect(manifest.gypfile).toBe(false);
  const hooks = ["preinstall", "install", "postinstall"];
  expect(Object.keys(manifest.scripts).filter((name) => hooks.includes(name))).toEqual([]);
});

test("without any addon everything else still works", async () => {
  const prebuilds = join(folder, "node_modules/lazygraph/prebuilds");
  await rm(prebuilds, { recursive: true });
  const missing = await doctor();
  expect(missing.findings.find(({ name }) => name === "addon")).toMatchObject({
    status: "warning",
    found: "not here",
  });
  // A file that this system can't load, such as that of another C library.
  const place = join(prebuilds, `${process.platform}-${process.arch}`);
  await mkdir(place, { recursive: true });
  await writeFile(join(place, "gpu_memory.node"), "\x7fELF of another system");
  const broken = await doctor();
  expect(broken.findings.find(({ name }) => name === "addon")).toMatchObject({
    status: "warning",
    found: "here, but does not load",
  });
});

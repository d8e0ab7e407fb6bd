/** Raw results stay out of the source tree, and are found from it. */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SCRIPT = join(ROOT, "scripts/raw-results.mjs");
const TREE_BYTES_MAX = 8 << 20;

function run(command: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd,
    env: { ...process.env, ...env },
    maxBuffer: 1 << 28,
  });
  return { status, stdout, stderr: stderr?.toString() ?? "" };
}

test.runIf(existsSync(join(ROOT, ".git")))("the source tree is below 8 MiB", () => {
  const { status, stdout } = run("git", ["archive", "HEAD"], ROOT);
  expect(status).toBe(0);
  expect(stdout.byteLength).toBeGreaterThan(1 << 20);
  expect(stdout.byteLength).toBeLessThan(TREE_BYTES_MAX);
});

test("every archive has a size, a digest and words about it", () => {
  const list = JSON.parse(readFileSync(join(ROOT, "bench/results/archives.json"), "utf8")) as {
    branch: string;
    archives: { name: string; file: string; what: string; bytes: number; sha256: string }[];
  };
  expect(list.branch).toBe("results");
  expect(list.archives.length).toBeGreaterThan(0);
  for (const { name, file, what, bytes, sha256 } of list.archives) {
    expect(file).toBe(`${name}.tar.xz`);
    expect(what.length).toBeGreaterThan(20);
    expect(bytes).toBeGreaterThan(1000);
    expect(sha256).toMatch(/^[0-9a-f]{64}$/);
  }
});

describe("scripts/raw-results.mjs", () => {
  let folder = "";
  let env: NodeJS.ProcessEnv = {};

  /** A repository with one archive on its branch. */
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "lazygraph-raw-"));
    const repository = join(folder, "repository");
    await mkdir(join(folder, "tiny"), { recursive: true });
    await mkdir(repository);
    await writeFile(join(folder, "tiny", "a.json"), "[1]\n");
    const archive = join(repository, "tiny.tar.xz");
    expect(run("tar", ["-cJf", archive, "-C", folder, "tiny"], folder).status).toBe(0);
    const who = ["-c", "user.name=a", "-c", "user.email=a@b.c"];
    for (const args of [
      ["init", "-q", "-b", "raw"],
      ["add", "."],
      [...who, "commit", "-qm", "raw"],
    ]) {
      expect(run("git", args, repository)).toMatchObject({ status: 0 });
    }
    const bytes = await readFile(archive);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const tiny = { name: "tiny", file: "tiny.tar.xz", what: "a list", bytes: bytes.length, sha256 };
    const damaged = { ...tiny, name: "damaged", sha256: "0".repeat(64) };
    const gone = { ...tiny, name: "gone", file: "gone.tar.xz" };
    const list = join(folder, "archives.json");
    const archives = [tiny, damaged, gone];
    await writeFile(list, JSON.stringify({ branch: "raw", archives }));
    env = { LAZYGRAPH_ARCHIVES: list, LAZYGRAPH_REPOSITORY: repository };
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  test("lists the archives, and unpacks one whose digest is right", async () => {
    const listed = run(process.execPath, [SCRIPT], folder, env);
    expect(listed.stdout.toString()).toMatch(/^tiny {2}0\.0 MiB {2}a list\n/);
    const into = join(folder, "into");
    const { status, stdout } = run(process.execPath, [SCRIPT, "tiny", into], folder, env);
    expect([status, stdout.toString()]).toEqual([0, `${into}/tiny\n`]);
    expect(await readFile(join(into, "tiny", "a.json"), "utf8")).toBe("[1]\n");
  });

  test.for([
    [["damaged", "x"], /^Expected tiny\.tar\.xz with the SHA-256 0{64}, got [0-9a-f]{64}\.\n$/],
    [["gone", "x"], /^Expected gone\.tar\.xz on the branch raw, found no such file: fetch .+\.\n$/],
    [["other", "x"], /^Expected one of tiny, damaged, gone and a folder, got other x\.\n$/],
    [["tiny"], /^Expected one of .+ and a folder, got tiny\.\n$/],
  ] as const)("%j is one sentence", ([args, sentence]) => {
    const { status, stdout, stderr } = run(process.execPath, [SCRIPT, ...args], folder, env);
    expect([status, stdout.toString()]).toEqual([1, ""]);
    expect(stderr).toMatch(sentence);
  });
});

/** Raw results stay out of the source tree, and are found from it. */

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { REMOVED } from "../helpers/removal.ts";

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

interface Campaign {
  readonly name: string;
  readonly what: string;
  readonly commit: string;
  readonly path: string;
  /** Of a folder, or of a file. */
  readonly tree?: string;
  readonly blob?: string;
  readonly bytes: number;
}

const { campaigns } = JSON.parse(
  readFileSync(join(ROOT, "bench/results/archives.json"), "utf8"),
) as { readonly campaigns: readonly Campaign[] };

test("every campaign has a place in the history, a digest and words about it", () => {
  expect(campaigns.length).toBeGreaterThan(0);
  for (const { name, what, commit, path, tree, blob, bytes } of campaigns) {
    expect(path.replace(/\.json\.\w+$/, "")).toBe(`bench/results/${name}`);
    expect(what.length).toBeGreaterThan(20);
    expect(bytes).toBeGreaterThan(1000);
    expect(commit).toMatch(/^[0-9a-f]{40}$/);
    expect([tree ?? blob, tree ?? ""].join(" ")).toMatch(/^([0-9a-f]{40})( \1| )$/);
  }
});

// A shallow clone or an unpacked archive has no history to look into.
const shallow = run("git", ["rev-parse", "--is-shallow-repository"], ROOT).stdout?.toString();
test.runIf(shallow?.trim() === "false")("every campaign is where the list says", () => {
  for (const { commit, path, tree, blob } of campaigns) {
    const { status, stdout } = run("git", ["rev-parse", `${commit}:${path}`], ROOT);
    expect([status, stdout.toString().trim()]).toEqual([0, tree ?? blob]);
  }
});

describe("scripts/raw-results.mjs", () => {
  let folder = "";
  let commit = "";
  let env: NodeJS.ProcessEnv = {};

  /** A repository with one campaign in its history, and no longer in its tree. */
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "lazygraph-raw-"));
    const repository = join(folder, "repository");
    await mkdir(join(repository, "results", "tiny"), { recursive: true });
    await writeFile(join(repository, "results", "tiny", "a.json"), "[1]\n");
    const git = (...args: string[]): string => {
      const who = ["-c", "user.name=a", "-c", "user.email=a@b.c"];
      const { status, stdout, stderr } = run("git", [...who, ...args], repository);
      expect([status, status === 0 ? "" : stderr]).toEqual([0, ""]);
      return stdout.toString().trim();
    };
    git("init", "-q", "-b", "main");
    git("add", ".");
    git("commit", "-qm", "raw");
    commit = git("rev-parse", "HEAD");
    const tree = git("rev-parse", "HEAD:results/tiny");
    const blob = git("rev-parse", "HEAD:results/tiny/a.json");
    git("rm", "-rq", "results");
    git("commit", "-qm", "without");
    const tiny = { name: "tiny", what: "a list", commit, path: "results/tiny", tree, bytes: 4 };
    const damaged = { ...tiny, name: "damaged", tree: "0".repeat(40) };
    const { tree: _, ...file } = { ...tiny, name: "file", path: "results/tiny/a.json" };
    const single = { ...file, blob };
    const gone = { ...tiny, name: "gone", path: "results/gone" };
    const list = join(folder, "archives.json");
    await writeFile(list, JSON.stringify({ campaigns: [tiny, damaged, gone, single] }));
    env = { LAZYGRAPH_ARCHIVES: list, LAZYGRAPH_REPOSITORY: repository };
  });

  afterAll(() => rm(folder, REMOVED));

  test("lists the campaigns, and unpacks one whose digest is right", async () => {
    const listed = run(process.execPath, [SCRIPT], folder, env);
    expect(listed.stdout.toString()).toMatch(/^tiny {2}0\.0 MiB {2}a list\n/);
    const into = join(folder, "into");
    const { status, stdout } = run(process.execPath, [SCRIPT, "tiny", into], folder, env);
    expect([status, stdout.toString()]).toEqual([0, `${into}/tiny\n`]);
    expect(await readFile(join(into, "tiny", "a.json"), "utf8")).toBe("[1]\n");
  });

  test("gives a campaign of one file as that file", async () => {
    const into = join(folder, "single");
    const { status, stdout } = run(process.execPath, [SCRIPT, "file", into], folder, env);
    expect([status, stdout.toString()]).toEqual([0, `${into}/a.json\n`]);
    expect(await readFile(join(into, "a.json"), "utf8")).toBe("[1]\n");
  });

  test.for([
    [
      ["damaged", "x"],
      /^Expected results\/tiny of commit \w{40} to be the object 0{40}, got \w{40}\.\n$/,
    ],
    [
      ["gone", "x"],
      /^Expected results\/gone in commit \w{40}, found no such commit or path: .+\.\n$/,
    ],
    [["other", "x"], /^Expected one of tiny, damaged, gone, file and a folder, got other x\.\n$/],
    [["tiny"], /^Expected one of .+ and a folder, got tiny\.\n$/],
  ] as const)("%j is one sentence", ([args, sentence]) => {
    const { status, stdout, stderr } = run(process.execPath, [SCRIPT, ...args], folder, env);
    expect([status, stdout.toString()]).toEqual([1, ""]);
    expect(stderr).toMatch(sentence);
  });
});

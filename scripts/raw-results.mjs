/**
 * `node scripts/raw-results.mjs [NAME FOLDER]`: the large raw results, which are not in the source
 * tree but one archive a campaign on a branch of their own. Lists them; with a name, checks that
 * archive's digest against bench/results/archives.json and unpacks it into the folder.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const list = process.env.LAZYGRAPH_ARCHIVES ?? `${root}/bench/results/archives.json`;
const repository = process.env.LAZYGRAPH_REPOSITORY ?? root;
const { branch, archives } = JSON.parse(readFileSync(list, "utf8"));
const ARCHIVE_BYTES_MAX = 64 << 20;

function git(...args) {
  return spawnSync("git", args, { cwd: repository, maxBuffer: ARCHIVE_BYTES_MAX });
}

/** The branch as this clone has it; a shallow one asks for it first. */
function archiveOf(file) {
  for (const ref of [branch, `origin/${branch}`]) {
    const { status, stdout } = git("cat-file", "blob", `${ref}:${file}`);
    if (status === 0) return stdout;
  }
  git("fetch", "--depth=1", "origin", branch);
  const { status, stdout } = git("cat-file", "blob", `FETCH_HEAD:${file}`);
  return status === 0 ? stdout : undefined;
}

function fail(sentence) {
  console.error(sentence);
  process.exit(1);
}

const [name, folder] = process.argv.slice(2);
if (name === undefined) {
  for (const { name: known, bytes, what } of archives) {
    console.log(`${known}  ${(bytes / 2 ** 20).toFixed(1)} MiB  ${what}`);
  }
  process.exit(0);
}
const archive = archives.find((known) => known.name === name);
if (archive === undefined || folder === undefined) {
  const names = archives.map((known) => known.name).join(", ");
  fail(`Expected one of ${names} and a folder, got ${process.argv.slice(2).join(" ")}.`);
}
const bytes = archiveOf(archive.file);
if (bytes === undefined) {
  fail(
    `Expected ${archive.file} on the branch ${branch}, found no such file: fetch that branch from ` +
      "where this checkout came from.",
  );
}
const digest = createHash("sha256").update(bytes).digest("hex");
if (digest !== archive.sha256) {
  fail(`Expected ${archive.file} with the SHA-256 ${archive.sha256}, got ${digest}.`);
}
mkdirSync(folder, { recursive: true });
const { status, stderr } = spawnSync("tar", ["-xJf", "-", "-C", folder], { input: bytes });
if (status !== 0) fail(`Expected tar with xz to unpack ${archive.file}, got: ${stderr}`);
console.log(`${folder}/${name}`);

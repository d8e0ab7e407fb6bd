/**
 * `node scripts/raw-results.mjs [NAME FOLDER]`: the large raw results, which are no longer in the
 * source tree but in its history. Lists them; with a name, unpacks that campaign into the folder.
 * What bench/results/archives.json names is a commit and the tree, or the blob, that it must hold
 * there: an object's name is the digest of what is in it, so nothing else has to be compared.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const list = process.env.LAZYGRAPH_ARCHIVES ?? `${root}/bench/results/archives.json`;
const repository = process.env.LAZYGRAPH_REPOSITORY ?? root;
const { campaigns } = JSON.parse(readFileSync(list, "utf8"));
const ARCHIVE_BYTES_MAX = 64 << 20;

function git(...args) {
  return spawnSync("git", args, { cwd: repository, maxBuffer: ARCHIVE_BYTES_MAX });
}

/** The object that is there; undefined where this clone has no such commit. A shallow one asks first. */
function objectAt({ commit, path }) {
  const ask = () => {
    const { status, stdout } = git("rev-parse", "--verify", "--quiet", `${commit}:${path}`);
    return status === 0 ? stdout.toString().trim() : undefined;
  };
  const found = ask();
  if (found !== undefined) return found;
  git("fetch", "--depth=1", "origin", commit);
  return ask();
}

function fail(sentence) {
  console.error(sentence);
  process.exit(1);
}

const [name, folder] = process.argv.slice(2);
if (name === undefined) {
  for (const { name: known, bytes, what } of campaigns) {
    console.log(`${known}  ${(bytes / 2 ** 20).toFixed(1)} MiB  ${what}`);
  }
  process.exit(0);
}
const campaign = campaigns.find((known) => known.name === name);
if (campaign === undefined || folder === undefined) {
  const names = campaigns.map((known) => known.name).join(", ");
  fail(`Expected one of ${names} and a folder, got ${process.argv.slice(2).join(" ")}.`);
}
const { commit, path, tree, blob } = campaign;
const wanted = tree ?? blob;
const found = objectAt(campaign);
if (found === undefined) {
  fail(
    `Expected ${path} in commit ${commit}, found no such commit or path: run this in a clone with ` +
      "history, or fetch that commit from where this checkout came from.",
  );
}
if (found !== wanted)
  fail(`Expected ${path} of commit ${commit} to be the object ${wanted}, got ${found}.`);
if (blob !== undefined) {
  const { status, stdout, stderr } = git("cat-file", "blob", blob);
  if (status !== 0) fail(`Expected git to give ${path} of commit ${commit}, got: ${stderr}`);
  const file = join(folder, basename(path));
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, stdout);
  console.log(file);
  process.exit(0);
}
const { status, stdout, stderr } = git("archive", "--format=tar", `--prefix=${name}/`, tree);
if (status !== 0) fail(`Expected git to pack ${path} of commit ${commit}, got: ${stderr}`);
mkdirSync(folder, { recursive: true });
const unpacked = spawnSync("tar", ["-xf", "-", "-C", folder], { input: stdout });
if (unpacked.status !== 0) fail(`Expected tar to unpack ${path}, got: ${unpacked.stderr}`);
console.log(`${folder}/${name}`);

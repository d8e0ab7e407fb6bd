/** Python environments of the scripts: made once, made again when what they hold changes. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";

const CANDIDATES = ["python3", "python3.13", "python3.12", "python3.11", "python3.10"];
const VERSION = "import sys; print('%d.%d' % sys.version_info[:2])";

/** The first Python of at least 3.10, as `{ file, version }`, or undefined. */
export function findPython() {
  for (const file of [process.env.PYTHON, ...CANDIDATES].filter(Boolean)) {
    const { status, stdout } = spawnSync(file, ["-c", VERSION], { encoding: "utf8" });
    const version = status === 0 ? stdout.trim() : "";
    const [major, minor] = version.split(".").map(Number);
    if (major === 3 && minor >= 10) return { file, version };
  }
  return undefined;
}

/** Where environments are kept that are too large to be made for every clone. */
export function cacheFolder() {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "lazygraph");
}

/**
 * A virtual environment at `path` with each pip command of `installs` done in it; returns its
 * Python. Nothing happens when it is there and was made from the same input. Throws a sentence.
 */
export function ensureVenv(path, installs, { timeoutMs, inputs = [] }) {
  const found = findPython();
  if (found === undefined) {
    throw new Error("no Python 3.10 or newer on PATH: install it, or name it in PYTHON");
  }
  const python = join(path, "bin", "python");
  const marker = join(path, ".complete");
  const hash = createHash("sha256").update(JSON.stringify([found, installs]));
  for (const file of inputs) hash.update(readFileSync(file));
  const stamp = hash.digest("hex");
  if (existsSync(marker) && readFileSync(marker, "utf8") === stamp) return python;

  rmSync(path, { recursive: true, force: true });
  mkdirSync(dirname(path), { recursive: true });
  const deadline = Date.now() + timeoutMs;
  execute(found.file, ["-m", "venv", path], deadline, "venv (Debian: apt install python3-venv)");
  for (const install of installs) {
    execute(python, ["-m", "pip", "install", "--quiet", ...install], deadline, "pip install");
  }
  writeFileSync(marker, stamp);
  return python;
}

function execute(file, args, deadline, what) {
  const { status, stdout, stderr } = spawnSync(file, args, {
    encoding: "utf8",
    timeout: Math.max(1, deadline - Date.now()),
    maxBuffer: 1 << 26,
  });
  if (status === 0) return;
  const said = `${stdout}\n${stderr}`
    .trim()
    .split("\n")
    .filter((text) => text.includes("ERROR"));
  const reason = status === null ? "it took too long" : (said.at(-1) ?? `exit code ${status}`);
  throw new Error(`${what} failed: ${reason.trim()}`);
}

/**
 * Python sources of vLLM's releases: fetched by pip from the wheel, which isn't installed, and kept
 * outside the clone. A wheel is 300 MB or more, the Python files a tenth of it.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, findPython } from "./python.mjs";

/** What the plugin's adapters are for: the contract tests and the static check run these. */
export const VERSIONS = ["0.26.0", "0.31.0", "0.32.0", "0.33.0"];

const FETCH_TIMEOUT_MS = 900_000;
const UNPACK_TIMEOUT_MS = 120_000;

export const isVersion = (text) => /^\d+(\.\d+)+([a-z.+]\w*)*$/.test(text);

/** A Python that can run our scripts. Throws a sentence. */
export function anyPython() {
  const found = findPython();
  if (found !== undefined) return found.file;
  throw new Error(
    "expected Python 3.10 or newer on PATH, found none; install it or name it in PYTHON",
  );
}

/** The folder that holds `vllm/` of this version, fetched where it is missing. Throws a sentence. */
export function ensureSources(version) {
  const parent = join(cacheFolder(), "vllm-sources");
  const folder = join(parent, version);
  if (existsSync(folder)) return folder;
  mkdirSync(parent, { recursive: true });
  const scratch = mkdtempSync(join(parent, ".fetch-"));
  try {
    console.error(`# vLLM ${version}: its Python files, in ${folder} (only this once)`);
    // Its metadata is Linux's whatever this machine is: nothing of it is run before it is unpacked.
    pip([
      "download",
      "--quiet",
      "--no-deps",
      "--only-binary=:all:",
      "--python-version=3.12",
      "--platform=manylinux_2_28_x86_64",
      "--platform=manylinux_2_31_x86_64",
      "--platform=manylinux1_x86_64",
      `--dest=${scratch}`,
      `vllm==${version}`,
    ]);
    const wheel = readdirSync(scratch).find((name) => name.endsWith(".whl"));
    if (wheel === undefined) throw new Error(`expected pip to fetch a wheel of vLLM ${version}`);
    const unpacked = join(scratch, "unpacked");
    python(["-c", UNPACK, join(scratch, wheel), unpacked], UNPACK_TIMEOUT_MS, "unpacking a wheel");
    renameSync(unpacked, folder); // whole or not at all
    return folder;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** The newest version on the index that pip is set up for. Throws a sentence. */
export function newestVersion() {
  const said = pip(["index", "versions", "vllm"]);
  const version = /^vllm \(([^)]+)\)/m.exec(said)?.[1];
  if (version !== undefined) return version;
  throw new Error("expected pip to name vLLM's newest version, got another answer; name a version");
}

const UNPACK = `
import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
kept = [n for n in wheel.namelist() if n.endswith(".py") or ".dist-info/" in n]
wheel.extractall(sys.argv[2], kept)
`;

function pip(args) {
  const options = ["--disable-pip-version-check", "--no-input"];
  return python(["-m", "pip", ...options, ...args], FETCH_TIMEOUT_MS, `pip ${args[0]}`);
}

function python(args, timeout, what) {
  const { status, stdout, stderr } = spawnSync(anyPython(), args, {
    encoding: "utf8",
    timeout,
    maxBuffer: 1 << 26,
  });
  if (status === 0) return stdout;
  const errors = stderr.split("\n").filter((text) => text.startsWith("ERROR"));
  const reason = status === null ? "it took too long" : (errors.at(-1) ?? `exit code ${status}`);
  throw new Error(`${what} failed: ${reason.trim().replace(/\.$/, "")}`);
}

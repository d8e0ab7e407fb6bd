/**
 * Which of the hooks that the plugin needs did a vLLM change? Read from its sources, in seconds:
 * nothing is installed, nothing of vLLM is run. What is expected is in scripts/vllm_drift/expected.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { anyPython, ensureSources, isVersion, newestVersion } from "./vllm-sources.mjs";

const USAGE = `Usage: node scripts/vllm-drift.mjs [OPTION…] [VERSION|WHEEL|FOLDER…]

Without arguments: the versions that the adapters are for, from archives in this repository.
A version is fetched by pip, without its dependencies; a folder is or holds vllm/.

  --newest         the newest version on the index
  --adapter NAME   compare with this adapter's expectations (v26, v31)
  --archive        also keep the files that were looked at in this repository's archive
  -h, --help       this

Exit code 0: no hook changed. 1: some did, each is named. 2: usage.
`;
const CHECK_TIMEOUT_MS = 120_000;
const scripts = fileURLToPath(new URL(".", import.meta.url));
const ARCHIVE = fileURLToPath(new URL("../test/vllm-sources/vllm.tar.xz", import.meta.url));

class UsageError extends Error {}

function options() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        newest: { type: "boolean", default: false },
        archive: { type: "boolean", default: false },
        adapter: { type: "string" },
        help: { type: "boolean", short: "h", default: false },
      },
    });
    for (const given of positionals) {
      if (isVersion(given) || existsSync(given)) continue;
      throw new UsageError(
        `Expected a version as 0.33.0, a wheel or a folder, got "${given}"; name one that exists.`,
      );
    }
    return { ...values, given: positionals };
  } catch (error) {
    throw error instanceof UsageError ? error : new UsageError(error.message);
  }
}

/** Runs scripts/vllm_drift; its words are the answer, so they go straight to the terminal. */
function check(args) {
  const { status } = spawnSync(anyPython(), ["-m", "vllm_drift", ...args], {
    cwd: process.cwd(),
    stdio: "inherit",
    timeout: CHECK_TIMEOUT_MS,
    env: { ...process.env, PYTHONPATH: scripts, PYTHONDONTWRITEBYTECODE: "1" },
  });
  return status ?? 1;
}

function main() {
  const { given, newest, archive, adapter, help } = options();
  if (help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const wanted = newest ? [...given, newestVersion()] : given;
  const places = wanted.map((each) => (existsSync(each) ? each : ensureSources(each)));
  const extra = adapter === undefined ? [] : ["--adapter", adapter];
  if (archive) extra.push("--keep");
  return check(["--archive", ARCHIVE, ...extra, ...places]);
}

try {
  process.exitCode = main();
} catch (error) {
  console.error(error instanceof UsageError ? `${error.message}\n\n${USAGE}` : `${error.message}.`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

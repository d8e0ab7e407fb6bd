/**
 * The plugin against vLLM's own classes, without a GPU: `worker/tests/vllm_contract`, once for each
 * version that its adapters are for, or for those that are named: `… vllm-contract.mjs 0.33.0`.
 * `--prepare` only fetches what they need.
 *
 * One environment serves all versions: what they import is in it, vLLM itself is not. Its Python
 * files come from its wheel, and PYTHONPATH says whose turn it is. Both are outside the clone, made
 * once (a few minutes) and kept. What can't be had is said and counted as skipped, not as passed.
 * LAZYGRAPH_VLLM_PYTHON names a Python that has torch, pytest, pytest-xdist and what vLLM imports
 * already.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { add, fromJunit, line, NONE } from "./counts.mjs";
import { cacheFolder, ensureVenv } from "./python.mjs";
import { ensureSources, isVersion, VERSIONS } from "./vllm-sources.mjs";

const TORCH = "2.14.0";
const INSTALL_TIMEOUT_MS = 1_500_000;
const SUITE_TIMEOUT_MS = 1_500_000;
const COMPILE_TIMEOUT_MS = 300_000;
/** Each imports torch and vLLM: 2 GB. */
const PROCESSES_MAX = 4;

const worker = fileURLToPath(new URL("../worker", import.meta.url));

function python() {
  const given = process.env.LAZYGRAPH_VLLM_PYTHON;
  if (given !== undefined) return given;
  const folder = join(cacheFolder(), "vllm-contract");
  const requirements = join(worker, "requirements-vllm-contract.txt");
  console.error(`# what vLLM imports, in ${folder} (a few minutes the first time)`);
  return ensureVenv(folder, [[`torch==${TORCH}`], ["-r", requirements]], {
    timeoutMs: INSTALL_TIMEOUT_MS,
    inputs: [requirements],
  });
}

/** Its sources with their bytecode: each process that imports vLLM would compile them again. */
function sourcesOf(version, interpreter) {
  const folder = ensureSources(version);
  // Not all files are Python that this interpreter knows, and none has to be.
  spawnSync(interpreter, ["-m", "compileall", "-q", "-j", "0", folder], {
    stdio: "ignore",
    timeout: COMPILE_TIMEOUT_MS,
  });
  return folder;
}

/** One version's counts, from processes of its own: vLLM's classes are patched once in each. */
function run(interpreter, version) {
  const sources = sourcesOf(version, interpreter);
  const folder = mkdtempSync(join(tmpdir(), "lazygraph-contract-"));
  const report = join(folder, "pytest.xml");
  const processes = Math.min(availableParallelism(), PROCESSES_MAX);
  console.error(`\n# vLLM ${version}`);
  try {
    const { status } = spawnSync(
      interpreter,
      [
        ...["-m", "pytest", "tests/vllm_contract", `--junit-xml=${report}`],
        // What a file's fixtures hold, as a launcher, is held once.
        ...["-n", String(processes), "--dist", "loadfile"],
      ],
      {
        cwd: worker,
        stdio: "inherit",
        timeout: SUITE_TIMEOUT_MS,
        env: {
          ...process.env,
          PYTHONPATH: [join(worker, "src"), sources].join(delimiter),
          PYTHONDONTWRITEBYTECODE: "1",
          VLLM_TARGET_DEVICE: "empty",
        },
      },
    );
    const counts = existsSync(report) ? fromJunit(report) : NONE;
    const unexplained = status !== 0 && counts.failed === 0;
    const empty = counts.passed + counts.failed === 0;
    if (!unexplained && !empty) return counts;
    console.error(
      `vLLM ${version}: pytest ended with ${status ?? "a time limit"} after no failure.`,
    );
    return { ...counts, failed: counts.failed + 1 };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function skipped(what, error) {
  console.error(`SKIPPED: ${what}: ${error.message}`);
  return { ...NONE, skipped: 1 };
}

function total(versions) {
  let interpreter;
  try {
    interpreter = python();
  } catch (error) {
    return skipped("tests against vLLM's own classes", error);
  }
  const each = versions.map((version) => {
    try {
      return run(interpreter, version);
    } catch (error) {
      return skipped(`tests against vLLM ${version}'s own classes`, error);
    }
  });
  console.log("");
  // Not in the form of the last line, which is the sum for whoever reads only that.
  for (const [i, version] of versions.entries()) console.log(`vLLM ${version}: ${line(each[i])}`);
  return each.reduce(add, NONE);
}

/** @returns the exit code */
function main(argv) {
  const onlyPrepares = argv[0] === "--prepare";
  const given = onlyPrepares ? argv.slice(1) : argv;
  const unknown = given.find((each) => !isVersion(each));
  if (unknown !== undefined) {
    console.error(
      `Expected versions of vLLM as 0.33.0, got "${unknown}"; name none for all of them.`,
    );
    return 2;
  }
  const versions = given.length > 0 ? given : VERSIONS;
  if (onlyPrepares) {
    try {
      const interpreter = python();
      for (const version of versions) sourcesOf(version, interpreter);
      return 0;
    } catch (error) {
      console.error(`What the tests against vLLM's own classes need: ${error.message}.`);
      return 1;
    }
  }
  const counts = total(versions);
  console.log(line(counts));
  return counts.failed > 0 ? 1 : 0;
}

process.exitCode = main(process.argv.slice(2));

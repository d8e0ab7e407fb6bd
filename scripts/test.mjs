/**
 * `npm test`: builds, then all default suites, then one line with the sum.
 * Works after a plain `npm install` in a fresh clone. The exit code is 0 only if every build and
 * every test passed and no suite was empty. Without OpenAI's client for Python the gateway's
 * tests of it are skipped; REQUIRE_OPENAI_PYTHON=1 makes that a failure.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { add, fromJunit, fromVitest, line, NONE } from "./counts.mjs";
import { ensureOpenaiPython } from "./openai-python.mjs";
import { kept } from "./processes.mjs";
import { ensureVenv } from "./python.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const worker = join(root, "worker");
const bin = (name) => join(root, "node_modules", ".bin", name);
const reports = mkdtempSync(join(tmpdir(), "lazygraph-test-"));
const VENV_TIMEOUT_MS = 300_000;
const SUITE_TIMEOUT_MS = 1_200_000;

/** The exit code; 1 where it can't be started or is ended by a signal. */
async function execute(file, args) {
  const child = spawn(file, args, { cwd: root, stdio: "inherit", timeout: SUITE_TIMEOUT_MS });
  const [status] = await once(child, "exit").catch((error) => {
    console.error(`${file}: ${error.message}`);
    return [1];
  });
  return status ?? 1;
}

async function build(script) {
  console.error(`\n# npm run ${script}`);
  return (await execute("npm", ["run", "--silent", script])) === 0
    ? NONE
    : failure(`npm run ${script} failed; the tests need what it builds`);
}

function failure(sentence) {
  console.error(`lazygraph test: ${sentence}.`);
  return { ...NONE, failed: 1 };
}

/** A suite's counts; an exit code that they don't explain, and an empty suite, count as failed. */
function counted(name, status, report, read) {
  if (!existsSync(report)) return failure(`${name} wrote no report (exit code ${status})`);
  const counts = read(report);
  if (counts.passed + counts.failed === 0) {
    return add(counts, failure(`${name} ran no test (exit code ${status})`));
  }
  if (status !== 0 && counts.failed === 0) {
    return add(counts, failure(`${name} ended with exit code ${status}`));
  }
  return counts;
}

/**
 * Hands OpenAI's client for Python to the gateway's tests. It comes from the network, so a machine
 * without one skips them, with the reason, unless they are required.
 */
function openaiClient() {
  try {
    process.env.LAZYGRAPH_OPENAI_PYTHON = ensureOpenaiPython();
    return NONE;
  } catch (error) {
    const sentence = `the gateway's tests with OpenAI's client for Python can't run: ${error.message}`;
    if (process.env.REQUIRE_OPENAI_PYTHON === "1") return failure(sentence);
    console.error(`SKIPPED: ${sentence}.`);
    return NONE;
  }
}

async function vitest(filters) {
  console.error("\n# vitest");
  const report = join(reports, "vitest.json");
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const status = await execute(bin("vitest"), ["run", ...reporters, ...filters]);
  return counted("vitest", status, report, fromVitest);
}

/** The worker's Python, for its own tests and for those that let both sides speak. */
function venv() {
  const requirements = join(worker, "requirements-dev.txt");
  // The plugin itself comes from worker/src and not from an install, so that a build back end
  // needn't be downloaded and an edit needs no new install.
  return ensureVenv(join(worker, ".venv"), [["-r", requirements]], {
    timeoutMs: VENV_TIMEOUT_MS,
    inputs: [requirements],
  });
}

async function pytest(python) {
  const report = join(reports, "pytest.xml");
  const environment = { ...process.env, PYTHONPATH: join(worker, "src") };
  // Those two need vLLM, the second a GPU as well: scripts/vllm-contract.mjs, scripts/gpu-tests.mjs.
  const elsewhere = ["vllm_contract", "gpu"].map((name) => `--ignore=tests/${name}`);
  const args = ["-m", "pytest", `--junit-xml=${report}`, ...elsewhere];
  const { status, output } = await kept(python, args, {
    cwd: worker,
    env: environment,
    timeout: SUITE_TIMEOUT_MS,
  });
  console.error(`\n# pytest (worker/)\n${output}`);
  return counted("pytest", status ?? 1, report, fromJunit);
}

const filters = process.argv.slice(2);
let total = NONE;
try {
  total = add(await build("build:native"), await build("build:ts"));
  let python;
  try {
    python = venv();
  } catch (error) {
    total = add(total, failure(`the Python tests can't run: ${error.message}`));
  }
  const gateway = filters.length === 0 || filters.some((filter) => filter.includes("gateway"));
  if (gateway) total = add(total, openaiClient());
  // `npm test -- test/cli` is for working on one part: it leaves the Python side out.
  const isWhole = filters.length === 0 && python !== undefined;
  // Beside each other: the Python tests mostly wait for processes.
  const suites = await Promise.all([vitest(filters), isWhole ? pytest(python) : NONE]);
  total = suites.reduce(add, total);
} finally {
  rmSync(reports, { recursive: true, force: true });
}
console.log(`\n${line(total)}`);
process.exitCode = total.failed > 0 ? 1 : 0;

/**
 * The plugin against vLLM's own classes, without a GPU: `worker/tests/vllm_contract`.
 *
 * vLLM comes from its wheel into an environment outside the clone, made once (a few minutes) and
 * kept. Where it can't be installed that is said and counted as skipped, not as passed.
 * LAZYGRAPH_VLLM_PYTHON names a Python that has vLLM and pytest already.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { fromJunit, line, NONE } from "./counts.mjs";
import { cacheFolder, ensureVenv } from "./python.mjs";

const VLLM = "0.26.0";
const TORCH = "2.11.0";
const INSTALL_TIMEOUT_MS = 900_000;
const SUITE_TIMEOUT_MS = 600_000;

const worker = fileURLToPath(new URL("../worker", import.meta.url));

function python() {
  const given = process.env.LAZYGRAPH_VLLM_PYTHON;
  if (given !== undefined) return given;
  const cache = cacheFolder();
  const requirements = join(worker, "requirements-vllm-contract.txt");
  console.error(`# vLLM ${VLLM} in ${cache} (a few minutes the first time)`);
  return ensureVenv(
    join(cache, `vllm-${VLLM}`),
    [[`torch==${TORCH}`], ["--no-deps", `vllm==${VLLM}`], ["-r", requirements]],
    { timeoutMs: INSTALL_TIMEOUT_MS, inputs: [requirements] },
  );
}

function run(interpreter) {
  const folder = mkdtempSync(join(tmpdir(), "lazygraph-contract-"));
  const report = join(folder, "pytest.xml");
  try {
    const { status } = spawnSync(
      interpreter,
      ["-m", "pytest", "tests/vllm_contract", `--junit-xml=${report}`],
      {
        cwd: worker,
        stdio: "inherit",
        timeout: SUITE_TIMEOUT_MS,
        env: { ...process.env, PYTHONPATH: join(worker, "src"), VLLM_TARGET_DEVICE: "empty" },
      },
    );
    const counts = existsSync(report) ? fromJunit(report) : NONE;
    const unexplained = status !== 0 && counts.failed === 0;
    const empty = counts.passed + counts.failed === 0;
    if (!unexplained && !empty) return counts;
    console.error(`vLLM contract: pytest ended with ${status ?? "a time limit"} after no failure.`);
    return { ...counts, failed: counts.failed + 1 };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

let counts;
try {
  const interpreter = python();
  counts = run(interpreter);
} catch (error) {
  console.error(`SKIPPED: tests against vLLM's own classes: ${error.message}`);
  counts = { ...NONE, skipped: 1 };
}
console.log(line(counts));
process.exitCode = counts.failed > 0 ? 1 : 0;

/**
 * Tests that need a GPU and a vLLM of the user's own: `worker/tests/gpu`, with the Python that
 * LAZYGRAPH_VLLM_PYTHON names (default python3). Skipped, with the reason, where there is none of
 * them; REQUIRE_GPU=1 makes that a failure.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { fromJunit, line, NONE } from "./counts.mjs";

const SUITE_TIMEOUT_MS = 3_600_000;
const worker = fileURLToPath(new URL("../worker", import.meta.url));
const suite = join(worker, "tests", "gpu");
const python = process.env.LAZYGRAPH_VLLM_PYTHON ?? "python3";

/** Why the suite can't run here, or undefined. */
function missing() {
  if (!existsSync(suite) || !readdirSync(suite).some((name) => name.startsWith("test_"))) {
    return "this checkout has no GPU tests";
  }
  const gpus = spawnSync("nvidia-smi", ["-L"], { encoding: "utf8", timeout: 30_000 });
  if (gpus.status !== 0) return "no NVIDIA GPU on this host (nvidia-smi -L)";
  const probe = "import vllm, pytest, torch; raise SystemExit(not torch.cuda.is_available())";
  const vllm = spawnSync(python, ["-c", probe], { encoding: "utf8", timeout: 120_000 });
  return vllm.status === 0 ? undefined : `${python} has no vLLM, pytest or usable CUDA`;
}

function run() {
  const folder = mkdtempSync(join(tmpdir(), "lazygraph-gpu-"));
  const report = join(folder, "pytest.xml");
  try {
    const { status } = spawnSync(python, ["-m", "pytest", suite, `--junit-xml=${report}`], {
      cwd: worker,
      stdio: "inherit",
      timeout: SUITE_TIMEOUT_MS,
      env: { ...process.env, PYTHONPATH: join(worker, "src") },
    });
    const counts = existsSync(report) ? fromJunit(report) : NONE;
    const empty = counts.passed + counts.failed === 0;
    const unexplained = status !== 0 && counts.failed === 0;
    return empty || unexplained ? { ...counts, failed: counts.failed + 1 } : counts;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const reason = missing();
let counts;
if (reason === undefined) counts = run();
else if (process.env.REQUIRE_GPU === "1") {
  console.error(`FAILED: GPU tests are required and can't run: ${reason}.`);
  counts = { ...NONE, failed: 1 };
} else {
  console.error(`SKIPPED: GPU tests: ${reason}.`);
  counts = { ...NONE, skipped: 1 };
}
console.log(line(counts));
process.exitCode = counts.failed > 0 ? 1 : 0;

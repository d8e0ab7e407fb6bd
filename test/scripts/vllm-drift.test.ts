/**
 * The static check of vLLM's sources: the pinned versions are as their adapters expect, and a
 * doctored copy of one is not. Each changes one thing, and that hook is named.
 */
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../helpers/folder.ts";
import { REMOVED } from "../helpers/removal.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const ARCHIVE = join(ROOT, "test/vllm-sources/vllm.tar.xz");
const GENERATIONS = { v26: "0.26.0", v31: "0.33.0" } as const;

interface Python {
  findPython(): { file: string } | undefined;
}
const { findPython }: Python = await import(new URL("scripts/python.mjs", `file://${ROOT}`).href);
const python = findPython()?.file ?? "python3";

interface Sources {
  VERSIONS: readonly string[];
}
const { VERSIONS }: Sources = await import(
  new URL("scripts/vllm-sources.mjs", `file://${ROOT}`).href
);

interface Answer {
  code: number;
  stdout: string;
  stderr: string;
  /** The hooks its first line names. */
  hooks: string[];
}

function hooksOf(stdout: string): string[] {
  return /hooks changed: (.*)\.$/m.exec(stdout)?.[1]?.split(", ") ?? [];
}

function drift(...args: string[]): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const script = join(ROOT, "scripts/vllm-drift.mjs");
    execFile(process.execPath, [script, ...args], { cwd: ROOT }, (error, stdout, stderr) => {
      const code = error?.code ?? 0;
      if (typeof code !== "number") return reject(error);
      resolve({ code, stdout, stderr, hooks: hooksOf(stdout) });
    });
  });
}

let unpacked: string;
beforeAll(async () => {
  unpacked = await mkdtemp(join(tmpdir(), "lazygraph-"));
  execFileSync(python, ["-m", "tarfile", "-e", ARCHIVE, unpacked]);
  return () => rm(unpacked, REMOVED);
});

/** A copy of a version's files with `from` replaced by `to` in one. */
async function doctored(version: string, file: string, from: string, to: string): Promise<string> {
  const copy = await mkdtemp(join(unpacked, "copy-"));
  await cp(join(unpacked, version), copy, { recursive: true });
  const path = join(copy, "vllm", file);
  const text = await readFile(path, "utf8");
  expect(text).toContain(from);
  await writeFile(path, text.replaceAll(from, to));
  return copy;
}

test("the pinned versions are as their adapters expect", async () => {
  const { code, stdout } = await drift();
  expect(code).toBe(0);
  const lines = stdout.trimEnd().split("\n");
  expect(lines.map((text) => /^vLLM (\S+), adapter v\d+: \d+ /.exec(text)?.[1])).toEqual(VERSIONS);
});

test.for(Object.entries(GENERATIONS))(
  "%s: a copy that was not touched passes",
  async ([name, version]) => {
    const { code, stdout } = await drift(join(unpacked, version));
    expect(stdout).toMatch(new RegExp(`^vLLM ${version}, adapter ${name}: \\d+ expectations hold`));
    expect(code).toBe(0);
  },
);

const UTILS = "v1/worker/gpu/cudagraph_utils.py";
const CORE = "v1/engine/core.py";
const STATE = "distributed/parallel_state.py";
const SPEC = "v1/worker/gpu/spec_decode";
const KIMI = "models/kimi_k3/nvidia";

/** Hook, file, what is replaced and by what. */
const BOTH: [string, string, string, string][] = [
  // A renamed hook.
  [
    "EngineCoreProc._process_engine_step",
    CORE,
    "def _process_engine_step(",
    "def _process_one_step(",
  ],
  ["AsyncOutput.get_output", "v1/worker/gpu/async_utils.py", "def get_output(", "def output("],
  ["CUDAGraphWrapper._all_instances", "compilation/cuda_graph.py", "_all_instances", "_every"],
  ["jit_monitor._mode", "utils/jit_monitor.py", "_mode", "_monitoring"],
  // A changed signature: one more parameter, and one that we pass is gone.
  [
    "Executor.determine_available_memory",
    "v1/executor/abstract.py",
    "def determine_available_memory(self)",
    "def determine_available_memory(self, margin: int = 0)",
  ],
  ["Worker", "v1/worker/gpu_worker.py", "class Worker(WorkerBase)", "class Worker(Other)"],
  // A new field of a descriptor.
  [
    "BatchExecutionDescriptor",
    UTILS,
    "    num_active_loras: int = 0\n",
    "    num_active_loras: int = 0\n    num_images: int = 0\n",
  ],
  // Bodies that go another way.
  ["CudaGraphManager.capture", UTILS, "self._capture_descs[mode]", "self._planned[mode]"],
  [
    "EngineCoreProc.run_busy_loop",
    CORE,
    "            self._process_input_queue()\n",
    "            self._poll()\n",
  ],
  // A configuration's attribute.
  ["ParallelConfig.enable_dbo", "config/parallel.py", "enable_dbo:", "enable_overlap:"],
  // What is read of a loaded model.
  ["FlashAttentionImpl.alibi_slopes", "v1/attention/backends/flash_attn.py", ".alibi_", "._"],
];

const ONLY_V31: [string, string, string, string][] = [
  ["KimiK3KDAAttentionBackend.get_name", `${KIMI}/kda_metadata.py`, "KIMI_K3_KDA", "KDA"],
  ["KimiLinearForCausalLM.specialized_decode_config", `${KIMI}/model.py`, "self.spec", "self._"],
  [
    "parallel_state.graph_capture",
    STATE,
    ", dp.graph_capture(context):",
    ", dp.graph_capture(context), ep.graph_capture(context):",
  ],
  [
    "EngineCore._initialize_kv_caches",
    CORE,
    "self.model_executor.compile_or_warm_up_model()",
    "self.model_executor.warm_up()",
  ],
  [
    "CudaGraphManager.dispatch",
    UTILS,
    "max_query_len=None, num_ubatches=1)",
    "max_query_len=None, num_slices=1)",
  ],
  [
    "Worker.determine_available_memory",
    "v1/worker/gpu_worker.py",
    "self.model_runner.profile_cudagraph_memory()",
    "self.model_runner.estimate_cudagraph_memory()",
  ],
  ["GPUModelRunner.capture_model", "v1/worker/gpu/model_runner.py", "lock_workspace()", "pass"],
  // Of breakable graphs: what ends a recording, and where attention breaks it.
  [
    "BreakableCUDAGraphCapture.__exit__",
    "compilation/breakable_cudagraph.py",
    "            BreakableCUDAGraphCapture._tls.active = None\n",
    "            BreakableCUDAGraphCapture._tls.current = None\n",
  ],
  [
    "attention.unified_attention_with_output",
    "model_executor/layers/attention/attention.py",
    "@eager_break_during_capture\n",
    "@recorded\n",
  ],
  // Of a KV connector: what switches it off, and what its thread does last.
  [
    "ActiveKVConnector.set_disabled",
    "v1/worker/gpu/kv_connector.py",
    "        self._disabled = disabled\n",
    "        pass\n",
  ],
  [
    "DmaCopyBackend._copy_loop",
    "v1/simple_kv_offload/copy_backend.py",
    "            events_list.append((event_idx, event))\n",
    "            events_list.append(event)\n",
  ],
  // Of a pipeline's stages: what a graph reads and writes, and when the next step may write.
  [
    "ModelCudaGraphManager.capture",
    UTILS,
    "self.intermediate_tensors[k][:num_tokens] = v",
    "self.intermediate_tensors[k] = v",
  ],
  [
    "GPUModelRunner.execute_model",
    "v1/worker/gpu/model_runner.py",
    "v[:n].copy_(intermediate_tensors.tensors[k][:n])",
    "intermediate_tensors.tensors[k][:n]",
  ],
  ["Worker.execute_model", "v1/worker/gpu_worker.py", "handle.wait()", "handle"],
  // Of a drafter: its base, what it captures, by what it dispatches, whose a dummy row is.
  [
    "EagleSpeculator",
    `${SPEC}/eagle/speculator.py`,
    "class EagleSpeculator(TargetDependentARSpeculator)",
    "class EagleSpeculator(DraftModelSpeculator)",
  ],
  [
    "TargetDependentARSpeculator.capture",
    `${SPEC}/target_dependent_ar/speculator.py`,
    "        self.idx_mapping.zero_()\n",
    "        self.idx_mapping.zero_()\n        self.idx_mapping.zero_()\n",
  ],
  [
    "TargetDependentARSpeculator.propose",
    `${SPEC}/target_dependent_ar/speculator.py`,
    "num_tokens_padded = input_batch.num_tokens_after_padding",
    "num_tokens_padded = input_batch.num_tokens",
  ],
  [
    "gumbel.gumbel_block_argmax",
    "v1/worker/gpu/sample/gumbel.py",
    "mask=mask & is_valid_req",
    "mask=mask",
  ],
  [
    "StandaloneARSpeculator.capture",
    `${SPEC}/standalone_ar/speculator.py`,
    "    def capture(self) -> None:\n        pass",
    "    def capture(self) -> None:\n        self.manager.capture(self._prefill)",
  ],
];

const ONLY_V26: [string, string, string, string][] = [
  [
    "parallel_state.graph_capture",
    STATE,
    "get_pp_group().graph_capture(context)",
    "get_ep_group().graph_capture(context)",
  ],
];

const CASES = [
  ...BOTH.flatMap(([hook, ...change]) =>
    Object.values(GENERATIONS).map((version) => ({ hook, version, change })),
  ),
  ...ONLY_V26.map(([hook, ...change]) => ({ hook, version: GENERATIONS.v26, change })),
  ...ONLY_V31.map(([hook, ...change]) => ({ hook, version: GENERATIONS.v31, change })),
];

describe("a doctored copy", () => {
  // All by one call: what the copies share is looked at once.
  let blocks: string[];
  beforeAll(async () => {
    const copies = CASES.map(({ version, change }) => doctored(version, ...change));
    const { code, stdout } = await drift(...(await Promise.all(copies)));
    expect(code).toBe(1);
    blocks = stdout.split(/^(?=vLLM )/m);
    expect(blocks).toHaveLength(CASES.length);
  });

  test.for(CASES.map((each, at) => ({ ...each, at })))(
    "$version with a changed $hook: that one is named",
    ({ hook, version, at }) => {
      expect(blocks[at]).toMatch(new RegExp(`^vLLM ${version}, adapter v`));
      expect(hooksOf(blocks[at] ?? "")).toEqual([hook]);
    },
  );
});

test("one alone: exit code 1", async () => {
  const copy = await doctored(
    "0.33.0",
    CORE,
    "def _process_engine_step(",
    "def _process_one_step(",
  );
  const { code, hooks } = await drift(copy);
  expect(hooks).toEqual(["EngineCoreProc._process_engine_step"]);
  expect(code).toBe(1);
});

const METHOD = `class A:
    """D."""
    # c
    tensors: int = 1
    """D."""
    other: int = 1

    def f(self, x: int = 2) -> int:
        """D."""
        self.b, y = x, 1
        self.tensors = y

    def g(self):
        return 1
`;
const LEFT = `class A:
    tensors: ... = ...

    def f(self, x=2):
        """left out of the archive"""
        self.tensors = ...
`;

const HEAD = "def run_busy_loop(self):\n";
test.for([
  ["EngineCoreProc.run_busy_loop", CORE, HEAD, `${HEAD}        """left out of the archive"""\n`],
  ["BatchExecutionDescriptor", UTILS, "num_active_loras: int = 0", "num_active_loras: ... = ..."],
] as const)("what an archive has left out of %s is seen", async ([hook, file, from, to]) => {
  const copy = await doctored("0.33.0", file, from, to);
  const { code, hooks, stdout } = await drift(copy);
  expect(hooks).toEqual([hook]);
  expect(stdout).toContain("was not looked into when the archive was written: write it again");
  expect(code).toBe(1);
});

test("an archive keeps what checks look at, and stays as it is where a file is no Python", async () => {
  const folder = await temporaryFolder();
  const [archive, place] = [join(folder, "kept.tar.xz"), join(folder, "vllm")];
  const keep = () => {
    const args = ["-m", "vllm_drift", "--archive", archive, "--keep", place];
    const env = { ...process.env, PYTHONPATH: join(ROOT, "scripts"), PYTHONDONTWRITEBYTECODE: "1" };
    return spawnSync(python, args, { env, encoding: "utf8" });
  };
  await mkdir(place);
  await writeFile(join(place, "_version.py"), '__version__ = "0.99.0"\n');
  const licence = "# SPDX-License-Identifier: Apache-2.0\n";
  await writeFile(join(place, "sequence.py"), `${licence}"""D."""\n${METHOD}`);
  keep();
  execFileSync(python, ["-m", "tarfile", "-e", archive, folder]);
  const kept = await readFile(join(folder, "0.99.0/vllm/sequence.py"), "utf8");
  expect(kept).toBe(`${licence}${LEFT}`);
  const before = await readFile(archive);
  await writeFile(join(place, "sequence.py"), "def (\n");
  const { status, stderr } = keep();
  expect(status).toBe(2);
  expect(stderr).toMatch(/^expected Python in vllm\/sequence\.py of .* in line 1; name a .*\.\n$/);
  expect(await readFile(archive)).toEqual(before);
});

test("a version that no adapter is for is compared with the newest, and says so", async () => {
  const copy = await doctored("0.33.0", "_version.py", "0.33.0", "0.99.0");
  const { code, stdout } = await drift(copy);
  expect(stdout).toMatch(/^vLLM 0\.99\.0, adapter v31 \(no adapter is for this version;/);
  expect(code).toBe(0);
});

test("an older version held against a newer adapter names what moved", async () => {
  const { code, hooks } = await drift("--adapter", "v31", join(unpacked, "0.26.0"));
  expect(hooks).toContain("Executor.compile_or_warm_up_model");
  expect(hooks).toContain("parallel_state.graph_capture");
  expect(code).toBe(1);
});

test.for([
  [["--newst"], /Unknown option '--newst'/],
  [["no-such-place"], /got "no-such-place"; name one that exists/],
  [["--adapter", "v99"], /invalid choice: 'v99'/],
  [[import.meta.dirname], /expected vLLM's sources with vllm\/_version\.py/],
  [[import.meta.filename], /expected a wheel or a folder of vLLM/],
] as const)("usage: %s", async ([args, sentence]) => {
  const { code, stderr, stdout } = await drift(...args);
  expect(stderr).toMatch(sentence);
  expect(stdout).toBe("");
  expect(code).toBe(2);
});

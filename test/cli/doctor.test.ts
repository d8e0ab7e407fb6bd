import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  type AddonFact,
  blockers,
  checkAddon,
  checkDriver,
  checkGpus,
  checkNode,
  checkPython,
  type Finding,
} from "../../src/cli/doctor-checks.ts";
import { openGpuMemory } from "../../src/gpu/memory.ts";
import { FAKE_NVML, fakeSmi, GIB, nvmlScript, scratch, UUID } from "../gpu-memory/fake.ts";
import { type Finished, lazygraph } from "./helpers/command.ts";

function doctor(args: readonly string[], env: NodeJS.ProcessEnv): Promise<Finished> {
  return lazygraph(["doctor", ...args], env).finished;
}

/** What Python takes for installed packages. */
function site(packages: Readonly<Record<string, string>>, entryPoints = ""): NodeJS.ProcessEnv {
  const folder = scratch();
  for (const [name, version] of Object.entries(packages)) {
    const info = join(folder, `${name.replaceAll("-", "_")}-${version}.dist-info`);
    mkdirSync(info);
    writeFileSync(
      join(info, "METADATA"),
      `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n`,
    );
    if (name === "lazygraph-vllm") writeFileSync(join(info, "entry_points.txt"), entryPoints);
  }
  return { PYTHONPATH: folder };
}

const ENTRY = "[vllm.general_plugins]\nlazygraph = lazygraph_vllm.plugin:register\n";
const COMPLETE = { vllm: "0.26.0", torch: "2.9.0", "lazygraph-vllm": "0.1.0" };
const H200 = `device ${UUID} name=NVIDIA_H200 total=${140 * GIB} free=${100 * GIB} cc=9.0`;

function gpu(...lines: string[]): NodeJS.ProcessEnv {
  return { LAZYGRAPH_NVML_PATH: FAKE_NVML, LAZYGRAPH_FAKE_NVML: nvmlScript(lines) };
}

function named(stdout: string, name: string): Finding {
  const { findings } = JSON.parse(stdout) as { findings: Finding[] };
  const found = findings.find((finding) => finding.name === name);
  if (found === undefined) throw new Error(`no finding ${name} in ${stdout}`);
  return found;
}

test("a host with everything is usable, and the document says what it has", async () => {
  const run = await doctor(["--json"], { ...gpu(H200), ...site(COMPLETE, ENTRY) });
  expect(run).toMatchObject({ code: 0, stderr: "" });
  const document = JSON.parse(run.stdout) as Record<string, unknown>;
  expect(document).toMatchObject({
    for: "run",
    ok: true,
    usable: { run: true, serve: true },
    devices: [{ uuid: UUID, freeBytes: 100 * GIB }],
    faults: [],
  });
  expect(named(run.stdout, "plugin").found).toBe("0.1.0, loaded by vLLM as `lazygraph`");
  expect(named(run.stdout, "vllm").found).toBe("0.26.0, torch 2.9.0");
});

test("a bare host is not, says why and what to do, but can serve", async () => {
  const bare = { LAZYGRAPH_NVML_PATH: "/nowhere/libnvidia-ml.so.1", ...site({}) };
  const run = await doctor([], bare);
  expect(run.code).toBe(1);
  expect(run.stdout).toMatch(/^MISS driver +none$/m);
  expect(run.stdout).toMatch(/^MISS gpu +none$/m);
  expect(run.stdout).toContain("pip install ./worker` in a checkout of lazygraph");
  // No index has it.
  expect(run.stdout).not.toContain("pip install lazygraph-vllm");
  // The verdict comes last, what it rests on above it.
  const lines = run.stdout.trimEnd().split("\n");
  expect(lines.at(-1)).toContain(
    "can't run an engine under `lazygraph run`: driver, gpu, vllm, plugin",
  );
  expect(lines.slice(-24).join("\n")).toMatch(/^ok +node /m);
  expect((await doctor(["--for", "serve"], bare)).code).toBe(0);
});

const unfit: readonly (readonly [string, string, () => NodeJS.ProcessEnv, string])[] = [
  ["an untried vLLM", "vllm", () => site({ ...COMPLETE, vllm: "0.27.1" }, ENTRY), "0.26.0"],
  ["a plugin that vLLM doesn't see", "plugin", () => site(COMPLETE), "entry point"],
  ["a plugin that is shut out", "plugin", () => ({ VLLM_PLUGINS: "other" }), "VLLM_PLUGINS=other"],
];
for (const [what, name, env, why] of unfit) {
  test(`${what} is found`, async () => {
    const run = await doctor(["--json"], { ...gpu(H200), ...site(COMPLETE, ENTRY), ...env() });
    expect(run.code).toBe(1);
    expect(named(run.stdout, name)).toMatchObject({
      status: "missing",
      why: expect.stringContaining(why),
      remedy: expect.stringMatching(/./),
    });
  });
}

test("a Python that is missing, and one that is none, are told apart", async () => {
  const missing = await doctor(["--json", "--python", "/nowhere/python3"], gpu(H200));
  expect(missing.code).toBe(1);
  expect(named(missing.stdout, "python")).toMatchObject({ found: "none" });
  const { program } = fakeSmi("*) echo hello ;;");
  const other = await doctor(["--json", "--python", program], gpu(H200));
  expect(named(other.stdout, "python")).toMatchObject({ found: "does not answer" });
});

test("a broken driver is not a missing one", async () => {
  const run = await doctor(["--json"], { ...gpu("init 18"), ...site(COMPLETE, ENTRY) });
  expect(run.code).toBe(1);
  expect(named(run.stdout, "driver")).toMatchObject({
    found: "does not answer",
    remedy: expect.stringContaining("restart the host"),
  });
});

test("one good GPU is enough, a lost one is reported", async () => {
  const env = { ...gpu("device GPU-a handle=15", H200), ...site(COMPLETE, ENTRY) };
  const run = await doctor(["--json"], env);
  expect(run.code).toBe(0);
  const { findings, faults } = JSON.parse(run.stdout) as { findings: Finding[]; faults: unknown[] };
  const gpus = findings.filter((finding) => finding.name === "gpu");
  expect(gpus.map((finding) => finding.status)).toEqual(["ok", "missing"]);
  expect(faults).toMatchObject([{ index: 0, error: { code: "ERR_LAZYGRAPH_GPU_LOST" } }]);
});

test("what has no figures is not told to be reset", async () => {
  const script = gpu(
    "device GPU-parent name=NVIDIA_H200 mig=1 total=1 free=!4",
    "instance MIG-one name=NVIDIA_H200_MIG_1g.18gb total=100 free=90 cc=9.0",
    "device GPU-v name=Virtual total=1 free=!3",
  );
  const run = await doctor(["--json"], { ...script, ...site(COMPLETE, ENTRY) });
  expect(run.code).toBe(0);
  const { findings } = JSON.parse(run.stdout) as { findings: Finding[] };
  const gpus = findings.filter(({ name }) => name === "gpu");
  expect(gpus.map(({ status, found }) => [status, found.slice(0, 30)])).toEqual([
    ["ok", "0: NVIDIA H200 MIG 1g.18gb, 0."],
    ["ok", "0: divided by MIG, GPU-parent"],
    ["missing", "1: tells no memory"],
  ]);
  expect(run.stdout).not.toContain("reset");
});

test("a warning of nvidia-smi is told, and its rows count", async () => {
  const row = `0, ${UUID}, NVIDIA H200, 570, 9000, 8000, 1000, 1, 9.0, Disabled`;
  const { folder } = fakeSmi(
    `--query-gpu*) echo "WARNING: infoROM is corrupted"; echo "${row}"; exit 14 ;;`,
  );
  const run = await doctor(["--json"], {
    LAZYGRAPH_NVML_PATH: "/nowhere/libnvidia-ml.so.1",
    PATH: `${folder}:${process.env["PATH"]}`,
    ...site(COMPLETE, ENTRY),
  });
  expect(run.code).toBe(0);
  expect(named(run.stdout, "nvidia-smi")).toMatchObject({
    status: "warning",
    why: "WARNING: infoROM is corrupted",
  });
  expect(named(run.stdout, "gpu").status).toBe("ok");
});

test.each([
  [["--for", "everything"], /Expected --for to be run or serve, got "everything"/],
  [["--pyton", "x"], /got the unknown option "--pyton": did you mean --python\?/],
  [["x"], /Expected only options/],
  [["vllm", "serve", "m"], /Expected `--` before the command, got "vllm" without/],
])("wrong usage %j ends with 2 and one sentence", async (args, sentence) => {
  const run = await doctor(args, {});
  expect(run).toMatchObject({ code: 2, stdout: "" });
  expect(run.stderr.trim().split("\n")).toHaveLength(1);
  expect(run.stderr).toMatch(sentence);
});

test("an addon that doesn't load is a warning as long as nvidia-smi answers", async () => {
  const addon: AddonFact = { ok: false, reason: "ADDON_MISSING", message: "none here" };
  const { program } = fakeSmi(`--query-gpu*) echo "0, ${UUID}, H200, 1, 9, 9, 0, 0, 9.0, -" ;;`);
  const smi = await openGpuMemory({ addonPaths: [], nvidiaSmiPath: program });
  const nvml = await openGpuMemory({ addonPaths: [], sources: ["nvml"] });
  if (!smi.available) throw new Error(smi.message);
  const findings = [
    checkNode("v20.19.0", "linux-x64"),
    checkAddon(addon),
    checkDriver(nvml, addon),
    ...checkGpus(await smi.survey(), ""),
    ...checkPython("python3", { ok: true, facts: COMPLETE_FACTS }, undefined, ["0.26.0"]),
  ];
  expect(findings.map((finding) => finding.status)).toEqual([
    "ok",
    "warning",
    "warning",
    "ok",
    "ok",
    "ok",
    "ok",
  ]);
  expect(blockers(findings, "run")).toEqual([]);
  await smi.close();
});

const COMPLETE_FACTS = {
  executable: "/usr/bin/python3",
  version: "3.12.0",
  vllm: "0.26.0+cu129",
  plugin: "0.1.0",
  entryPoint: "lazygraph",
};

test("an old Node blocks every role, an untried GPU none", () => {
  const old = checkNode("v20.18.3", "linux-x64");
  expect(blockers([old], "serve")).toEqual([old]);
  const device = { index: 0, uuid: "GPU-a", name: "T4", mig: "off", totalBytes: 1 } as const;
  const more = { freeBytes: 1, usedBytes: 0, computeCapability: "7.5" };
  const [finding] = checkGpus({ devices: [{ ...device, ...more }], faults: [] }, "");
  expect(finding).toMatchObject({ status: "warning" });
  expect(blockers(finding ? [finding] : [], "run")).toEqual([]);
});

import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { type GpuMemory, type GpuWatchEvent, openGpuMemory } from "../../src/gpu/memory.ts";
import { fakeSmi, Inbox, scratch, UUID } from "./fake.ts";

const MIB = 1024 * 1024;
const HEADER = `"") echo "| NVIDIA-SMI 570.86.10  Driver Version: 570.86.10  CUDA Version: 12.8 |" ;;`;
const PROCESSES = `--query-compute-apps*) echo "${UUID}, 4242, 512" ;;`;

/** Opens a stand-in of nvidia-smi as the only source. */
async function open(arms: string): Promise<{ memory: GpuMemory; folder: string }> {
  const { program, folder } = fakeSmi(arms);
  const memory = await openGpuMemory({ sources: ["nvidia-smi"], nvidiaSmiPath: program });
  if (!memory.available) throw new Error(memory.message);
  onTestFinished(() => memory.close());
  return { memory, folder };
}

function gpuRow(more = ""): string {
  return `0, ${UUID}, NVIDIA H200, 570.86.10, 143771, 100000, 43000${more}`;
}

describe("nvidia-smi as the source", () => {
  it("answers where the addon can't, and says what was skipped", async () => {
    const { program } = fakeSmi(
      `${HEADER}\n${PROCESSES}\n--query-gpu*compute_cap*) echo "${gpuRow(", 771, 9.0, Disabled")}" ;;`,
    );
    const memory = await openGpuMemory({ addonPaths: [], nvidiaSmiPath: program });
    if (!memory.available) throw new Error(memory.message);
    expect(memory).toMatchObject({
      source: "nvidia-smi",
      driverVersion: "570.86.10",
      cudaVersion: "12.8",
      precisionBytes: MIB,
      skipped: [{ source: "nvml", reason: "ADDON_MISSING" }],
    });
    expect(await memory.devices()).toEqual([
      {
        index: 0,
        uuid: UUID,
        name: "NVIDIA H200",
        mig: "off",
        totalBytes: 143771 * MIB,
        freeBytes: 100000 * MIB,
        usedBytes: 43000 * MIB,
        reservedBytes: 771 * MIB,
        computeCapability: "9.0",
        processes: [{ pid: 4242, kind: "compute", usedBytes: 512 * MIB }],
      },
    ]);
    expect((await memory.read(UUID.slice(4))).freeBytes).toBe(100000 * MIB);
    await memory.close();
    await expect(memory.read(UUID)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CLOSED" });
  });

  it("asks an old nvidia-smi for less, and does without processes", async () => {
    const { memory } = await open(
      `*compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2 ;;\n` +
        `--query-gpu*) echo "${gpuRow()}" ;;\n*) exit 1 ;;`,
    );
    const [device] = await memory.devices();
    expect(device).toMatchObject({ uuid: UUID, freeBytes: 100000 * MIB });
    expect(device).not.toHaveProperty("reservedBytes");
    expect(device).not.toHaveProperty("processes");
  });

  it("tells a GPU that is lost from those that answer", async () => {
    const lost =
      "1, [GPU is lost], [GPU is lost], 570, [GPU is lost], [GPU is lost], [GPU is lost]";
    const { memory } = await open(
      `--query-gpu*) printf '%s\\n' "${gpuRow(", 1, 9.0, Enabled")}" "${lost}, 1, 1, 1" ;;`,
    );
    const { devices, faults } = await memory.survey();
    expect(devices).toMatchObject([{ uuid: UUID, mig: "partitioned" }]);
    expect(faults).toMatchObject([{ index: 1, error: { code: "ERR_LAZYGRAPH_GPU_LOST" } }]);
  });

  it("blames no other GPU's fault for a device that is not there", async () => {
    const other = "GPU-00000000-0000-0000-0000-000000000002";
    const lost = `1, ${other}, NVIDIA H200, 570, [GPU is lost], [GPU is lost], [GPU is lost]`;
    const { memory } = await open(
      `--query-gpu*) printf '%s\\n' "${gpuRow(", 1, 9.0, Enabled")}" "${lost}, 1, 1, 1" ;;`,
    );
    const unknown = { code: "ERR_LAZYGRAPH_GPU_UNKNOWN_DEVICE" };
    await expect(memory.read("GPU-x")).rejects.toMatchObject(unknown);
    await expect(memory.read(other)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_GPU_LOST" });
    await expect(memory.read("")).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_OPTION" });
  });

  it("counts rows that come with a warning and an exit code", async () => {
    const warning = "WARNING: infoROM is corrupted at gpu 0000:17:00.0";
    const { memory } = await open(
      `--query-gpu*) printf '%s\\n' "${warning}" "${gpuRow(", 1, 9.0, Disabled")}"; exit 14 ;;`,
    );
    expect(memory.warnings).toEqual([warning]);
    expect(await memory.devices()).toMatchObject([{ uuid: UUID, freeBytes: 100000 * MIB }]);
  });

  it("takes what it says on stderr for the warning, else its exit code", async () => {
    const row = gpuRow(", 1, 9.0, Disabled");
    const said = await open(`--query-gpu*) echo "${row}"; echo "bad infoROM" >&2; exit 14 ;;`);
    expect(said.memory.warnings).toEqual(["bad infoROM (exit code 14)"]);
  });

  it("asks the kernel for a GPU whose memory is the host's", async () => {
    const meminfoPath = join(scratch(), "meminfo");
    writeFileSync(meminfoPath, "MemTotal: 1000 kB\nMemAvailable: 600 kB\n");
    const { program } = fakeSmi(
      `--query-gpu*) echo "0, ${UUID}, NVIDIA GB10, 580.95, [N/A], [N/A], [N/A], [N/A], 12.1, [N/A]" ;;`,
    );
    const options = { sources: ["nvidia-smi"], nvidiaSmiPath: program, meminfoPath } as const;
    const memory = await openGpuMemory(options);
    if (!memory.available) throw new Error(memory.message);
    const [device] = await memory.devices();
    expect(device).toMatchObject({ unified: true, totalBytes: 1_024_000, freeBytes: 614_400 });
    expect(device?.computeCapability).toBe("12.1");
    await memory.close();
  });

  it("names the known devices where one is unknown", async () => {
    const { memory } = await open(`--query-gpu*) echo "${gpuRow(", 1, 9.0, [N/A]")}" ;;`);
    await expect(memory.read("GPU-x")).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_GPU_UNKNOWN_DEVICE",
      message: expect.stringContaining(UUID),
    });
  });

  it("fails with what nvidia-smi said when it stops to work", async () => {
    const folder = scratch();
    const off = join(folder, "off");
    const { memory } = await open(
      `--query-gpu*) test -e ${off} && { echo "Driver/library version mismatch"; exit 18; }\n` +
        `echo "${gpuRow(", 1, 9.0, [N/A]")}" ;;`,
    );
    await memory.devices();
    writeFileSync(off, "");
    await expect(memory.devices()).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_GPU_CALL",
      message: expect.stringContaining("Driver/library version mismatch"),
    });
  });

  it("is killed where it doesn't end by itself", async () => {
    const off = join(scratch(), "off");
    const { memory } = await open(
      `--query-gpu*) test -e ${off} && { trap "" TERM; for i in $(seq 30); do sleep 1; done; }\n` +
        `echo "${gpuRow(", 1, 9.0, [N/A]")}" ;;`,
    );
    writeFileSync(off, "");
    await expect(memory.devices()).rejects.toThrow("no answer within 10 s");
  }, 20_000);

  it("is not available where it is missing, broken or not nvidia-smi", async () => {
    const missing = await openGpuMemory({ addonPaths: [], nvidiaSmiPath: "/nowhere/nvidia-smi" });
    expect(missing).toMatchObject({
      available: false,
      code: "ERR_LAZYGRAPH_GPU_UNAVAILABLE",
      message: expect.stringMatching(/^GPU memory is not available, because nvml: .*nvidia-smi/),
      failures: [{ reason: "ADDON_MISSING" }, { reason: "SMI_NOT_FOUND" }],
    });
    const broken = fakeSmi(`*) echo "couldn't communicate with the NVIDIA driver"; exit 9 ;;`);
    const other = fakeSmi(`*) echo hello ;;`);
    for (const [{ program }, text] of [
      [broken, "couldn't communicate"],
      [other, "hello"],
    ] as const) {
      expect(
        await openGpuMemory({ sources: ["nvidia-smi"], nvidiaSmiPath: program }),
      ).toMatchObject({
        available: false,
        message: expect.stringContaining(text),
        failures: [{ reason: "SMI_FAILED" }],
      });
    }
  });

  it("can be watched, at an interval that it can keep", async () => {
    const folder = scratch();
    const value = join(folder, "free");
    writeFileSync(value, "50000");
    const { memory } = await open(
      `--query-gpu*) echo "0, ${UUID}, H200, 570, 143771, $(cat ${value}), 1, 1, 9.0, [N/A]" ;;`,
    );
    expect(existsSync(value)).toBe(true);
    const inbox = new Inbox<GpuWatchEvent>();
    const watch = await memory.watch(
      { uuid: UUID, intervalMs: 10, belowBytes: 1000 * MIB },
      inbox.push,
    );
    expect(watch.intervalMs).toBe(1000);
    writeFileSync(value, "900");
    expect(await inbox.next()).toMatchObject({
      kind: "below",
      reading: { freeBytes: 900 * MIB },
    });
    writeFileSync(value, "[GPU is lost]");
    expect(await inbox.next()).toMatchObject({
      kind: "fault",
      error: { code: "ERR_LAZYGRAPH_GPU_LOST" },
    });
    await watch.close();
    await watch.closed;
  });
});

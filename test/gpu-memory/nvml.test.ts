import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  type GpuUnavailableReason,
  type GpuWatchEvent,
  openGpuMemory,
} from "../../src/gpu/memory.ts";
import {
  FAKE_NVML,
  GIB,
  Inbox,
  LiveValue,
  linesOf,
  nvmlScript,
  openFake,
  openScript,
  scratch,
  UUID,
} from "./fake.ts";

const H200 = `device ${UUID} name=NVIDIA_H200 total=150754820096 reserved=600000001 free=100000000003 cc=9.0`;

describe("devices", () => {
  it("have identity, exact memory, processes and capability", async () => {
    const memory = await openFake([
      "driver 570.86.10",
      "cuda 12080",
      H200,
      `process ${UUID} pid=41 used=1048577`,
      `process ${UUID} pid=42 used=none graphics=1`,
    ]);
    expect(memory).toMatchObject({
      source: "nvml",
      skipped: [],
      driverVersion: "570.86.10",
      cudaVersion: "12.8",
      precisionBytes: 1,
    });
    expect(await memory.devices()).toEqual([
      {
        index: 0,
        uuid: UUID,
        name: "NVIDIA H200",
        mig: "off",
        computeCapability: "9.0",
        totalBytes: 150754820096,
        reservedBytes: 600000001,
        freeBytes: 100000000003,
        usedBytes: 150754820096 - 600000001 - 100000000003,
        processes: [
          { pid: 41, kind: "compute", usedBytes: 1048577 },
          { pid: 42, kind: "graphics" },
        ],
      },
    ]);
  });

  it("include MIG instances with their own memory and their parent's capability", async () => {
    const memory = await openFake([
      `device GPU-a total=${80 * GIB} free=${10 * GIB} cc=8.0 mig=1`,
      `instance MIG-b name=NVIDIA_A100_MIG_1g.10gb total=${10 * GIB} free=${9 * GIB}`,
    ]);
    const [whole, instance] = await memory.devices();
    expect(whole).toMatchObject({ mig: "partitioned" });
    expect(instance).toMatchObject({
      uuid: "MIG-b",
      mig: "instance",
      parentUuid: "GPU-a",
      freeBytes: 9 * GIB,
      computeCapability: "8.0",
    });
    expect((await memory.read("MIG-b")).freeBytes).toBe(9 * GIB);
  });

  it("of an old driver tell no reserve, and no processes where the call is missing", async () => {
    const memory = await openFake([
      "cuda none",
      "without nvmlDeviceGetMemoryInfo_v2",
      "without nvmlDeviceGetComputeRunningProcesses_v3",
      "device GPU-a total=100 reserved=9 free=60",
    ]);
    const [device] = await memory.devices();
    expect(device).toEqual({
      index: 0,
      uuid: "GPU-a",
      name: "Fake GPU",
      mig: "off",
      totalBytes: 100,
      freeBytes: 60,
      usedBytes: 40,
    });
    expect(memory).not.toHaveProperty("cudaVersion");
  });

  it("that fail are faults and do not hide the others", async () => {
    const memory = await openFake(["device GPU-a handle=15", "device GPU-b total=10 free=5"]);
    const { devices, faults } = await memory.survey();
    expect(devices.map((device) => device.uuid)).toEqual(["GPU-b"]);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatchObject({ index: 0, error: { code: "ERR_LAZYGRAPH_GPU_LOST" } });
  });

  it("are none where the driver finds none", async () => {
    expect(await (await openFake(["driver 1"])).survey()).toEqual({ devices: [], faults: [] });
  });

  it("can't be listed where counting fails", async () => {
    const memory = await openFake(["count 999", H200]);
    await expect(memory.devices()).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_GPU_CALL" });
  });
});

describe("a reading", () => {
  it("follows the device", async () => {
    const memory = await openFake(["device GPU-a total=100 reserved=1 free=90,80,70"]);
    const free: number[] = [];
    for (let i = 0; i < 4; i += 1) free.push((await memory.read("GPU-a")).freeBytes);
    expect(free).toEqual([90, 80, 70, 70]);
  });

  it("takes a UUID as PyTorch writes it", async () => {
    const memory = await openFake([H200]);
    expect((await memory.read(UUID.slice("GPU-".length))).totalBytes).toBe(150754820096);
  });

  it("of an unknown device names those that there are", async () => {
    const memory = await openFake([H200]);
    await expect(memory.read("GPU-typo")).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_GPU_UNKNOWN_DEVICE",
      message: `there is no GPU GPU-typo on this host: expected one of ${UUID}`,
    });
  });

  it("of an unknown device counts those that tell no memory, too", async () => {
    const memory = await openFake(["device GPU-a total=10 free=!999"]);
    await expect(memory.read("GPU-typo")).rejects.toThrow("expected one of GPU-a");
  });

  it("of what may be a device without a name fails as that one does", async () => {
    const memory = await openFake(["device GPU-a handle=15"]);
    await expect(memory.read("GPU-a-")).rejects.toThrow("is lost");
  });

  it("of what can't name a device is a wrong option", async () => {
    const memory = await openFake([H200]);
    for (const wrong of [undefined, 5, "", `${UUID}\0b`, "x".repeat(1_000_000)]) {
      const refused = await memory.read(wrong as never).catch((error: unknown) => error);
      expect(refused).toMatchObject({ code: "ERR_LAZYGRAPH_OPTION", option: "uuid" });
      expect((refused as Error).message.length).toBeLessThan(200);
    }
  });

  it("of a device that disappears fails as lost, and works when it is back", async () => {
    const folder = scratch();
    const free = new LiveValue(folder, 60);
    const memory = await openScript(
      nvmlScript([`device GPU-a total=100 free=@${free.path}`], folder),
    );
    expect((await memory.read("GPU-a")).freeBytes).toBe(60);
    const lost = { code: "ERR_LAZYGRAPH_GPU_LOST" };
    free.set("!15");
    await expect(memory.read("GPU-a")).rejects.toMatchObject(lost);
    // Now the driver doesn't even know its name any more; to us it is still the lost one.
    free.set("gone");
    await expect(memory.read("GPU-a")).rejects.toMatchObject(lost);
    expect((await memory.survey()).faults).toMatchObject([{ index: 0, error: lost }]);
    free.set(50);
    expect((await memory.read("GPU-a")).freeBytes).toBe(50);
  });

  it("that fails otherwise carries NVML's number and text", async () => {
    const memory = await openFake(["device GPU-a total=100 free=!999"]);
    await expect(memory.read("GPU-a")).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_GPU_CALL",
      message: expect.stringMatching(/GPU-a.*NVML result 999.*nvidia-smi/),
    });
  });
});

describe("a device without figures of its own", () => {
  const GB10 = "device GPU-g name=NVIDIA_GB10 total=0 free=!3 cc=12.1";
  const meminfo = (kib: number): string =>
    `MemTotal:       125000000 kB\nMemFree:         1000000 kB\nMemAvailable:   ${kib} kB\n`;

  it("shares the host's memory where it is integrated: the kernel tells it", async () => {
    const meminfoPath = join(scratch(), "meminfo");
    writeFileSync(meminfoPath, meminfo(100_000_000));
    const memory = await openFake([GB10], { meminfoPath });
    const figures = {
      totalBytes: 128_000_000_000,
      freeBytes: 102_400_000_000,
      usedBytes: 25_600_000_000,
    };
    expect(await memory.survey()).toMatchObject({
      devices: [{ uuid: "GPU-g", unified: true, ...figures }],
      faults: [],
    });
    expect(await memory.read("GPU-g")).toEqual(figures);
    const events = new Inbox<GpuWatchEvent>();
    const watch = await memory.watch(
      { uuid: "GPU-g", intervalMs: 10, belowBytes: 50_000_000_000 },
      events.push,
    );
    writeFileSync(meminfoPath, meminfo(10_000_000));
    expect(await events.next()).toMatchObject({
      kind: "below",
      reading: { freeBytes: 10_240_000_000 },
    });
    await watch.close();
  });

  it("fails with a sentence where the kernel doesn't tell it either", async () => {
    const memory = await openFake([GB10], { meminfoPath: "/nowhere/meminfo" });
    await expect(memory.devices()).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_GPU_CALL",
      message: expect.stringMatching(/^expected \/nowhere\/meminfo to tell the host's memory/),
    });
  });

  it.each([
    ["name=Virtual_GPU free=!3", "unsupported", /nothing is broken/],
    ["name=NVIDIA_H200 mig=1 free=!4", "mig parent", /MIG instances do the work/],
    ["name=NVIDIA_H200 free=!4", "permission", /nvidia-caps/],
    ["name=NVIDIA_H200 free=!15", "lost", /reset/],
    ["name=NVIDIA_H200 free=!999", "failed", /system's log/],
  ])("%s is told as %s", async (keys, reason, remedy) => {
    const memory = await openFake([`device GPU-a total=1 ${keys}`]);
    const { devices, faults } = await memory.survey();
    expect(devices).toEqual([]);
    expect(faults).toMatchObject([{ reason, remedy: expect.stringMatching(remedy) }]);
    // Only what is lost may be reset: that ends all work on the GPU.
    expect(/reset/.test(faults[0]?.remedy ?? "")).toBe(reason === "lost");
  });
});

describe("the driver's library", () => {
  it("is initialised once, however much is asked, and shut down by the close", async () => {
    const log = join(scratch(), "log");
    const memory = await openFake([`log ${log}`, H200]);
    await Promise.all([memory.devices(), memory.devices(), memory.read(UUID), memory.read(UUID)]);
    const watch = await memory.watch({ uuid: UUID, intervalMs: 10, belowBytes: 0 }, () => {});
    expect(linesOf(log)).toEqual(["init"]);
    await memory.close();
    await watch.closed;
    expect(linesOf(log)).toEqual(["init", "shutdown"]);
    const closed = { code: "ERR_LAZYGRAPH_CLOSED" };
    await expect(memory.read(UUID)).rejects.toMatchObject(closed);
    await expect(memory.devices()).rejects.toMatchObject(closed);
    const again = memory.watch({ uuid: UUID, intervalMs: 10, belowBytes: 0 }, () => {});
    await expect(again).rejects.toMatchObject(closed);
  });

  const broken: readonly (readonly [string, GpuUnavailableReason, RegExp])[] = [
    ["init 9", "NVML_DRIVER_NOT_LOADED", /Driver Not Loaded.*modprobe nvidia/],
    ["init 18", "NVML_VERSION_MISMATCH", /version mismatch.*restart/],
    ["init 4", "NVML_NO_PERMISSION", /Insufficient Permissions.*\/dev\/nvidia/],
    ["init 999", "NVML_INIT_FAILED", /Unknown Error.*nvidia-smi/],
  ];
  for (const [line, reason, message] of broken) {
    it(`that answers \`${line}\` makes memory unavailable, with the remedy`, async () => {
      process.env["LAZYGRAPH_FAKE_NVML"] = nvmlScript([line]);
      const answer = await openGpuMemory({ sources: ["nvml"], nvmlPath: FAKE_NVML });
      expect(answer).toMatchObject({
        available: false,
        code: "ERR_LAZYGRAPH_GPU_UNAVAILABLE",
        message: expect.stringMatching(message),
        failures: [{ source: "nvml", reason }],
      });
    });
  }

  it("that is missing, or no NVML at all, makes memory unavailable", async () => {
    const missing = await openGpuMemory({
      sources: ["nvml"],
      nvmlPath: "/nowhere/libnvidia-ml.so",
    });
    expect(missing).toMatchObject({ available: false, failures: [{ reason: "NVML_NOT_FOUND" }] });
    const other = await openGpuMemory({ sources: ["nvml"], nvmlPath: "libm.so.6" });
    expect(other).toMatchObject({ available: false, failures: [{ reason: "NVML_UNUSABLE" }] });
  });
});

describe("the addon", () => {
  it("that is missing makes memory unavailable, with the way to build it", async () => {
    const answer = await openGpuMemory({ sources: ["nvml"], addonPaths: ["/nowhere/a.node"] });
    expect(answer).toMatchObject({
      available: false,
      message: expect.stringContaining("npm run build:native"),
      failures: [{ source: "nvml", reason: "ADDON_MISSING" }],
    });
  });

  it("that this system can't load is passed over for the next, or told", async () => {
    const bad = join(scratch(), "bad.node");
    writeFileSync(bad, "not a shared library");
    const answer = await openGpuMemory({ sources: ["nvml"], addonPaths: [bad] });
    expect(answer).toMatchObject({
      available: false,
      message: expect.stringContaining(bad),
      failures: [{ reason: "ADDON_BROKEN" }],
    });
  });
});

describe("options", () => {
  const wrong: readonly (readonly [string, unknown])[] = [
    ["sources", { sources: ["cuda"] }],
    ["sources", { sources: 7 }],
    ["nvmlPath", { nvmlPath: "" }],
    ["nvmlPath", { nvmlPath: "a\0b" }],
    ["nvidiaSmiPath", { nvidiaSmiPath: 5 }],
  ];
  for (const [option, options] of wrong) {
    it(`refuse ${JSON.stringify(options)}`, async () => {
      await expect(openGpuMemory(options as never)).rejects.toMatchObject({
        code: "ERR_LAZYGRAPH_OPTION",
        option,
      });
    });
  }
});

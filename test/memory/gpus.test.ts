import { describe, expect, onTestFinished, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { LazygraphError } from "../../src/base/errors.ts";
import { type GpuMemory, openGpuMemory } from "../../src/gpu/memory.ts";
import { HostGpus, type HostGpusOptions } from "../../src/memory/gpus.ts";
import {
  FAKE_NVML,
  fakeSmi,
  GIB,
  Inbox,
  LiveValue,
  linesOf,
  nvmlScript,
  scratch,
  UUID,
} from "../gpu-memory/fake.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { StuckGpu } from "./stuck-gpu.ts";

const MIB = 1024 * 1024;
const news = new Inbox<void>();
const faults = new Inbox<{ gpu: string; error: unknown }>();

function host(more: Partial<HostGpusOptions> = {}): HostGpus {
  const gpus = new HostGpus({
    clock: systemClock,
    onNews: () => news.push(),
    onFault: (gpu, error) => faults.push({ gpu, error }),
    open: () => openGpuMemory({ sources: ["nvml"], nvmlPath: FAKE_NVML }),
    ...more,
  });
  onTestFinished(() => gpus.close());
  return gpus;
}

/** A driver whose free figure the test sets. */
function driver(freeBytes: number): LiveValue {
  const folder = scratch();
  const free = new LiveValue(folder, freeBytes);
  process.env["LAZYGRAPH_FAKE_NVML"] = nvmlScript(
    [`device ${UUID} name=NVIDIA_H200 total=${80 * GIB} free=@${free.path}`],
    folder,
  );
  return free;
}

describe("through the driver", () => {
  test("an engine's GPU is found by its UUID, with and without the prefix, and read anew", async () => {
    const free = driver(9 * GIB);
    const gpus = host();
    expect(gpus.source).toBeUndefined();
    const bare = UUID.slice("GPU-".length);
    await gpus.follow([bare, "GPU-of-another-host"], () => GIB);
    expect(gpus.source).toBe("nvml");
    expect(gpus.freeBytes(UUID)).toBe(9 * GIB);
    expect(gpus.freeBytes(bare)).toBe(9 * GIB);
    expect(gpus.freeBytes("GPU-of-another-host")).toBeUndefined();
    free.set(5 * GIB);
    await gpus.refresh([bare]);
    expect(gpus.freeBytes(UUID)).toBe(5 * GIB);
    expect(faults.waiting).toBe(0);
  });

  test("news come when free memory crosses what is spoken for, either way", async () => {
    const free = driver(9 * GIB);
    const gpus = host();
    await gpus.follow([UUID], () => 4 * GIB);
    free.set(3 * GIB);
    await news.next();
    expect(gpus.freeBytes(UUID)).toBe(3 * GIB);
    free.set(8 * GIB);
    await news.next();
    expect(gpus.freeBytes(UUID)).toBe(8 * GIB);
  });

  test("a device that fails is told once, and its engines' figures count meanwhile", async () => {
    const free = driver(9 * GIB);
    const gpus = host();
    await gpus.follow([UUID], () => GIB);
    free.set("!15");
    await gpus.refresh([UUID]);
    await gpus.refresh([UUID]);
    const { gpu, error } = await faults.next();
    expect(gpu).toBe(UUID);
    expect(error).toBeInstanceOf(LazygraphError);
    expect(gpus.freeBytes(UUID)).toBeUndefined();
    free.set(2 * GIB);
    await gpus.refresh([UUID]);
    expect(gpus.freeBytes(UUID)).toBe(2 * GIB);
  });

  test("a close ends everything, also one that comes while the driver is being opened", async () => {
    driver(9 * GIB);
    const gpus = host();
    const following = gpus.follow([UUID], () => GIB);
    await gpus.close();
    await following;
    expect(gpus.freeBytes(UUID)).toBeUndefined();
    await gpus.follow([UUID], () => GIB);
    await gpus.refresh([UUID]);
    expect(gpus.freeBytes(UUID)).toBeUndefined();
  });
});

describe("without a driver", () => {
  test("nothing is read and nothing is said", async () => {
    const gpus = host({ open: () => openGpuMemory({ sources: ["nvml"], nvmlPath: "/no/such" }) });
    await gpus.follow([UUID], () => GIB);
    await gpus.refresh([UUID]);
    gpus.threshold(UUID, GIB);
    expect(gpus.source).toBeUndefined();
    expect(gpus.freeBytes(UUID)).toBeUndefined();
  });

  test("an open that throws is told and costs nothing else", async () => {
    const gpus = host({ open: () => Promise.reject(new Error("broken")) });
    await gpus.follow([UUID], () => GIB);
    expect((await faults.next()).error).toMatchObject({ message: "broken" });
    expect(gpus.freeBytes(UUID)).toBeUndefined();
  });

  test("nvidia-smi is not started for each capture", async () => {
    const { program, folder } = fakeSmi(`
  *query-gpu*) echo x >> "$(dirname "$0")/calls"
    echo "0, ${UUID}, NVIDIA H200, 570.86, 81920, 9216, 72704, 600, 9.0, Disabled" ;;
  *query-compute-apps*) ;;
  *) echo "CUDA Version: 12.8" ;;`);
    const open = (): Promise<GpuMemory> =>
      openGpuMemory({ sources: ["nvidia-smi"], nvidiaSmiPath: program }) as Promise<GpuMemory>;
    const gpus = host({ open });
    await gpus.follow([UUID], () => 0);
    expect(gpus.freeBytes(UUID)).toBe(9216 * MIB);
    const before = linesOf(`${folder}/calls`).length;
    for (let capture = 0; capture < 50; capture++) await gpus.refresh([UUID]);
    expect(linesOf(`${folder}/calls`).length - before).toBeLessThan(50);
  });
});

describe("a driver that is stuck", () => {
  /** Whether a promise settles once all had a turn. */
  async function settled(promise: Promise<void>): Promise<boolean> {
    let done = false;
    void promise.then(() => {
      done = true;
    });
    for (let turn = 0; turn < 50; turn++) await Promise.resolve();
    return done;
  }

  test("is waited for once, and asked again when it has answered", async () => {
    const clock = new FakeClock();
    const gpu = new StuckGpu();
    const gpus = gpu.host(clock);
    await gpus.follow([UUID], () => 0);
    gpu.answers = false;
    const before = gpu.readings;
    const first = gpus.refresh([UUID]);
    const second = gpus.refresh([UUID]);
    expect(await settled(first)).toBe(false);
    clock.advance(2);
    expect(await settled(first)).toBe(true);
    expect(await settled(second)).toBe(true);
    expect(await settled(gpus.refresh([UUID]))).toBe(true);
    expect(gpu.readings).toBe(before + 1);
    expect(clock.pending).toBe(0);
    // What it said long ago is nobody's present.
    clock.advance(11);
    expect(gpus.freeBytes(UUID)).toBeUndefined();
  });

  test("doesn't keep a close from ending, nor does one that is still being opened", async () => {
    const clock = new FakeClock();
    const gpu = new StuckGpu();
    const gpus = gpu.host(clock);
    await gpus.follow([UUID], () => 0);
    gpu.answers = false;
    const opening = new HostGpus({
      clock,
      onNews: () => undefined,
      onFault: () => undefined,
      open: () => new Promise(() => undefined),
    });
    void opening.follow([UUID], () => 0);
    const closing = Promise.all([gpus.close(), opening.close()]).then(() => undefined);
    expect(await settled(closing)).toBe(false);
    clock.advance(2);
    expect(await settled(closing)).toBe(true);
  });
});

describe("the watch of a GPU", () => {
  test("is one for all engines, also where two join at once", async () => {
    const gpu = new StuckGpu();
    const gpus = gpu.host(new FakeClock());
    await Promise.all([gpus.follow([UUID], () => GIB), gpus.follow([UUID], () => GIB)]);
    expect(gpu.started.length - gpu.ended).toBe(1);
  });

  test("is started again after its next threshold failed", async () => {
    const gpu = new StuckGpu();
    const gpus = gpu.host(new FakeClock());
    await gpus.follow([UUID], () => GIB);
    gpu.watches = false;
    gpus.threshold(UUID, 2 * GIB);
    await expect.poll(() => gpu.faults).toHaveLength(1);
    gpu.watches = true;
    await gpus.refresh([UUID]);
    // As before: only a watch that is there makes it superfluous.
    gpus.threshold(UUID, GIB);
    await expect.poll(() => gpu.started).toEqual([GIB, GIB]);
  });
});

/**
 * What the addon costs: one reading, a million readings, and ten thousand watches started and
 * stopped. Prints one JSON document.
 *
 *   npm run bench:addon                          on this host's driver
 *   LAZYGRAPH_NVML_PATH=build/fake/libnvidia-ml.so npm run bench:addon
 *                                                on the stand-in: the addon's own cost alone
 *   npm run bench:addon -- --readings 100000 --watches 1000
 *
 * The script keeps V8's young generation small, because its growth would hide a leak's.
 */

import { readdirSync } from "node:fs";
import { arch, cpus, platform } from "node:os";
import { parseArgs } from "node:util";
import { type GpuMemory, openGpuMemory } from "../src/gpu/memory.ts";

const { values } = parseArgs({
  options: {
    readings: { type: "string", default: "1000000" },
    watches: { type: "string", default: "10000" },
  },
});
const readings = count("readings", values.readings);
const watches = count("watches", values.watches);

const opening = performance.now();
const memory = await openGpuMemory({ sources: ["nvml"] });
if (!memory.available) {
  console.error(memory.message);
  process.exit(1);
}
const openMs = performance.now() - opening;
const [device] = await memory.devices();
if (device === undefined) {
  console.error("the driver lists no GPU; point LAZYGRAPH_NVML_PATH at the stand-in");
  process.exit(1);
}

const result = {
  library: process.env["LAZYGRAPH_NVML_PATH"] ?? "libnvidia-ml.so.1",
  host: { node: process.version, platform: platform(), arch: arch(), cpu: cpus()[0]?.model },
  driver: memory.driverVersion,
  gpu: device.name,
  openMs: round(openMs),
  surveyMs: await surveyMs(memory),
  reading: await readingTimes(memory, device.uuid),
  growth: await readingGrowth(memory, device.uuid),
  watches: await watchGrowth(memory, device.uuid),
};
await memory.close();
console.log(JSON.stringify(result, null, 2));

async function surveyMs(from: GpuMemory): Promise<number> {
  const started = performance.now();
  for (let i = 0; i < 20; i += 1) await from.survey();
  return round((performance.now() - started) / 20);
}

async function readingTimes(from: GpuMemory, uuid: string): Promise<object> {
  const samples = Math.min(readings, 100_000);
  const micros = new Float64Array(samples);
  for (let i = 0; i < 1000; i += 1) await from.read(uuid);
  for (let i = 0; i < samples; i += 1) {
    const started = performance.now();
    await from.read(uuid);
    micros[i] = (performance.now() - started) * 1000;
  }
  micros.sort();
  const at = (share: number): number => round(micros[Math.floor(share * (samples - 1))] ?? 0);
  return { samples, p50Micros: at(0.5), p99Micros: at(0.99), maxMicros: at(1) };
}

/** The first tenth warms the allocators up; what comes after it must not grow. */
async function readingGrowth(from: GpuMemory, uuid: string): Promise<object> {
  const warm = Math.floor(readings / 10);
  for (let i = 0; i < warm; i += 1) await from.read(uuid);
  const before = settledBytes();
  for (let i = warm; i < readings; i += 1) await from.read(uuid);
  return { readings, rssGrowthBytes: settledBytes() - before };
}

async function watchGrowth(from: GpuMemory, uuid: string): Promise<object> {
  const options = { uuid, intervalMs: 10, belowBytes: 0 };
  const cycle = async (): Promise<void> => {
    const watch = await from.watch(options, () => {});
    await watch.close();
  };
  // V8 of Node 22 takes 10 MB in the first ten thousand and nothing in the next thirty thousand.
  for (let i = 0; i < watches; i += 1) await cycle();
  const before = settledBytes();
  const threadsBefore = threads();
  const started = performance.now();
  for (let i = 0; i < watches; i += 1) await cycle();
  return {
    watches,
    microsEach: round(((performance.now() - started) / watches) * 1000),
    rssGrowthBytes: settledBytes() - before,
    threadsGrowth: threads() - threadsBefore,
  };
}

function settledBytes(): number {
  globalThis.gc?.();
  globalThis.gc?.();
  return process.memoryUsage.rss();
}

/** Threads of this process, where the system tells them. */
function threads(): number {
  return platform() === "linux" ? readdirSync("/proc/self/task").length : 0;
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

function count(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 10) return value;
  console.error(`expected --${name} to be a whole number from 10 up, got ${text}`);
  process.exit(2);
}

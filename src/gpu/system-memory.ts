/**
 * The memory of GPUs that have none of their own: on GB10 and NVIDIA's other integrated ones it is
 * the host's, NVML answers "not supported", and only the kernel knows what is free.
 */

import { readFileSync } from "node:fs";
import { LazygraphError, messageOf } from "../base/errors.ts";
import type { GpuReading } from "./device.ts";

/** Models whose memory is the host's, by their names with the driver. */
const INTEGRATED = /\b(GB10|Thor|Orin|Xavier|nvgpu)\b/i;
const KIB = 1024;

export const MEMINFO_PATH = "/proc/meminfo";

export function hasUnifiedMemory(name: string): boolean {
  return INTEGRATED.test(name);
}

/**
 * What is available counts as free: the page cache gives way to whoever allocates.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_GPU_CALL` where the kernel doesn't tell
 */
export function readSystemMemory(path: string = MEMINFO_PATH): GpuReading {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw unreadable(path, messageOf(error), error);
  }
  const totalBytes = bytesOf(text, "MemTotal");
  const freeBytes = bytesOf(text, "MemAvailable");
  if (totalBytes === undefined || freeBytes === undefined || freeBytes > totalBytes) {
    throw unreadable(path, "no sound MemTotal and MemAvailable");
  }
  return { totalBytes, freeBytes, usedBytes: totalBytes - freeBytes };
}

function bytesOf(text: string, name: string): number | undefined {
  const match = new RegExp(`^${name}: +(\\d{1,12}) kB$`, "m").exec(text);
  return match === null ? undefined : Number(match[1]) * KIB;
}

function unreadable(path: string, got: string, cause?: unknown): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_GPU_CALL",
    `expected ${path} to tell the host's memory, which is this GPU's, got ${got}; engines report ` +
      "their own memory all the same",
    { cause },
  );
}

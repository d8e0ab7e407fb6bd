/** Stand-ins for the driver's library and for nvidia-smi, scripted by each test. */

import { chmodSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import { type GpuMemory, type GpuMemoryOptions, openGpuMemory } from "../../src/gpu/memory.ts";
import { REMOVED } from "../helpers/removal.ts";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
export const ADDON = join(ROOT, "build/Release/gpu_memory.node");
export const FAKE_NVML = join(ROOT, "build/fake/libnvidia-ml.so");
export const GIB = 1024 ** 3;
export const UUID = "GPU-12345678-9abc-def0-1234-56789abcdef0";

/** A folder that goes away with the test. */
export function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), "lazygraph-gpu-"));
  onTestFinished(() => rmSync(folder, REMOVED));
  return folder;
}

/** Writes a script for the stand-in of native/fake/nvml.cc and returns its path. */
export function nvmlScript(lines: readonly string[], folder: string = scratch()): string {
  const file = join(folder, "script");
  writeFileSync(file, `${lines.join("\n")}\n`);
  return file;
}

/** A value that the test changes while it is read. */
export class LiveValue {
  readonly path: string;

  constructor(folder: string, value: number | string) {
    this.path = join(folder, "live");
    this.set(value);
  }

  set(value: number | string): void {
    // Renamed into place: the watch thread must not read half a number.
    writeFileSync(`${this.path}.new`, String(value));
    renameSync(`${this.path}.new`, this.path);
  }
}

/** Opens the addon on a scripted driver; closed with the test. */
export async function openFake(
  lines: readonly string[],
  options: GpuMemoryOptions = {},
): Promise<GpuMemory> {
  return openScript(nvmlScript(lines), options);
}

export async function openScript(file: string, options: GpuMemoryOptions = {}): Promise<GpuMemory> {
  process.env["LAZYGRAPH_FAKE_NVML"] = file;
  const memory = await openGpuMemory({ sources: ["nvml"], nvmlPath: FAKE_NVML, ...options });
  if (!memory.available) throw new Error(memory.message);
  onTestFinished(() => memory.close());
  return memory;
}

/** Writes a program that answers like nvidia-smi, as a shell script's `case` arms. */
export function fakeSmi(arms: string): { program: string; folder: string } {
  const folder = scratch();
  const program = join(folder, "nvidia-smi");
  writeFileSync(program, `#!/bin/sh\ncase "$*" in\n${arms}\nesac\n`);
  chmodSync(program, 0o755);
  return { program, folder };
}

export function linesOf(path: string): string[] {
  return readFileSync(path, "utf8").split("\n").filter(Boolean);
}

/** Events in order, each awaited when the test wants it. */
export class Inbox<T> {
  readonly #waiting: ((item: T) => void)[] = [];
  readonly #items: T[] = [];

  readonly push = (item: T): void => {
    const next = this.#waiting.shift();
    if (next === undefined) this.#items.push(item);
    else next(item);
  };

  next(): Promise<T> {
    const item = this.#items.shift();
    if (item !== undefined) return Promise.resolve(item);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  get waiting(): number {
    return this.#items.length;
  }
}

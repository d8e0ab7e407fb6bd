/** Opens the best source of GPU memory that this host has: the addon, else nvidia-smi, else none. */

import { checkOption } from "../base/check-options.ts";
import { OptionError } from "../base/errors.ts";
import { object } from "../base/schema.ts";
import { addonCandidates, loadAddon } from "./addon.ts";
import { openNvidiaSmi } from "./nvidia-smi.ts";
import { openNvml } from "./nvml-reader.ts";
import type { GpuMemory } from "./reader.ts";
import { MEMINFO_PATH } from "./system-memory.ts";
import {
  type GpuSource,
  type GpuSourceFailure,
  type GpuUnavailable,
  sourceFailure,
  unavailable,
} from "./unavailable.ts";

export type {
  GpuDevice,
  GpuFault,
  GpuFaultReason,
  GpuMig,
  GpuProcess,
  GpuReading,
  GpuSurvey,
} from "./device.ts";
export type { GpuMemory } from "./reader.ts";
export type {
  GpuSource,
  GpuSourceFailure,
  GpuUnavailable,
  GpuUnavailableReason,
} from "./unavailable.ts";
export type { GpuWatch, GpuWatchEvent, GpuWatchOptions } from "./watch.ts";

export interface GpuMemoryOptions {
  /**
   * Sources in the order in which they are tried.
   * @default ["nvml", "nvidia-smi"]
   */
  readonly sources?: readonly GpuSource[];
  /**
   * Name or path of NVIDIA's management library.
   * @default $LAZYGRAPH_NVML_PATH, or libnvidia-ml.so.1
   */
  readonly nvmlPath?: string;
  /**
   * Name or path of the program.
   * @default "nvidia-smi"
   */
  readonly nvidiaSmiPath?: string;
  /** @internal Files that may be the addon. */
  readonly addonPaths?: readonly string[];
  /** @internal Where the kernel tells the host's memory. */
  readonly meminfoPath?: string;
}

/**
 * Opens this host's GPUs. Where there are none, or nothing can read them, the answer is a value
 * that says why, not an exception. Throws OptionError for a wrong option.
 */
export async function openGpuMemory(
  options: GpuMemoryOptions = {},
): Promise<GpuMemory | GpuUnavailable> {
  const checked = checkOptions(options);
  const failures: GpuSourceFailure[] = [];
  for (const source of checked.sources) {
    const opened =
      source === "nvml"
        ? await openThroughAddon(checked)
        : await openNvidiaSmi(checked.nvidiaSmiPath, checked.meminfoPath);
    if ("available" in opened) return { ...opened, skipped: failures };
    failures.push(opened);
  }
  return unavailable(failures);
}

async function openThroughAddon({
  addonPaths,
  nvmlPath,
  meminfoPath,
}: Required<GpuMemoryOptions>): Promise<GpuMemory | GpuSourceFailure> {
  const loaded = loadAddon(addonPaths);
  if (!loaded.ok) return sourceFailure("nvml", loaded.reason, loaded.message);
  return openNvml(loaded.addon, nvmlPath, meminfoPath);
}

function checkOptions(options: GpuMemoryOptions): Required<GpuMemoryOptions> {
  checkOption("options", options, object);
  const sources = options.sources ?? ["nvml", "nvidia-smi"];
  if (!Array.isArray(sources)) {
    throw new OptionError("sources", `expected \`sources\` to be a list, got ${String(sources)}`);
  }
  for (const source of sources) {
    if (source === "nvml" || source === "nvidia-smi") continue;
    throw new OptionError(
      "sources",
      `expected \`sources\` to list "nvml" and "nvidia-smi", got ${JSON.stringify(source)}`,
    );
  }
  const nvmlPath = options.nvmlPath ?? (process.env["LAZYGRAPH_NVML_PATH"] || "libnvidia-ml.so.1");
  const nvidiaSmiPath = options.nvidiaSmiPath ?? "nvidia-smi";
  for (const [name, value] of Object.entries({ nvmlPath, nvidiaSmiPath })) {
    if (typeof value === "string" && value !== "" && !value.includes("\0")) continue;
    throw new OptionError(name, `expected \`${name}\` to be a file's name, got ${String(value)}`);
  }
  return {
    sources,
    nvmlPath,
    nvidiaSmiPath,
    addonPaths: options.addonPaths ?? addonCandidates(),
    meminfoPath: options.meminfoPath ?? MEMINFO_PATH,
  };
}

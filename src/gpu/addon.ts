/**
 * Every type of the native addon, and the only place that loads it. What comes out of here is
 * raw: nvml-reader.ts turns it into the package's own types and errors.
 */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { messageOf } from "../base/errors.ts";

/** The problems of native/src/nvml.h, as the `code` of the errors that the addon throws. */
export type NativeProblem =
  | "NVML_NOT_FOUND"
  | "NVML_UNUSABLE"
  | "NVML_DRIVER_NOT_LOADED"
  | "NVML_VERSION_MISMATCH"
  | "NVML_NO_PERMISSION"
  | "NVML_INIT_FAILED"
  | "NVML_CALL_FAILED"
  | "NVML_GPU_LOST"
  | "NVML_UNKNOWN_DEVICE";

export interface NativeError extends Error {
  readonly code: NativeProblem;
  /** NVML's own number; 0 where the library was not reached. */
  readonly nvmlResult: number;
}

export interface NativeMemory {
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly usedBytes: number;
  readonly reservedBytes?: number;
}

export interface NativeProcess {
  readonly pid: number;
  readonly kind: "compute" | "graphics";
  readonly usedBytes?: number;
}

export interface NativeDevice {
  readonly index: number;
  /** Empty where a fault came before it could be read. */
  readonly uuid: string;
  readonly name: string;
  readonly mig: "off" | "partitioned" | "instance";
  readonly parentUuid?: string;
  readonly computeCapability?: string;
  readonly memory?: NativeMemory;
  readonly processes?: readonly NativeProcess[];
  readonly fault?: NativeError;
}

export interface NativeWatchOptions {
  readonly uuid: string;
  readonly intervalMs: number;
  readonly belowBytes: number;
  readonly hysteresisBytes: number;
  readonly withinSeconds: number;
}

export type NativeWatchEvent =
  | {
      readonly kind: "below" | "above" | "draining" | "restored";
      readonly replaced: number;
      readonly memory: NativeMemory;
      readonly bytesPerSecond?: number;
      readonly secondsToExhaustion?: number;
    }
  | { readonly kind: "fault"; readonly replaced: number; readonly error: NativeError };

export interface NativeWatch {
  /** Asks the thread to end; no event is delivered after this. */
  close(): void;
  /** Settles when the thread has ended. */
  readonly closed: Promise<void>;
}

/** NVML between its init and its shutdown. */
export interface NativeSession {
  readonly driverVersion?: string;
  readonly cudaVersion?: string;
  /** Runs on the thread pool. */
  devices(): Promise<readonly NativeDevice[]>;
  /** Runs on the calling thread: one driver call. */
  read(uuid: string): NativeMemory;
  watch(options: NativeWatchOptions, callback: (event: NativeWatchEvent) => void): NativeWatch;
  /** Shuts NVML down when the last survey and watch have ended; every later call throws. */
  close(): void;
}

export interface NativeAddon {
  /** Opens the library of this name or path on the thread pool; rejects with a NativeError. */
  open(library: string): Promise<NativeSession>;
}

export type AddonLoad =
  | { readonly ok: true; readonly addon: NativeAddon; readonly path: string }
  | {
      readonly ok: false;
      /** `ADDON_MISSING`: no file. `ADDON_BROKEN`: a file that this system can't load. */
      readonly reason: "ADDON_MISSING" | "ADDON_BROKEN";
      readonly message: string;
    };

/**
 * Where the addon may lie: a build on this machine wins over the one that was packed, and that over
 * the platform's own package, which a release has in its place.
 */
export function addonCandidates(): readonly string[] {
  const file = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
  const platform = `${process.platform}-${process.arch}`;
  return [
    file("build/Release/gpu_memory.node"),
    file(`prebuilds/${platform}/gpu_memory.node`),
    ...platformPackage(platform),
  ];
}

function platformPackage(platform: string): readonly string[] {
  try {
    const name = `lazygraph-gpu-${platform}/gpu_memory.node`;
    return [createRequire(import.meta.url).resolve(name)];
  } catch {
    // An optional dependency: not there on other platforms and with --omit=optional.
    return [];
  }
}

/** Loads the first candidate that this system can load. */
export function loadAddon(candidates: readonly string[] = addonCandidates()): AddonLoad {
  const require = createRequire(import.meta.url);
  const broken: string[] = [];
  for (const path of candidates) {
    if (!existsSync(path)) continue;
    try {
      return { ok: true, addon: require(path) as NativeAddon, path };
    } catch (error) {
      broken.push(`${path}: ${messageOf(error)}`);
    }
  }
  if (broken.length > 0) {
    return { ok: false, reason: "ADDON_BROKEN", message: broken.join("; ") };
  }
  return {
    ok: false,
    reason: "ADDON_MISSING",
    message: `no prebuilt addon for ${process.platform}-${process.arch} and none built here`,
  };
}

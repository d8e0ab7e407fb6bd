/** What a reader says about GPUs. Bytes are exact integers below 2^53. */

import { type LazygraphError, OptionError } from "../base/errors.ts";

/** One reading of a device's memory. */
export interface GpuReading {
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** In use by processes; on drivers before 510 the driver's own reserve is counted in. */
  readonly usedBytes: number;
  /** What the driver keeps for itself; absent where the driver doesn't tell. */
  readonly reservedBytes?: number;
}

/** A process that holds memory of a device. */
export interface GpuProcess {
  /** In the driver's process namespace, which inside a container need not be ours. */
  readonly pid: number;
  readonly kind: "compute" | "graphics";
  /** Absent where the driver doesn't tell. */
  readonly usedBytes?: number;
}

/**
 * - `off`: a whole GPU.
 * - `partitioned`: a whole GPU divided by MIG; its instances do the work.
 * - `instance`: one of them, with memory of its own.
 */
export type GpuMig = "off" | "partitioned" | "instance";

export interface GpuDevice extends GpuReading {
  /** The driver's index, which CUDA_VISIBLE_DEVICES may renumber: match devices by `uuid`. */
  readonly index: number;
  /** `GPU-…`, or `MIG-…` of an instance. */
  readonly uuid: string;
  readonly name: string;
  readonly mig: GpuMig;
  /** Its memory is the host's: the figures are the kernel's, not the driver's. */
  readonly unified?: true;
  /** Of a MIG instance: the GPU that it is a part of. */
  readonly parentUuid?: string;
  /** Such as `9.0`. */
  readonly computeCapability?: string;
  /** Absent where the driver doesn't list them. */
  readonly processes?: readonly GpuProcess[];
}

/**
 * - `lost`: it fell off the bus or needs a reset.
 * - `unsupported`: the driver has no figures for it, as of some integrated and virtual GPUs.
 * - `mig parent`: a divided GPU, whose instances tell theirs.
 * - `permission`: this user may not ask.
 * - `failed`: the driver answered with another error.
 */
export type GpuFaultReason = "lost" | "unsupported" | "mig parent" | "permission" | "failed";

/** A device that is there but tells no memory. */
export interface GpuFault {
  readonly index: number;
  /** Absent where not even that could be read. */
  readonly uuid?: string;
  readonly reason: GpuFaultReason;
  readonly error: LazygraphError;
  /** What to do about it. */
  readonly remedy: string;
}

export interface GpuSurvey {
  readonly devices: readonly GpuDevice[];
  readonly faults: readonly GpuFault[];
}

/** As long as NVML's own, and plain: a NUL would end the name early for the driver. */
const UUID = /^[\w./:-]{1,96}$/;
const BARE_UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Throws OptionError where this can't name any device. */
export function checkUuid(uuid: unknown): asserts uuid is string {
  if (typeof uuid === "string" && UUID.test(uuid)) return;
  const shown = typeof uuid === "string" ? JSON.stringify(uuid.slice(0, 96)) : typeof uuid;
  throw new OptionError("uuid", `expected \`uuid\` to name a device, got ${shown}`);
}

/** A UUID as the driver writes it: PyTorch leaves out the `GPU-` in front. */
export function canonicalUuid(uuid: string): string {
  return BARE_UUID.test(uuid) ? `GPU-${uuid.toLowerCase()}` : uuid;
}

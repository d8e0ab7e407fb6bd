/** Why GPU memory can't be read on this host: a value, because most hosts have no GPU. */

import type { NativeProblem } from "./addon.ts";

export type GpuSource = "nvml" | "nvidia-smi";

export type GpuUnavailableReason =
  | "ADDON_MISSING"
  | "ADDON_BROKEN"
  | Extract<
      NativeProblem,
      | "NVML_NOT_FOUND"
      | "NVML_UNUSABLE"
      | "NVML_DRIVER_NOT_LOADED"
      | "NVML_VERSION_MISMATCH"
      | "NVML_NO_PERMISSION"
      | "NVML_INIT_FAILED"
    >
  | "SMI_NOT_FOUND"
  | "SMI_FAILED";

/** One source that was tried and did not work. */
export interface GpuSourceFailure {
  readonly source: GpuSource;
  readonly reason: GpuUnavailableReason;
  /** What happened, as the source said it. */
  readonly message: string;
  /** What to do about it. */
  readonly remedy: string;
}

/** The answer where no source works. */
export interface GpuUnavailable {
  readonly available: false;
  readonly code: "ERR_LAZYGRAPH_GPU_UNAVAILABLE";
  /** "GPU memory is not available, because …", with the remedy. */
  readonly message: string;
  readonly failures: readonly GpuSourceFailure[];
}

const REMEDIES: Record<GpuUnavailableReason, string> = {
  ADDON_MISSING: "build it with `npm run build:native` (C++20 compiler and CMake) in the package",
  ADDON_BROKEN: "rebuild it on this system with `npm run build:native` in the package",
  NVML_NOT_FOUND:
    "install the NVIDIA driver; in a container, start it with the NVIDIA container toolkit " +
    "(`--gpus all`) and NVIDIA_DRIVER_CAPABILITIES containing `utility`",
  NVML_UNUSABLE: "point LAZYGRAPH_NVML_PATH at the driver's libnvidia-ml.so.1, or unset it",
  NVML_DRIVER_NOT_LOADED: "load the kernel module (`modprobe nvidia`) and look at `dmesg`",
  NVML_VERSION_MISMATCH:
    "the driver was updated under a running kernel module: reload the module or restart the host",
  NVML_NO_PERMISSION: "give this user access to /dev/nvidia* and /dev/nvidiactl",
  NVML_INIT_FAILED: "run `nvidia-smi` on this host and repair what it reports",
  SMI_NOT_FOUND: "install the NVIDIA driver's utilities, or put nvidia-smi on PATH",
  SMI_FAILED: "run `nvidia-smi` on this host and repair what it reports",
};

export function sourceFailure(
  source: GpuSource,
  reason: GpuUnavailableReason,
  message: string,
): GpuSourceFailure {
  return { source, reason, message, remedy: REMEDIES[reason] };
}

export function unavailable(failures: readonly GpuSourceFailure[]): GpuUnavailable {
  const causes = failures.map((failure) => `${failure.source}: ${failure.message}`);
  // The first source is the one to repair; the others only stand in for it.
  const remedy = failures[0]?.remedy ?? "name at least one source";
  const because = causes.length > 0 ? causes.join("; ") : "no source was asked";
  return {
    available: false,
    code: "ERR_LAZYGRAPH_GPU_UNAVAILABLE",
    message: `GPU memory is not available, because ${because}. To repair it: ${remedy}.`,
    failures,
  };
}

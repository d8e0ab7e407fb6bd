/** Why a device tells no memory, and what to do: each of NVML's answers has its own remedy. */

import { LazygraphError } from "../base/errors.ts";
import type { GpuFault, GpuFaultReason, GpuMig } from "./device.ts";

const REMEDIES: Readonly<Record<GpuFaultReason, string>> = {
  lost: "move its work away, then reset it (`nvidia-smi --gpu-reset`) or restart the host",
  unsupported:
    "nothing is broken: the driver has no figures for this GPU; engines report their own memory, " +
    "and `--memory-margin` keeps some free",
  "mig parent": "nothing: its MIG instances do the work and are listed by themselves",
  permission:
    "run as a user who may read /dev/nvidia* and /dev/nvidia-caps/*, or start the container with " +
    "NVIDIA_VISIBLE_DEVICES naming this GPU",
  failed: "see what `nvidia-smi` and the system's log say of it",
};

/** What a source knows of a device that answered with an error. */
export interface FaultFacts {
  readonly index: number;
  readonly uuid?: string;
  readonly mig?: GpuMig;
  readonly reason: GpuFaultReason;
  readonly said: string;
  readonly cause?: unknown;
}

export function gpuFault({ index, uuid, mig, reason, said, cause }: FaultFacts): GpuFault {
  const isParent = mig === "partitioned" && reason !== "lost";
  const why = isParent ? "mig parent" : reason;
  return {
    index,
    ...(uuid !== undefined && { uuid }),
    reason: why,
    error: faultError(uuid ?? `with index ${index}`, why, said, cause),
    remedy: REMEDIES[why],
  };
}

export function faultError(
  device: string,
  reason: GpuFaultReason,
  said: string,
  cause?: unknown,
): LazygraphError {
  const what = reason === "lost" ? "is lost" : "tells no memory";
  return new LazygraphError(
    reason === "lost" ? "ERR_LAZYGRAPH_GPU_LOST" : "ERR_LAZYGRAPH_GPU_CALL",
    `GPU ${device} ${what} (${said}): ${REMEDIES[reason]}`,
    cause === undefined ? undefined : { cause },
  );
}

const NVML_NOT_SUPPORTED = 3;
const NVML_NO_PERMISSION = 4;

/** What an error of the addon means, by NVML's own number. */
export function reasonOfNvml(code: string, nvmlResult: number): GpuFaultReason {
  if (code === "NVML_GPU_LOST") return "lost";
  if (nvmlResult === NVML_NOT_SUPPORTED) return "unsupported";
  return nvmlResult === NVML_NO_PERMISSION ? "permission" : "failed";
}

/** What nvidia-smi wrote in place of the memory. */
export function reasonOfSmi(answer: string): GpuFaultReason {
  if (/lost|reset required/i.test(answer)) return "lost";
  if (/insufficient permissions/i.test(answer)) return "permission";
  return /\[(N\/A|Not Supported)\]/i.test(answer) ? "unsupported" : "failed";
}

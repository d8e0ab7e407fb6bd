/** GPU memory through the native addon: exact, and cheap enough to be asked all the time. */

import type { LazygraphError } from "../base/errors.ts";
import type {
  NativeAddon,
  NativeDevice,
  NativeError,
  NativeSession,
  NativeWatchEvent,
} from "./addon.ts";
import {
  canonicalUuid,
  checkUuid,
  type GpuDevice,
  type GpuFault,
  type GpuReading,
  type GpuSurvey,
} from "./device.ts";
import { faultError, gpuFault, reasonOfNvml } from "./fault.ts";
import { type GpuMemory, OpenWatches, unknownDevice } from "./reader.ts";
import { pollDevice } from "./smi-watch.ts";
import { hasUnifiedMemory, MEMINFO_PATH, readSystemMemory } from "./system-memory.ts";
import { type GpuSourceFailure, type GpuUnavailableReason, sourceFailure } from "./unavailable.ts";
import {
  checkWatchOptions,
  closedWatch,
  type GpuWatch,
  type GpuWatchEvent,
  type GpuWatchOptions,
  holdWatch,
  planWatch,
} from "./watch.ts";

/** Opens NVML, or says why it can't be. */
export async function openNvml(
  addon: NativeAddon,
  library: string,
  meminfoPath: string = MEMINFO_PATH,
): Promise<GpuMemory | GpuSourceFailure> {
  try {
    return nvmlMemory(await addon.open(library), meminfoPath);
  } catch (error) {
    if (!isNative(error)) throw error;
    return sourceFailure("nvml", error.code as GpuUnavailableReason, error.message);
  }
}

function nvmlMemory(session: NativeSession, meminfoPath: string): GpuMemory {
  const { driverVersion, cudaVersion } = session;
  const watches = new OpenWatches();
  /** Found by a reading that the driver refused; such a device never changes. */
  const unified = new Set<string>();
  let surveyUnderWay: Promise<GpuSurvey> | undefined;

  // One at a time: callers that come meanwhile share its answer instead of queueing threads.
  const survey = async (): Promise<GpuSurvey> => {
    watches.check();
    surveyUnderWay ??= surveyOf(session, meminfoPath).finally(() => {
      surveyUnderWay = undefined;
    });
    return surveyUnderWay;
  };

  /** Throws what a failed reading means; of unified memory the kernel has the figures. */
  const fail = async (error: unknown, uuid: string): Promise<GpuReading> => {
    if (isNative(error) && error.code === "NVML_UNKNOWN_DEVICE") {
      throw unknownDevice(uuid, await survey());
    }
    if (isNative(error) && reasonOfNvml(error.code, error.nvmlResult) === "unsupported") {
      if (await isUnified(uuid)) return readSystemMemory(meminfoPath);
    }
    throw isNative(error) ? translate(error, uuid) : error;
  };

  const isUnified = async (uuid: string): Promise<boolean> => {
    const name = canonicalUuid(uuid);
    if (unified.has(name)) return true;
    const device = (await survey()).devices.find((candidate) => candidate.uuid === name);
    if (device?.unified === true) unified.add(name);
    return unified.has(name);
  };

  const read: GpuMemory["read"] = async (uuid) => {
    checkUuid(uuid);
    watches.check();
    try {
      return session.read(canonicalUuid(uuid));
    } catch (error) {
      return await fail(error, uuid);
    }
  };

  const start = async (
    options: GpuWatchOptions,
    callback: (event: GpuWatchEvent) => unknown,
  ): Promise<GpuWatch> => {
    const plan = planWatch(options, (await read(options.uuid)).totalBytes);
    watches.check();
    return holdWatch(options, plan.intervalMs, callback, (deliver) =>
      // The addon's thread asks NVML alone, which has no figures of unified memory.
      unified.has(canonicalUuid(options.uuid))
        ? pollDevice(plan, options.uuid, read, deliver)
        : session.watch(plan, (event) => deliver(eventOf(event, options.uuid))),
    );
  };

  const close = async (): Promise<void> => {
    await watches.close();
    session.close();
  };

  return {
    available: true,
    source: "nvml",
    skipped: [],
    warnings: [],
    ...(driverVersion !== undefined && { driverVersion }),
    ...(cudaVersion !== undefined && { cudaVersion }),
    precisionBytes: 1,
    survey,
    devices: async () => (await survey()).devices,
    read,
    watch: async (options, callback) => {
      checkWatchOptions(options, callback);
      watches.check();
      if (options.signal?.aborted) return closedWatch(options.intervalMs);
      return watches.add(() => start(options, callback));
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function surveyOf(session: NativeSession, meminfoPath: string): Promise<GpuSurvey> {
  let natives: readonly NativeDevice[];
  try {
    natives = await session.devices();
  } catch (error) {
    throw isNative(error) ? translate(error, "of this host") : error;
  }
  const devices: GpuDevice[] = [];
  const faults: GpuFault[] = [];
  for (const { memory, fault, ...identity } of natives) {
    if (memory !== undefined && fault === undefined) {
      devices.push({ ...identity, ...memory });
      continue;
    }
    const reason = fault === undefined ? "failed" : reasonOfNvml(fault.code, fault.nvmlResult);
    if (reason === "unsupported" && hasUnifiedMemory(identity.name)) {
      devices.push({ ...identity, ...readSystemMemory(meminfoPath), unified: true });
      continue;
    }
    const { index, uuid, mig } = identity;
    faults.push(
      gpuFault({
        index,
        ...(uuid !== "" && { uuid }),
        mig,
        reason,
        said: fault?.message ?? "no reason given",
        cause: fault,
      }),
    );
  }
  return { devices, faults };
}

function eventOf(event: NativeWatchEvent, uuid: string): GpuWatchEvent {
  if (event.kind === "fault") {
    return { ...event, uuid, error: translate(event.error, uuid) };
  }
  const { memory, ...rest } = event;
  return { ...rest, uuid, reading: memory };
}

function translate(error: NativeError, device: string): LazygraphError {
  const reason = reasonOfNvml(error.code, error.nvmlResult);
  return faultError(device, reason, `${error.message}, NVML result ${error.nvmlResult}`, error);
}

function isNative(error: unknown): error is NativeError {
  return error instanceof Error && "nvmlResult" in error;
}

/** GPU memory through the native addon: exact, and cheap enough to be asked all the time. */

import { LazygraphError } from "../errors.ts";
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
  type GpuSurvey,
} from "./device.ts";
import { type GpuMemory, OpenWatches, unknownDevice } from "./reader.ts";
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
): Promise<GpuMemory | GpuSourceFailure> {
  try {
    return nvmlMemory(await addon.open(library));
  } catch (error) {
    if (!isNative(error)) throw error;
    return sourceFailure("nvml", error.code as GpuUnavailableReason, error.message);
  }
}

function nvmlMemory(session: NativeSession): GpuMemory {
  const { driverVersion, cudaVersion } = session;
  const watches = new OpenWatches();
  let surveyUnderWay: Promise<GpuSurvey> | undefined;

  // One at a time: callers that come meanwhile share its answer instead of queueing threads.
  const survey = async (): Promise<GpuSurvey> => {
    watches.check();
    surveyUnderWay ??= surveyOf(session).finally(() => {
      surveyUnderWay = undefined;
    });
    return surveyUnderWay;
  };

  const fail = async (error: unknown, uuid: string): Promise<never> => {
    if (isNative(error) && error.code === "NVML_UNKNOWN_DEVICE") {
      const { devices } = await survey();
      throw unknownDevice(
        uuid,
        devices.map((device) => device.uuid),
      );
    }
    throw isNative(error) ? translate(error, uuid) : error;
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
      session.watch(plan, (event) => deliver(eventOf(event, options.uuid))),
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

async function surveyOf(session: NativeSession): Promise<GpuSurvey> {
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
    const { index, uuid } = identity;
    const name = uuid === "" ? `with index ${index}` : uuid;
    faults.push({
      index,
      ...(uuid !== "" && { uuid }),
      error:
        fault === undefined
          ? new LazygraphError("ERR_LAZYGRAPH_GPU_CALL", `GPU ${name} tells no memory`)
          : translate(fault, name),
    });
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
  if (error.code === "NVML_GPU_LOST") {
    return new LazygraphError(
      "ERR_LAZYGRAPH_GPU_LOST",
      `GPU ${device} is lost (${error.message}): move its work away, then reset it or restart ` +
        "the host",
      { cause: error },
    );
  }
  return new LazygraphError(
    "ERR_LAZYGRAPH_GPU_CALL",
    `the driver can't tell the memory of GPU ${device}: ${error.message} ` +
      `(NVML result ${error.nvmlResult}); see what \`nvidia-smi\` says`,
    { cause: error },
  );
}

function isNative(error: unknown): error is NativeError {
  return error instanceof Error && "nvmlResult" in error;
}

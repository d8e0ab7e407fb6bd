/** The interface that both sources offer. */

import { LazygraphError } from "../base/errors.ts";
import type { GpuDevice, GpuReading, GpuSurvey } from "./device.ts";
import type { GpuSource, GpuSourceFailure } from "./unavailable.ts";
import type { GpuWatch, GpuWatchEvent, GpuWatchOptions } from "./watch.ts";

/**
 * The GPUs of this host. Calls fail with the codes `ERR_LAZYGRAPH_GPU_UNKNOWN_DEVICE`,
 * `ERR_LAZYGRAPH_GPU_LOST` (the device disappeared or needs a reset), `ERR_LAZYGRAPH_GPU_CALL`
 * (the driver or nvidia-smi answered with another error), after `close()` `ERR_LAZYGRAPH_CLOSED`,
 * and for what can't be a UUID or an option with an OptionError.
 */
export interface GpuMemory extends AsyncDisposable {
  readonly available: true;
  readonly source: GpuSource;
  /** Better sources that did not work. */
  readonly skipped: readonly GpuSourceFailure[];
  /** What the source warned of when it was opened, though it works; of nvidia-smi alone. */
  readonly warnings: readonly string[];
  /** Such as `570.86.10`. */
  readonly driverVersion?: string;
  /** The newest CUDA that the driver supports, such as `12.8`. */
  readonly cudaVersion?: string;
  /** How exact byte counts are: 1 from NVML, 1,048,576 from nvidia-smi. */
  readonly precisionBytes: number;
  /** All devices, those that answer and those that don't. Off the event loop. */
  survey(): Promise<GpuSurvey>;
  /** The devices that answer. */
  devices(): Promise<readonly GpuDevice[]>;
  /** Memory of one device. With NVML this is one driver call, microseconds on this thread. */
  read(uuid: string): Promise<GpuReading>;
  /**
   * Calls back when free memory crosses a threshold, after one reading that checks the device.
   * With NVML the readings are made by a thread of their own. At most 64 at a time.
   */
  watch(options: GpuWatchOptions, callback: (event: GpuWatchEvent) => unknown): Promise<GpuWatch>;
  /** Ends all watches and lets go of the driver. */
  close(): Promise<void>;
}

export const WATCHES_MAX = 64;

/** Why none of what was found is the device of that name. */
export function unknownDevice(uuid: string, { devices, faults }: GpuSurvey): LazygraphError {
  // A device that answers with an error may not even tell its name.
  const nameless = faults.find((fault) => fault.uuid === undefined);
  if (nameless !== undefined) return nameless.error;
  const known = [...devices, ...faults].map((each) => each.uuid);
  const list = known.length > 0 ? `one of ${known.join(", ")}` : "none, as the host has no GPU";
  return new LazygraphError(
    "ERR_LAZYGRAPH_GPU_UNKNOWN_DEVICE",
    `there is no GPU ${uuid} on this host: expected ${list}`,
  );
}

/** What the two sources share: which watches are open, and that nothing works after the close. */
export class OpenWatches {
  readonly #watches = new Set<GpuWatch>();
  /** Watches that are between their first reading and their start. */
  #starting = 0;
  #closed = false;

  get closed(): boolean {
    return this.#closed;
  }

  check(): void {
    if (!this.#closed) return;
    throw new LazygraphError(
      "ERR_LAZYGRAPH_CLOSED",
      "this GPU memory reader was closed; open another one",
    );
  }

  async add(start: () => Promise<GpuWatch>): Promise<GpuWatch> {
    if (this.#watches.size + this.#starting >= WATCHES_MAX) {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_GPU_CALL",
        `${WATCHES_MAX} watches are open, which is the most; close those that are not needed`,
      );
    }
    this.#starting += 1;
    try {
      const watch = await start();
      this.#watches.add(watch);
      void watch.closed.then(() => this.#watches.delete(watch));
      if (this.#closed) void watch.close();
      return watch;
    } finally {
      this.#starting -= 1;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#watches].map((watch) => watch.close()));
  }
}

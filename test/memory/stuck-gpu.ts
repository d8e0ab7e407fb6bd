/** A driver with one GPU that stops answering when told to, as a broken one does. */

import type { Clock } from "../../src/base/clock.ts";
import type { GpuMemory, GpuWatch } from "../../src/gpu/memory.ts";
import { HostGpus } from "../../src/memory/gpus.ts";

const GIB = 1024 ** 3;

export class StuckGpu {
  answers = true;
  /** Whether a watch can be started. */
  watches = true;
  readings = 0;
  readonly started: number[] = [];
  ended = 0;
  readonly faults: unknown[] = [];

  host(clock: Clock): HostGpus {
    return new HostGpus({
      clock,
      onNews: () => undefined,
      onFault: (_, error) => this.faults.push(error),
      open: async () => this.memory(),
    });
  }

  memory(): GpuMemory {
    const free = { totalBytes: 80 * GIB, freeBytes: 60 * GIB, usedBytes: 20 * GIB };
    const answer = async <T>(value: T): Promise<T> =>
      this.answers ? value : new Promise<T>(() => undefined);
    const close = (): Promise<void> => answer(undefined);
    return {
      available: true,
      source: "nvml",
      skipped: [],
      warnings: [],
      precisionBytes: 1,
      survey: () => answer({ devices: [], faults: [] }),
      devices: () => answer([]),
      read: () => {
        this.readings++;
        return answer(free);
      },
      watch: async ({ intervalMs, belowBytes }) => {
        if (!this.watches) throw new Error("no watch");
        this.started.push(belowBytes);
        return this.#watch(intervalMs);
      },
      close,
      [Symbol.asyncDispose]: close,
    };
  }

  #watch(intervalMs: number): GpuWatch {
    const closed = Promise.resolve();
    const close = (): Promise<void> => {
      this.ended++;
      return closed;
    };
    return { intervalMs, closed, close, [Symbol.asyncDispose]: close };
  }
}

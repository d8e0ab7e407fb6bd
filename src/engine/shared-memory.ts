/** What all engines of a controller share of memory, and the user's settings of it. */

import type { HostGpus } from "../memory/gpus.ts";
import { MemoryLedger } from "../memory/ledger.ts";
import type { MemoryOptions } from "../memory/options.ts";

export interface SharedMemory {
  readonly ledger: MemoryLedger;
  /** Undefined where the user turned it off. */
  readonly gpus: HostGpus | undefined;
  readonly marginBytes: number | undefined;
  readonly utilization: number | undefined;
}

/** @param gpus this host's; undefined: only the engines' own figures count */
export function sharedMemory(options: Partial<MemoryOptions> = {}, gpus?: HostGpus): SharedMemory {
  const { marginBytes, utilization } = options;
  return { ledger: new MemoryLedger(), gpus, marginBytes, utilization };
}

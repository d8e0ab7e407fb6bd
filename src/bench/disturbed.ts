/** Runs whose figures are the benchmark's own and not the engine's. Pure. */

import type { RunFigures } from "./run-figures.ts";

/** Lateness of the generator at p99 above which latencies are its own. */
export const LATE_MS = 2;

export function isDisturbed({ generatorLateP99Ms = 0 }: RunFigures): boolean {
  return generatorLateP99Ms > LATE_MS;
}

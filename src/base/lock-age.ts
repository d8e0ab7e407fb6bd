import { stat } from "node:fs/promises";

/** A lock file is void after this long: who ends while holding one leaves it behind. */
export const LOCK_MS_MAX = 30_000;

/** How far a lock is from now; undefined where there is none any more. */
export async function lockAgeMs(file: string): Promise<number | undefined> {
  const about = await stat(file).catch(() => undefined);
  // One from the future, of a clock set back since, would never be void.
  return about && Math.abs(Date.now() - about.mtimeMs);
}

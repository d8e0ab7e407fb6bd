/** One change of a folder of keys at a time, by whichever process. */

import { type FileHandle, open, unlink } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { codeOf, OptionError } from "../base/errors.ts";
import { LOCK_MS_MAX, lockAgeMs } from "../base/lock-age.ts";
import { PUBLIC_MODE } from "../base/secret-file.ts";

/** A change takes milliseconds. */
const LOCK_WAIT_MS = 10_000;
const LOCK_POLL_MS = 10;

/** A new file that is a lock as well. One that a killed process left behind is void after a while. */
export async function openAlone(folder: string, part: string): Promise<FileHandle> {
  const deadline = performance.now() + LOCK_WAIT_MS;
  for (;;) {
    try {
      return await open(part, "wx", PUBLIC_MODE);
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    }
    const ageMs = await lockAgeMs(part);
    if (ageMs !== undefined && ageMs > LOCK_MS_MAX) {
      await unlink(part).catch(() => undefined);
    } else if (performance.now() > deadline) {
      throw new OptionError(
        "FOLDER",
        `Expected nobody else to change the keys of ${folder}, got ${part}, which another process ` +
          "holds: try again.",
      );
    } else {
      await sleep(LOCK_POLL_MS);
    }
  }
}

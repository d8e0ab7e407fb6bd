import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf } from "./errors.ts";

/**
 * Makes a folder and those above it. Node's own `recursive` never returns where a file system
 * denies that there is a parent (/proc), and keeps a processor busy for it.
 */
export async function makeFolder(folder: string, mode = 0o777): Promise<void> {
  try {
    await mkdir(folder, mode);
  } catch (error) {
    const code = codeOf(error);
    if (code === "EEXIST") return;
    const parent = dirname(folder);
    if (code !== "ENOENT" || parent === folder) throw error;
    await makeFolder(parent, mode);
    await mkdir(folder, mode).catch((again: unknown) => {
      // Two processes may start at once.
      if (codeOf(again) !== "EEXIST") throw again;
    });
  }
}

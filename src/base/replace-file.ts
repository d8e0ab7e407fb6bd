import { randomUUID } from "node:crypto";
import { rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** Writes a file as a whole: no reader finds half of it. */
export async function replaceFile(file: string, text: string | Uint8Array): Promise<void> {
  // No process's number: in containers that share a volume they are all alike.
  const part = join(dirname(file), `.${basename(file)}.${randomUUID().slice(0, 8)}`);
  try {
    await writeFile(part, text);
    await rename(part, file);
  } catch (error) {
    await rm(part, { force: true }).catch(() => undefined);
    throw error;
  }
}

import { access, constants, rename, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { usageError } from "./errors.ts";

export interface Report {
  /** Replaces the file as a whole: a reader never sees half a document. */
  write(document: object): Promise<void>;
}

/** `--json FILE`. An impossible path is refused before anything starts. */
export async function openReport(path: string): Promise<Report> {
  try {
    await access(dirname(path), constants.W_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw usageError("--json", `a file in a folder that can be written (${code})`, path);
  }
  let writing: Promise<void> = Promise.resolve();
  return {
    write(document) {
      const text = `${JSON.stringify(document)}\n`;
      // One after the other: the settled figures must not overtake the final ones.
      writing = writing.catch(() => undefined).then(() => replace(path, text));
      return writing;
    },
  };
}

async function replace(path: string, text: string): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, text);
  await rename(temporary, path);
}

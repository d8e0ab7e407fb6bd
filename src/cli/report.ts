import { randomUUID } from "node:crypto";
import { realpath, rm, stat, writeFile } from "node:fs/promises";
import { codeOf, LazygraphError } from "../base/errors.ts";
import { replaceFile } from "../base/replace-file.ts";
import { quote, usageError } from "./errors.ts";

export interface Report {
  /**
   * Replaces the file as a whole: a reader never sees half a document.
   *
   * @throws LazygraphError `ERR_LAZYGRAPH_FILE`
   */
  write(document: object, indent?: number): Promise<void>;
}

/** `--json FILE`, or another option's. An impossible path is refused before anything starts. */
export async function openReport(given: string, option = "--json"): Promise<Report> {
  const path = await requireWritable(given, option);
  let writing: Promise<void> = Promise.resolve();
  return {
    write(document, indent) {
      const text = `${JSON.stringify(document, undefined, indent)}\n`;
      // One after the other: the settled figures must not overtake the final ones.
      writing = writing.catch(() => undefined).then(() => replace(path, text, option));
      return writing;
    },
  };
}

/**
 * @returns the file to replace: of a link the one that it names
 * @throws OptionError for a path that can't be written, or whose folder isn't there
 */
export async function requireWritable(given: string, option: string): Promise<string> {
  // Elsewhere it means stdout: a file of that name is nobody's wish.
  if (given === "-") throw usageError(option, "a file: this one can't go to stdout", given);
  const present = await stat(given).catch(() => undefined);
  // Renamed over, a device such as /dev/null would be lost to the whole system.
  if (present !== undefined && !present.isFile()) {
    const kind = present.isDirectory() ? "not a folder" : "not a device or a pipe";
    throw usageError(option, `a file, ${kind}`, given);
  }
  // Of a link the file that it names is replaced, not the link.
  const path = present === undefined ? given : await realpath(given);
  try {
    const probe = `${path}.${randomUUID().slice(0, 8)}.tmp`;
    await writeFile(probe, "");
    await rm(probe);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw usageError(option, `a file in a folder that can be written (${code})`, given);
  }
  return path;
}

async function replace(path: string, text: string, option: string): Promise<void> {
  await replaceFile(path, text).catch((cause: unknown) => {
    throw notWritten(path, option, cause);
  });
}

/** Of a file that `requireWritable` let pass before the work began. */
export function notWritten(path: string, option: string, cause: unknown): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_FILE",
    `Expected ${option} to be a file that can still be written, got ${codeOf(cause)} for ` +
      `${quote(path)}: make room, or give another path.`,
    { cause },
  );
}

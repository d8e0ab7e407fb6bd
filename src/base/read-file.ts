import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { codeOf, messageOf } from "./errors.ts";

/** Of a file that somebody named: a pipe would be waited for, and a device may have no end. */
export function readRegularFile(path: string | URL, bytesMax: number): Buffer {
  // Without O_NONBLOCK opening a pipe would wait for whoever writes into it.
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const about = fstatSync(file);
    if (!about.isFile() && !about.isDirectory()) throw new Error("a pipe or a device of that name");
    if (about.size > bytesMax)
      throw new Error(`${about.size} bytes, over the limit of ${bytesMax}`);
    return readFileSync(file);
  } finally {
    closeSync(file);
  }
}

/** What the codes mean that a mistyped or forgotten path has. */
const MEANINGS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file, so check its name",
  ENOTDIR: "a part of its path is no folder, so check its name",
  EISDIR: "it is a folder, so name a file in it",
  EACCES: "this user may not read it, so change its owner or mode",
};

/** What came in place of a file, and what to do, for the end of a sentence. */
export function unreadable(error: unknown): string {
  const code = codeOf(error);
  const meaning = MEANINGS[code ?? ""];
  return meaning === undefined ? (code ?? messageOf(error)) : `${code}: ${meaning}`;
}

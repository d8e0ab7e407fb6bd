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

/** What came in place of a file, for the end of a sentence. */
export function unreadable(error: unknown): string {
  return codeOf(error) ?? messageOf(error);
}

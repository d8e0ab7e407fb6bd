/**
 * Secrets from files: only what a file's rights keep from other users is taken as one. Its group may
 * read it: that is how Kubernetes hands a mounted Secret to a container that isn't root.
 */

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
import { OptionError } from "./errors.ts";
import { unreadable } from "./read-file.ts";

/** Group members may not write it, others may do nothing with it. */
const FORBIDDEN_MODE = 0o027;
/** Of new files: their owner's alone. */
export const SECRET_MODE = 0o600;
/** Of those that everybody may read. */
export const PUBLIC_MODE = 0o644;
const BYTES_MAX = 65_536;

/**
 * The text of a file that others can't read, without blanks around it.
 *
 * @param option that named the file
 * @throws OptionError for a file that can't be read, is too open, too large or no regular file
 */
export async function readSecretFile(option: string, path: string): Promise<string> {
  return (await read(option, path, true)).trim();
}

/** The same at once: for options, which are read before anything runs. */
export function readSecretFileSync(option: string, path: string): string {
  const shown = JSON.stringify(path.slice(0, 200));
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw mistake(option, `a readable file, got ${shown}: ${unreadable(cause)}`);
  }
  try {
    checkFile(option, shown, fstatSync(file), true);
    const buffer = Buffer.alloc(BYTES_MAX);
    return buffer.toString("utf8", 0, readSync(file, buffer, 0, BYTES_MAX, 0)).trim();
  } finally {
    closeSync(file);
  }
}

/** The same for what is no secret, such as public keys and certificates: any rights will do. */
export async function readPublicFile(option: string, path: string): Promise<string> {
  return (await read(option, path, false)).trim();
}

async function read(option: string, path: string, isSecret: boolean): Promise<string> {
  const shown = JSON.stringify(path.slice(0, 200));
  // Without O_NONBLOCK opening a pipe would wait for whoever writes into it.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause) => {
    throw mistake(option, `a readable file, got ${shown}: ${unreadable(cause)}`);
  });
  try {
    // Of the opened file, and not of its path, which may be another file by now.
    const about = await file.stat().catch(() => ({ mode: 0, size: 0 }));
    checkFile(option, shown, about, isSecret);
    const buffer = Buffer.alloc(BYTES_MAX);
    const { bytesRead } = await file.read(buffer, 0, BYTES_MAX, 0);
    return buffer.toString("utf8", 0, bytesRead);
  } finally {
    await file.close();
  }
}

function checkFile(
  option: string,
  shown: string,
  { mode, size }: { readonly mode: number; readonly size: number },
  isSecret: boolean,
): void {
  if ((mode & constants.S_IFMT) !== constants.S_IFREG) {
    throw mistake(option, `a regular file, got ${shown}, which is none`);
  }
  if (isSecret && (mode & FORBIDDEN_MODE) !== 0) {
    const rights = (mode & 0o777).toString(8).padStart(4, "0");
    throw mistake(
      option,
      `a file that other users can't read and its group can't write, got ${shown} with mode ` +
        `${rights}: \`chmod 600\` it`,
    );
  }
  if (size > BYTES_MAX) {
    throw mistake(option, `a file of at most ${BYTES_MAX} bytes, got ${size} in ${shown}`);
  }
}

function mistake(option: string, rest: string): OptionError {
  return new OptionError(option, `Expected ${option} to name ${rest}.`);
}

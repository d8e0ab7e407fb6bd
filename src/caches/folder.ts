/** A folder of one engine's caches: what is in it, and how a start uses it. */

import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import {
  access,
  chmod,
  cp,
  link,
  lstat,
  open,
  readdir,
  realpath,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { codeOf, LazygraphError, messageOf } from "../base/errors.ts";
import { removeLeftover, temporaryFolder } from "../base/leftovers.ts";
import { makeFolder } from "../base/make-folder.ts";
import { type CacheFingerprint, differences, differencesText } from "./fingerprint.ts";
import { CACHE_KINDS, cacheVariables, DRIVER_KIND } from "./kinds.ts";
import {
  formatManifest,
  MANIFEST,
  MANIFEST_BYTES_MAX,
  type Manifest,
  parseManifest,
  UNPACKING,
} from "./manifest.ts";

const FILES_MAX = 1_000_000;

/** The manifest; undefined where there is nothing yet. */
export async function readFolder(folder: string): Promise<Manifest | undefined> {
  const names = await readdir(folder).catch((error: unknown): string[] => {
    if (codeOf(error) === "ENOENT") return [];
    throw cachesError(`a folder of caches at ${folder}`, messageOf(error), "name another", error);
  });
  if (names.includes(UNPACKING)) {
    throw cachesError(
      `an empty folder or complete caches at ${folder}`,
      "some that are being unpacked, or were when that was ended",
      "wait until they are, or empty it",
    );
  }
  if (!names.includes(MANIFEST)) {
    const other = await unknownIn(folder, names);
    if (other === undefined) return undefined;
    throw cachesError(
      `an empty folder or one of caches at ${folder}`,
      `other files, such as ${other}`,
      "name another, or empty it",
    );
  }
  const text = await bounded(join(folder, MANIFEST)).catch((error: unknown) => {
    throw cachesError(`${MANIFEST} in ${folder}`, messageOf(error), "fill the caches anew", error);
  });
  return manifestOf(text, folder);
}

/**
 * What a folder holds that nobody may take for the beginning of caches; undefined: nothing.
 *
 * A launcher has the folder's variables before the first start fills it, and its imports and its
 * question to the driver leave folders there. The driver's files say themselves what they are for;
 * of the other kinds a file could be another engine's.
 */
async function unknownIn(folder: string, names: readonly string[]): Promise<string | undefined> {
  for (const name of names) {
    // A volume's own is nothing that anybody could miss.
    if (name === "lost+found" || name === DRIVER_KIND) continue;
    // A manifest that is being written, or was when its writer was killed.
    if (name.startsWith(`.${MANIFEST}.`)) continue;
    if (!CACHE_KINDS.some((kind) => kind.name === name)) return name;
    const inside = { recursive: true, withFileTypes: true } as const;
    const entries = await readdir(join(folder, name), inside).catch(() => undefined);
    if (entries === undefined || entries.some((entry) => !entry.isDirectory())) return name;
  }
  return undefined;
}

/** @throws LazygraphError for a text that is none */
export function manifestOf(text: string | undefined, place: string): Manifest {
  const manifest = text === undefined ? undefined : parseManifest(text);
  if (manifest !== undefined) return manifest;
  throw cachesError(
    `${MANIFEST} of this version in ${place}`,
    "something else",
    "fill the caches anew",
  );
}

async function bounded(file: string): Promise<string | undefined> {
  await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
  const { size } = await handle.stat();
  // Awaited here: while the file is being closed nobody would see it fail.
  return size > MANIFEST_BYTES_MAX ? undefined : await handle.readFile("utf8");
}

/** As a whole or not at all, unless another start was first, which may be another engine's. */
async function claim(folder: string, manifest: Manifest): Promise<void> {
  const own = `.${MANIFEST}.${randomUUID().slice(0, 8)}`;
  await written(folder, async (file) => {
    const part = join(folder, own);
    try {
      await writeFile(part, formatManifest(manifest));
      await link(part, file).catch((error: unknown) => {
        // Not every file system has links.
        return codeOf(error) === "EEXIST" ? undefined : rename(part, file);
      });
    } finally {
      await rm(part, { force: true });
    }
  });
}

async function written(folder: string, write: (file: string) => Promise<void>): Promise<void> {
  try {
    await makeFolder(folder);
    await write(join(folder, MANIFEST));
  } catch (error) {
    throw cachesError(
      `a folder of caches at ${folder} that can be written`,
      messageOf(error),
      "give this user the right to it",
      error,
    );
  }
}

/** @throws LazygraphError `ERR_LAZYGRAPH_CACHES_FINGERPRINT` with what differs */
export function checkFingerprint(manifest: Manifest, here: CacheFingerprint, place: string): void {
  const found = differences(manifest.fingerprint, here);
  if (found.length === 0) return;
  throw new LazygraphError(
    "ERR_LAZYGRAPH_CACHES_FINGERPRINT",
    `Expected caches of this engine in ${place}, got some made with ${differencesText(found)}: ` +
      "fill others for it.",
  );
}

export interface UsedCaches {
  /** For the engine's environment. */
  readonly variables: Readonly<Record<string, string>>;
  readonly how: "filled" | "used" | "copied";
  /** Takes away a private copy. */
  release(): Promise<void>;
}

/**
 * Makes a start use the folder's caches: fills it where it is empty, adds to it where it may be
 * written, and works on a private copy where it may not, since every one of them takes locks.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_CACHES`, or `…_FINGERPRINT`
 */
export async function useCaches(
  given: string,
  here: CacheFingerprint,
  readOnly: boolean,
): Promise<UsedCaches> {
  const folder = resolve(given);
  const manifest = await readFolder(folder);
  const kept = async (): Promise<void> => undefined;
  if (manifest === undefined) {
    if (readOnly) {
      throw cachesError(
        `caches at ${folder}`,
        "none",
        "fill the folder without --caches-read-only",
      );
    }
    await claim(folder, { fingerprint: here, folder });
    const first = await readFolder(folder);
    if (first !== undefined) checkFingerprint(first, here, folder);
    return { variables: cacheVariables(folder), how: "filled", release: kept };
  }
  checkFingerprint(manifest, here, folder);
  if (!readOnly && (await mayWrite(folder))) {
    return { variables: cacheVariables(folder), how: "used", release: kept };
  }
  let copy: string | undefined;
  const release = async (): Promise<void> => {
    if (copy !== undefined) await removeLeftover(copy);
  };
  try {
    copy = await temporaryFolder("lazygraph-caches-");
    for (const { name } of CACHE_KINDS) await copyIfThere(join(folder, name), join(copy, name));
  } catch (error) {
    await release().catch(() => undefined);
    throw cachesError(
      `room for a private copy of ${folder} in ${tmpdir()}`,
      messageOf(error),
      "let the folder be written",
      error,
    );
  }
  return { variables: cacheVariables(copy), how: "copied", release };
}

async function copyIfThere(from: string, to: string): Promise<void> {
  if (!(await isThere(from))) return;
  // Copied on write where the file system can; ninja compares times.
  const mode = constants.COPYFILE_FICLONE;
  const filter = async (path: string): Promise<boolean> => {
    const about = await lstat(path).catch(() => undefined);
    // Opening a pipe would wait for whoever writes into it.
    return about?.isFIFO() === false && !about.isSocket();
  };
  // What it is a link to, and not the link, which would be no copy.
  const source = await realpath(from);
  await cp(source, to, { recursive: true, preserveTimestamps: true, mode, filter });
  await makeWritable(to);
}

/** What the folder's rights kept from being written is the engine's own to change in a copy. */
async function makeWritable(path: string): Promise<void> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const own = entries.filter((entry) => !entry.isSymbolicLink());
  for (const each of [path, ...own.map(({ parentPath, name }) => join(parentPath, name))]) {
    const { mode } = await stat(each);
    if ((mode & constants.S_IWUSR) === 0) await chmod(each, mode | constants.S_IWUSR);
  }
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Each of the folders, too: a volume may have been filled by another user. */
async function mayWrite(folder: string): Promise<boolean> {
  for (const path of [folder, ...CACHE_KINDS.map(({ name }) => join(folder, name))]) {
    const fault = await access(path, constants.W_OK).catch((error: unknown) => codeOf(error));
    if (fault !== undefined && fault !== "ENOENT") return false;
  }
  return true;
}

export interface Size {
  readonly files: number;
  readonly bytes: number;
}

/** Of everything below a path; undefined where there is nothing. */
export async function sizeOf(path: string): Promise<Size | undefined> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch(
    () => undefined,
  );
  if (entries === undefined) return undefined;
  let [files, bytes] = [0, 0];
  for (const entry of entries.slice(0, FILES_MAX)) {
    if (!entry.isFile()) continue;
    files++;
    // What goes away meanwhile has no size.
    bytes += await stat(join(entry.parentPath, entry.name)).then(
      ({ size }) => size,
      () => 0,
    );
  }
  return { files, bytes };
}

export function cachesError(
  expected: string,
  got: string,
  what: string,
  cause?: unknown,
): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_CACHES",
    `Expected ${expected}, got ${got.slice(0, 200)}: ${what}.`,
    { cause },
  );
}

/** A folder of caches as one file, to bake into an image or to mount: a gzipped tar. */

import { randomUUID } from "node:crypto";
import { readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { create, extract, list, type ReadEntry } from "tar";
import { codeOf, LazygraphError, messageOf } from "../base/errors.ts";
import { forget, leftover, removeLeftover } from "../base/leftovers.ts";
import { makeFolder } from "../base/make-folder.ts";
import { GIB } from "../base/units.ts";
import { cachesError, manifestOf, readFolder } from "./folder.ts";
import { CACHE_KINDS } from "./kinds.ts";
import {
  formatManifest,
  MANIFEST,
  MANIFEST_BYTES_MAX,
  type Manifest,
  UNPACKING,
} from "./manifest.ts";

const ENTRIES_MAX = 1_000_000;
const BYTES_MAX = 64 * GIB;
/** Locks and half-written files are of no use elsewhere. */
const PASSING = /(^|\/)(tmp\.pid_[^/]*|[^/]*\.lock|locks)(\/|$)/;

export interface Packed {
  readonly files: number;
  /** Before compression. */
  readonly bytes: number;
  readonly packBytes: number;
}

/** @throws LazygraphError `ERR_LAZYGRAPH_CACHES` */
export async function packFolder(given: string, file: string): Promise<Packed> {
  const folder = resolve(given);
  if ((await readFolder(folder)) === undefined) {
    throw cachesError(`caches at ${folder}`, "none", "start an engine with `run --caches` first");
  }
  const names = await readdir(folder);
  const kinds = CACHE_KINDS.map(({ name }) => name).filter((name) => names.includes(name));
  let [files, bytes] = [0, 0];
  const filter = (path: string, about: unknown): boolean => {
    const { isFile, isDirectory, size } = described(about);
    if (PASSING.test(path) || !(isFile || isDirectory)) return false;
    if (isFile) [files, bytes] = [files + 1, bytes + size];
    return true;
  };
  // Two may pack into the same file.
  const part = leftover(`${file}.${randomUUID().slice(0, 8)}.part`);
  try {
    // First: found without reading on.
    await create({ file: part, cwd: folder, gzip: true, filter }, [MANIFEST, ...kinds]);
    await rename(part, file);
    forget(part);
  } catch (error) {
    await removeLeftover(part).catch(() => undefined);
    throw cachesError(`to write ${file}`, messageOf(error), "name another place", error);
  }
  return { files: files - 1, bytes, packBytes: (await stat(file)).size };
}

function described(about: unknown): { isFile: boolean; isDirectory: boolean; size: number } {
  const stats = about as { isFile(): boolean; isDirectory(): boolean; size: number };
  return { isFile: stats.isFile(), isDirectory: stats.isDirectory(), size: stats.size };
}

export interface PackContent extends Omit<Packed, "packBytes"> {
  readonly manifest: Manifest;
}

/** Reads all of a pack and keeps nothing but its manifest: so damage is found, too. */
export async function readPack(file: string): Promise<PackContent> {
  let [entries, files, bytes] = [0, 0, 0];
  const texts: Buffer[] = [];
  const onReadEntry = (entry: ReadEntry): void => {
    entries++;
    if (entry.path === MANIFEST && entry.size <= MANIFEST_BYTES_MAX) {
      entry.on("data", (data: Buffer) => texts.push(data));
    } else if (entry.type === "File") {
      files++;
      bytes += entry.size;
    }
    if (entries > ENTRIES_MAX || bytes > BYTES_MAX) throw tooMuch(file);
  };
  try {
    // Opening a pipe would wait for a writer; and a pack is read twice.
    if (!(await stat(file)).isFile()) throw new Error("no plain file");
    await list({ file, strict: true, onReadEntry });
  } catch (error) {
    if (error instanceof LazygraphError) throw error;
    const [got, remedy] =
      codeOf(error) === "ENOENT"
        ? ["nothing of that name", "check its name"]
        : [messageOf(error), "pack the caches anew"];
    throw cachesError(`a pack at ${file}`, got, remedy, error);
  }
  const text = texts.length === 0 ? undefined : Buffer.concat(texts).toString("utf8");
  return { manifest: manifestOf(text, file), files, bytes };
}

function tooMuch(file: string): LazygraphError {
  const most = `${ENTRIES_MAX} entries and ${BYTES_MAX / GIB} GiB`;
  return cachesError(`at most ${most} in ${file}`, "more", "pack one engine's caches only");
}

/**
 * Into an empty folder. Only plain files and folders of caches are taken; the manifest comes last,
 * so that a folder that has one is complete. Until then others keep away, who may come at once.
 *
 * @param content what `readPack` said of it
 * @throws LazygraphError `ERR_LAZYGRAPH_CACHES`
 */
export async function unpack(file: string, given: string, content: PackContent): Promise<void> {
  const folder = resolve(given);
  await requireEmpty(folder);
  const part = join(folder, UNPACKING);
  try {
    await makeFolder(folder);
    await writeFile(part, formatManifest(content.manifest), { flag: "wx" });
    if ((await readdir(folder)).includes(MANIFEST)) {
      await rm(part);
      await requireEmpty(folder);
    }
    await extract({
      ...{ file, cwd: folder, strict: true, preserveOwner: false },
      filter: (path, entry) => {
        const { type } = entry as ReadEntry;
        const plain = type === "File" || type === "Directory";
        return (
          plain && CACHE_KINDS.some(({ name }) => path === name || path.startsWith(`${name}/`))
        );
      },
    });
    await rename(part, join(folder, MANIFEST));
  } catch (error) {
    if (codeOf(error) === "EEXIST") await requireEmpty(folder);
    if (error instanceof LazygraphError) throw error;
    throw cachesError(`to unpack into ${folder}`, messageOf(error), "empty it, then again", error);
  }
}

async function requireEmpty(folder: string): Promise<void> {
  if ((await readFolder(folder)) === undefined) return;
  throw cachesError(`an empty folder at ${folder}`, "one with caches", "name another or empty it");
}

/** Where some of what is compiled looks for its files; undefined: the same place. */
export function movedFrom({ manifest }: PackContent, given: string): string | undefined {
  const folder = resolve(given);
  return manifest.folder === folder ? undefined : join(manifest.folder);
}

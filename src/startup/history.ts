/** Past starts of one command, in a small file: the last few, each with when its phases began. */

import { createHash } from "node:crypto";
import { readdir, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { makeFolder } from "../base/make-folder.ts";
import { jsonObject } from "../base/parse-json.ts";
import { readRegularFile } from "../base/read-file.ts";
import { replaceFile } from "../base/replace-file.ts";
import type { PastStart } from "./progress.ts";

const FORMAT = "lazygraph-past-starts";
const VERSION = 1;
/** Older ones were of another host, another version or another disk cache. */
export const STARTS_MAX = 8;
const BYTES_MAX = 1 << 18;
const PHASES_MAX = 100;
const KEY_CHARS = 24;
/** Of commands nobody starts any more; each change of an option is another command. */
const FILES_MAX = 256;

/** A file's name for what decides how long a start takes. */
export function historyKey(words: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(words)).digest("hex").slice(0, KEY_CHARS);
}

/** None where there is no file, or none that can be read: an estimate is no reason to fail. */
export async function readHistory(file: string): Promise<PastStart[]> {
  const { format, formatVersion, starts } = bodyOf(file) as Record<string, unknown>;
  if (format !== FORMAT || formatVersion !== VERSION || !Array.isArray(starts)) return [];
  return starts.filter(isPastStart).slice(-STARTS_MAX);
}

function bodyOf(file: string): object {
  try {
    return jsonObject(readRegularFile(file, BYTES_MAX).toString()) ?? {};
  } catch {
    return {};
  }
}

/**
 * Adds one as a whole; two that end at once may lose one of them. Of other commands in its folder
 * the ones that were started least recently are forgotten, so that no more than 256 are kept.
 */
export async function addToHistory(file: string, start: PastStart): Promise<void> {
  const starts = [...(await readHistory(file)), start].slice(-STARTS_MAX);
  await makeFolder(dirname(file));
  const body = { format: FORMAT, formatVersion: VERSION, starts };
  await replaceFile(file, `${JSON.stringify(body)}\n`);
  await forgetOldest(dirname(file));
}

async function forgetOldest(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".json"));
  if (names.length <= FILES_MAX) return;
  const files = names.map(async (name) => {
    const path = join(folder, name);
    // Another process may have forgotten it by now.
    const about = await stat(path).catch(() => undefined);
    return { path, atMs: about?.mtimeMs ?? 0 };
  });
  const oldest = (await Promise.all(files)).sort((a, b) => a.atMs - b.atMs);
  for (const { path } of oldest.slice(0, -FILES_MAX)) await rm(path, { force: true });
}

function isPastStart(value: unknown): value is PastStart {
  const { readySeconds, began } = (value ?? {}) as Record<string, unknown>;
  if (!isSeconds(readySeconds) || typeof began !== "object" || began === null) return false;
  const phases = Object.values(began);
  return phases.length <= PHASES_MAX && phases.every(isSeconds);
}

function isSeconds(value: unknown): boolean {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

/** What a folder of caches, and a pack, says of itself. Pure. */

import * as v from "valibot";
import { jsonObject } from "../base/parse-json.ts";
import type { CacheFingerprint } from "./fingerprint.ts";

export const MANIFEST: string = "lazygraph-caches.json";
/** What becomes the manifest once a pack is unpacked, and keeps others away until then. */
export const UNPACKING: string = `${MANIFEST}.unpacking`;
export const MANIFEST_BYTES_MAX: number = 1 << 20;
const FORMAT = "lazygraph-caches";
const VERSION = 1;

const texts = v.record(v.string(), v.string());
const manifest = v.object({
  format: v.literal(FORMAT),
  formatVersion: v.literal(VERSION),
  folder: v.string(),
  fingerprint: v.object({
    python: v.string(),
    packages: texts,
    gpu: v.string(),
    driver: v.string(),
    model: v.string(),
    options: v.array(v.string()),
    variables: texts,
  }),
});

export interface Manifest {
  readonly fingerprint: CacheFingerprint;
  /** Where they were filled: some of what is compiled names its place. */
  readonly folder: string;
}

export function formatManifest({ fingerprint, folder }: Manifest): string {
  const body = { format: FORMAT, formatVersion: VERSION, folder, fingerprint };
  return `${JSON.stringify(body, undefined, 1)}\n`;
}

/** Undefined for what is no manifest that this version can read. */
export function parseManifest(text: string): Manifest | undefined {
  const { success, output } = v.safeParse(manifest, jsonObject(text));
  if (!success) return undefined;
  const { folder, fingerprint } = output;
  return { folder, fingerprint };
}

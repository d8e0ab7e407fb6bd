/** What a folder of caches, and a pack, says of itself. Pure. */

import { jsonObject } from "../base/parse-json.ts";
import type { CacheFingerprint } from "./fingerprint.ts";

export const MANIFEST: string = "lazygraph-caches.json";
export const MANIFEST_BYTES_MAX: number = 1 << 20;
const FORMAT = "lazygraph-caches";
const VERSION = 1;

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
  const body = jsonObject(text) as Record<string, unknown> | undefined;
  if (body?.["format"] !== FORMAT || body["formatVersion"] !== VERSION) return undefined;
  const { folder, fingerprint } = body;
  if (typeof folder !== "string" || typeof fingerprint !== "object" || fingerprint === null) {
    return undefined;
  }
  const { python, packages, gpu, driver, model, options, variables } = fingerprint as Record<
    string,
    unknown
  >;
  if (![python, gpu, driver, model].every((each) => typeof each === "string")) return undefined;
  if (!isTexts(packages) || !isTexts(variables)) return undefined;
  if (!Array.isArray(options) || !options.every((each) => typeof each === "string")) {
    return undefined;
  }
  const read = { python, packages, gpu, driver, model, options, variables };
  return { folder, fingerprint: read as CacheFingerprint };
}

function isTexts(value: unknown): value is Record<string, string> {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((each) => typeof each === "string")
  );
}

/** Results as files: JSON, packed where it is large. */

import { readFileSync, writeFileSync } from "node:fs";
import { brotliCompressSync, brotliDecompressSync, gunzipSync, gzipSync } from "node:zlib";

export function readResult<T>(file: URL): T {
  const bytes = readFileSync(file);
  return JSON.parse(unpacked(file, bytes).toString("utf8")) as T;
}

export function writeResult(file: URL, result: object): void {
  const { pathname } = file;
  if (pathname.endsWith(".br")) {
    writeFileSync(file, brotliCompressSync(`${JSON.stringify(result, rounded)}\n`));
  } else if (pathname.endsWith(".gz")) {
    const text = JSON.stringify(result, rounded, 1);
    writeFileSync(file, gzipSync(`${text}\n`, { level: 9 }));
  } else writeFileSync(file, `${JSON.stringify(result)}\n`);
}

/** Of a fraction six digits, more than any clock here tells: for `JSON.stringify`. */
export function rounded(_: string, value: unknown): unknown {
  return typeof value === "number" && Number.isFinite(value) && !Number.isInteger(value)
    ? Number(value.toPrecision(6))
    : value;
}

/** Brotli for what is large: up to a third less than gzip. */
function unpacked({ pathname }: URL, bytes: Buffer): Buffer {
  if (pathname.endsWith(".br")) return brotliDecompressSync(bytes);
  return pathname.endsWith(".gz") ? gunzipSync(bytes) : bytes;
}

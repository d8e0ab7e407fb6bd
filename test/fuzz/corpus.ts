/** The frames that fuzzing begins with: all golden ones, and those that once led somewhere new. */

import { readResult, writeResult } from "../../bench/lib/result-file.ts";
import type { Side } from "./decoders.ts";

const GOLDEN = new URL("../golden/frames.json.gz", import.meta.url);
const KEPT = new URL("../golden/fuzz-corpus.json.gz", import.meta.url);
/** Longer ones are worth no more. */
const FRAME_BYTES_MAX = 600;
const KEPT_MAX = 600;

interface GoldenFile {
  readonly frames: readonly { readonly direction: Side; readonly hex: string }[];
  readonly foreign: readonly { readonly direction: Side; readonly hex: string }[];
}

export type Kept = Record<Side, string[]>;

export function golden(side: Side): Uint8Array[] {
  const { frames, foreign } = readResult<GoldenFile>(GOLDEN);
  return [...frames, ...foreign]
    .filter(({ direction }) => direction === side)
    .map(({ hex }) => Uint8Array.from(Buffer.from(hex, "hex")));
}

export function kept(): Kept {
  return readResult<Kept>(KEPT);
}

export function corpus(side: Side): Uint8Array[] {
  const more = kept()[side].map((hex) => Uint8Array.from(Buffer.from(hex, "hex")));
  return [...golden(side), ...more];
}

/** @param found frames of each side that came to an outcome which none before them had */
export function keep(found: Record<Side, readonly Uint8Array[]>): void {
  const { "from-engine": from, "to-engine": to } = kept();
  const add = (known: readonly string[], frames: readonly Uint8Array[]): string[] => {
    const small = frames.filter(({ byteLength }) => byteLength <= FRAME_BYTES_MAX);
    const hex = small.map((frame) => Buffer.from(frame).toString("hex"));
    return [...new Set([...known, ...hex])].slice(0, KEPT_MAX);
  };
  const all = {
    "from-engine": add(from, found["from-engine"]),
    "to-engine": add(to, found["to-engine"]),
  };
  writeResult(KEPT, all);
}

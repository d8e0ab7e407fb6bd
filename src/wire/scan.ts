/**
 * Walks a msgpack frame without building anything from it.
 *
 * A decoder allocates what a header claims before it sees the content: 1 MiB of nested array
 * headers claims terabytes. It also turns extension types into objects of its own. So the shape is
 * checked first: one value that fills the frame, plain types only, counts that the remaining bytes
 * can hold, and a bounded depth.
 */

/** The deepest message is map → list → map → list; the rest is room for a newer peer. */
const DEPTH_MAX = 8;

/** Bytes after the first one that fixed-size values take, from 0xc0 to 0xdf; -1: not of that kind. */
const FIXED_BYTES = table({
  192: 0, // nil
  194: 0, // false
  195: 0, // true
  202: 4, // float32
  203: 8, // float64
  204: 1, // uint8 … uint64
  205: 2,
  206: 4,
  207: 8,
  208: 1, // int8 … int64
  209: 2,
  210: 4,
  211: 8,
});

/** Bytes of the length field of bin and str, likewise. */
const BLOB_LENGTH_BYTES = table({ 196: 1, 197: 2, 198: 4, 217: 1, 218: 2, 219: 4 });
/** Bytes of the number of entries of arrays and maps, likewise. */
const LIST_LENGTH_BYTES = table({ 220: 2, 221: 4, 222: 2, 223: 4 });
const FIRST_MAP = 0xde;

function table(bytes: Readonly<Record<number, number>>): Int8Array {
  return Int8Array.from({ length: 32 }, (_, at) => bytes[0xc0 + at] ?? -1);
}

/** Returns what is wrong with the frame, as the rest of a sentence; undefined when it is sound. */
export function scanFrame(frame: Uint8Array): string | undefined {
  const end = frame.byteLength;
  /** Values still to come on each level that is open. */
  const open: number[] = [1];
  let at = 0;
  while (open.length > 0) {
    const top = open.length - 1;
    const left = open[top] as number;
    if (left === 0) {
      open.pop();
      continue;
    }
    open[top] = left - 1;
    if (at >= end) return "it is cut short";
    const lead = frame[at] as number;
    at += 1;
    if (lead <= 0x7f || lead >= 0xe0) continue;
    let children = 0;
    if (lead <= 0x8f) children = (lead & 0x0f) * 2;
    else if (lead <= 0x9f) children = lead & 0x0f;
    else if (lead <= 0xbf) at += lead & 0x1f;
    else {
      const kind = lead - 0xc0;
      const fixed = FIXED_BYTES[kind] as number;
      const blob = BLOB_LENGTH_BYTES[kind] as number;
      const list = LIST_LENGTH_BYTES[kind] as number;
      if (fixed >= 0) at += fixed;
      else if (blob > 0 || list > 0) {
        const bytes = Math.max(blob, list);
        if (at + bytes > end) return "it is cut short";
        const length = readLength(frame, at, bytes);
        at += bytes;
        if (blob > 0) at += length;
        else children = lead >= FIRST_MAP ? length * 2 : length;
      } else return `byte 0x${lead.toString(16)} at offset ${at - 1} starts no plain value`;
    }
    if (at > end || children > end - at) return "it is cut short";
    if (children > 0 && open.push(children) > DEPTH_MAX + 1) {
      return `it nests deeper than ${DEPTH_MAX} levels`;
    }
  }
  if (at === end) return undefined;
  return end - at === 1 ? "1 byte follows its value" : `${end - at} bytes follow its value`;
}

/** An unsigned number, the highest byte first. */
function readLength(frame: Uint8Array, at: number, bytes: number): number {
  let length = 0;
  for (let place = at; place < at + bytes; place++) length = length * 256 + (frame[place] ?? 0);
  return length;
}

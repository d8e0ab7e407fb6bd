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

/** Bytes after the first one that fixed-size values take, by leading byte from 0xc0 to 0xdf. */
const FIXED_BYTES: Readonly<Record<number, number>> = {
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
};

/** Bytes of the length field of bin and str, by leading byte. */
const BLOB_LENGTH_BYTES: Readonly<Record<number, number>> = {
  196: 1,
  197: 2,
  198: 4,
  217: 1,
  218: 2,
  219: 4,
};

interface Head {
  /** Bytes to skip: content of a scalar. */
  readonly skip: number;
  /** Values that follow inside this one. */
  readonly children: number;
}

/** Returns what is wrong with the frame, as the rest of a sentence; undefined when it is sound. */
export function scanFrame(frame: Uint8Array): string | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const open: number[] = [1];
  let at = 0;
  try {
    while (open.length > 0) {
      const left = open[open.length - 1] as number;
      if (left === 0) {
        open.pop();
        continue;
      }
      open[open.length - 1] = left - 1;
      const lead = view.getUint8(at);
      at += 1;
      const lengthBytes = lengthFieldBytes(lead);
      const head = readHead(view, lead, at);
      if (head === undefined) {
        return `byte 0x${lead.toString(16)} at offset ${at - 1} starts no plain value`;
      }
      at += lengthBytes + head.skip;
      if (head.children > frame.byteLength - at || at > frame.byteLength) return "it is cut short";
      if (head.children > 0 && open.push(head.children) > DEPTH_MAX + 1) {
        return `it nests deeper than ${DEPTH_MAX} levels`;
      }
    }
  } catch (error) {
    if (error instanceof RangeError) return "it is cut short";
    throw error;
  }
  return at === frame.byteLength ? undefined : `${frame.byteLength - at} bytes follow its value`;
}

function lengthFieldBytes(lead: number): number {
  if (lead === 0xdc || lead === 0xde) return 2;
  if (lead === 0xdd || lead === 0xdf) return 4;
  return BLOB_LENGTH_BYTES[lead] ?? 0;
}

function readHead(view: DataView, lead: number, at: number): Head | undefined {
  if (lead <= 0x7f || lead >= 0xe0) return { skip: 0, children: 0 };
  if (lead <= 0x8f) return { skip: 0, children: (lead & 0x0f) * 2 };
  if (lead <= 0x9f) return { skip: 0, children: lead & 0x0f };
  if (lead <= 0xbf) return { skip: lead & 0x1f, children: 0 };
  const fixed = FIXED_BYTES[lead];
  if (fixed !== undefined) return { skip: fixed, children: 0 };
  const blob = BLOB_LENGTH_BYTES[lead];
  if (blob !== undefined) return { skip: readLength(view, at, blob), children: 0 };
  if (lead === 0xdc || lead === 0xdd) {
    return { skip: 0, children: readLength(view, at, lengthFieldBytes(lead)) };
  }
  if (lead === 0xde || lead === 0xdf) {
    return { skip: 0, children: readLength(view, at, lengthFieldBytes(lead)) * 2 };
  }
  return undefined;
}

function readLength(view: DataView, at: number, bytes: number): number {
  if (bytes === 1) return view.getUint8(at);
  return bytes === 2 ? view.getUint16(at) : view.getUint32(at);
}

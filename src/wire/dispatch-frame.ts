/**
 * A dispatch table written straight into its frame: an engine that fills is sent a new one for every
 * graph, of some hundred rows, and writing one in general takes four passes over it, three of which
 * copy it (its checks, its wide numbers, its bytes).
 *
 * Only the plainest form is written here: rows by rising sizes, short names in visible ASCII. Any
 * other table, sound or not, is left to the general way. So no rule is loosened, no error changes,
 * and the bytes are the same: a test holds the two together.
 */

import { type Dispatch, type DispatchRow, LIMITS } from "./protocol.ts";

/** Names up to here have their length in one byte with the mark of a text. */
const SHORT_CHARS = 31;
/** A row without graphs takes 17 bytes at most, and each graph one more than its name. */
const ROW_BYTES_MAX = 17;
const GRAPH_BYTES_MAX = 1 + SHORT_CHARS;

const bytes = new Uint8Array(64 * 1024);
const HEAD = Buffer.concat([Buffer.of(0x83), text("type"), text("dispatch")]);
const UNIFORM = text("uniform");
const MIXED = text("mixed");
const ROW_AND_UP_TO = Buffer.concat([Buffer.of(0x82), text("upTo")]);
const GRAPHS = text("graphs");

function text(value: string): Buffer {
  return Buffer.concat([Buffer.of(0xa0 + value.length), Buffer.from(value, "latin1")]);
}

/** Where the next byte goes. */
let at = 0;

/** @returns undefined where the table is to be written in general */
export function writeDispatch({ uniform, mixed }: Dispatch): Buffer | undefined {
  at = 0;
  put(HEAD);
  put(UNIFORM);
  if (!putRows(uniform)) return undefined;
  put(MIXED);
  if (!putRows(mixed)) return undefined;
  return Buffer.from(bytes.subarray(0, at));
}

function putRows(rows: readonly DispatchRow[]): boolean {
  if (!Array.isArray(rows) || rows.length > LIMITS.tableRows) return false;
  putLength(rows.length);
  let before = 0;
  for (const row of rows as readonly (Partial<DispatchRow> | null | undefined)[]) {
    const { upTo, graphs } = row ?? {};
    if (!Number.isInteger(upTo) || !Array.isArray(graphs)) return false;
    const tokens = upTo as number;
    if (tokens <= before || tokens > LIMITS.tokens) return false;
    if (graphs.length > LIMITS.rowGraphs) return false;
    if (at + ROW_BYTES_MAX + graphs.length * GRAPH_BYTES_MAX > bytes.length - 64) return false;
    before = tokens;
    put(ROW_AND_UP_TO);
    putWhole(tokens);
    put(GRAPHS);
    putLength(graphs.length);
    for (const name of graphs) if (!putName(name)) return false;
  }
  return true;
}

function put(part: Uint8Array): void {
  for (let index = 0; index < part.length; index++) bytes[at++] = part[index] ?? 0;
}

function putLength(length: number): void {
  if (length < 16) {
    bytes[at++] = 0x90 + length;
    return;
  }
  bytes[at++] = 0xdc;
  bytes[at++] = length >> 8;
  bytes[at++] = length & 0xff;
}

/** From 1 on, of at most 32 bits. */
function putWhole(value: number): void {
  if (value < 0x80) {
    bytes[at++] = value;
    return;
  }
  const size = value < 0x100 ? 1 : value < 0x10000 ? 2 : 4;
  bytes[at++] = size === 1 ? 0xcc : size === 2 ? 0xcd : 0xce;
  for (let byte = size - 1; byte >= 0; byte--) bytes[at++] = (value >>> (8 * byte)) & 0xff;
}

function putName(name: unknown): boolean {
  if (typeof name !== "string") return false;
  const { length } = name;
  if (length === 0 || length > SHORT_CHARS) return false;
  bytes[at++] = 0xa0 + length;
  for (let index = 0; index < length; index++) {
    const unit = name.charCodeAt(index);
    if (unit < 0x20 || unit > 0x7e) return false;
    bytes[at++] = unit;
  }
  return true;
}

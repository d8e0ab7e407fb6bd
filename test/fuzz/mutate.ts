/**
 * Frames that are nearly messages: a sound one, changed where a decoder has to be careful. As
 * values (a field gone, of another type, beyond its limit) and as bytes (a header that lies, a cut,
 * a splice). Seeded, so that a frame can be made again.
 */

import { Packr, Unpackr } from "msgpackr";
import type { Random } from "../../src/base/random.ts";
import { LIMITS } from "../../src/wire/protocol.ts";

const OPTIONS = { useRecords: false, moreTypes: false, variableMapSize: true } as const;
const packr = new Packr(OPTIONS);
const unpackr = new Unpackr(OPTIONS);

const LONG = "x".repeat(LIMITS.textChars + 1);
/** What a field may hold that is at a limit, beyond one, or of no sort that it should be. */
const VALUES: readonly unknown[] = [
  undefined,
  null,
  true,
  false,
  0,
  -0,
  -1,
  1,
  0.5,
  255,
  65_536,
  2 ** 31,
  2 ** 32,
  2 ** 53 - 1,
  2 ** 53,
  -(2 ** 53),
  2n ** 63n,
  2n ** 64n - 1n,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  1e308,
  "",
  "\u0000",
  "\n",
  "__proto__",
  "FULL:8",
  "日".repeat(LIMITS.idChars),
  "x".repeat(LIMITS.idChars + 1),
  LONG,
  [],
  [[]],
  {},
  { __proto__: null, type: "hello" },
  new Uint8Array(4),
  new Date(0),
];

type Fields = Record<string, unknown>;

export function mutate(random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  const seed = pick(random, seeds);
  const changed = random() < 0.6 ? changeValue(random, seed, seeds) : seed;
  return random() < 0.5 ? changed : changeBytes(random, changed, seeds);
}

function changeValue(random: Random, frame: Uint8Array, seeds: readonly Uint8Array[]): Uint8Array {
  const value = read(frame);
  if (typeof value !== "object" || value === null) return frame;
  const changes = 1 + Math.floor(random() ** 2 * 4);
  for (let change = 0; change < changes; change++) changeOne(random, value as Fields, seeds);
  try {
    return new Uint8Array(packr.pack(value));
  } catch {
    // A number that msgpack has no bytes for.
    return frame;
  }
}

function changeOne(random: Random, root: Fields, seeds: readonly Uint8Array[]): void {
  const [holder, key] = placeIn(random, root);
  const other = read(pick(random, seeds)) as Fields | undefined;
  switch (Math.floor(random() * 7)) {
    case 0:
      delete holder[key];
      break;
    case 1:
      holder[key] = pick(random, VALUES);
      break;
    case 2:
      // A field of another message, the type among them.
      if (other !== undefined) Object.assign(root, pickField(random, other));
      break;
    case 3:
      holder[`${key}_`] = holder[key];
      break;
    case 4:
      holder[key] = nested(random, holder[key]);
      break;
    case 5:
      holder[key] = many(random, holder[key]);
      break;
    default:
      holder[key] = nudged(random, holder[key]);
  }
}

/** A field somewhere in a message, the deeper ones as likely as the others. */
function placeIn(random: Random, root: Fields): [Fields, string] {
  let holder = root;
  for (;;) {
    const keys = Object.keys(holder);
    const key = keys[Math.floor(random() * keys.length)] ?? "type";
    const inner = holder[key];
    const deeper = typeof inner === "object" && inner !== null && Object.keys(inner).length > 0;
    if (!deeper || inner instanceof Uint8Array || random() < 0.3) return [holder, key];
    holder = inner as Fields;
  }
}

function pickField(random: Random, from: Fields): Fields {
  const key = pick(random, Object.keys(from));
  return { [key]: from[key] };
}

function nested(random: Random, value: unknown): unknown {
  let inner = value;
  const depth = Math.floor(random() * 12);
  for (let level = 0; level < depth; level++) inner = random() < 0.5 ? [inner] : { a: inner };
  return inner;
}

/** The same entry over and over: alike ones are refused, and so are too many. */
function many(random: Random, value: unknown): unknown {
  const list = Array.isArray(value) ? value : [value];
  const [entry] = list;
  const length = pick(random, [2, LIMITS.tags + 1, LIMITS.rowGraphs + 1, LIMITS.ranks + 1]);
  if (random() < 0.5) return Array.from({ length }, () => entry);
  return Array.from({ length }, (_, place) =>
    typeof entry === "object" && entry !== null && !Array.isArray(entry)
      ? { ...entry, id: `FULL:${place + 1}`, rank: place, graph: `FULL:${place + 1}` }
      : `FULL:${place + 1}`,
  );
}

function nudged(random: Random, value: unknown): unknown {
  if (typeof value === "number") return value + pick(random, [-1, 1, 0.5, 2 ** 20, -(2 ** 20)]);
  if (typeof value === "string") {
    return pick(random, [value.slice(0, -1), value + value, value.toUpperCase(), `${value}\u0007`]);
  }
  if (typeof value === "boolean") return !value;
  return pick(random, VALUES);
}

function changeBytes(random: Random, frame: Uint8Array, seeds: readonly Uint8Array[]): Uint8Array {
  const at = Math.floor(random() * frame.byteLength);
  const bytes = Uint8Array.from(frame);
  switch (Math.floor(random() * 6)) {
    case 0:
      bytes[at] = Math.floor(random() * 256);
      return bytes;
    case 1:
      // A header: of every kind of value there is, and of lengths that the frame hasn't.
      bytes[at] = 0x80 + Math.floor(random() * 0x80);
      return bytes;
    case 2:
      return bytes.subarray(0, at);
    case 3:
      return concat(bytes.subarray(0, at), pick(random, seeds).subarray(Math.floor(random() * 20)));
    case 4:
      return concat(bytes, Uint8Array.of(Math.floor(random() * 256)));
    default:
      return concat(bytes.subarray(0, at), pick(random, LYING_HEADERS), bytes.subarray(at));
  }
}

/** Maps and arrays that claim millions of entries, texts that claim gigabytes, extensions. */
const LYING_HEADERS: readonly Uint8Array[] = [
  "dd01000000",
  "df01000000",
  "dbffffffff",
  "c6ffffffff",
  "c9ffffffff01",
  "d6ff00000000",
  "c1",
  "dcffff",
  "9191919191919191919191",
  "cb7ff8000000000000",
  "cfffffffffffffffff",
].map((hex) => Uint8Array.from(Buffer.from(hex, "hex")));

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}

function read(frame: Uint8Array): unknown {
  try {
    return unpackr.unpack(frame);
  } catch {
    return undefined;
  }
}

function pick<T>(random: Random, entries: readonly T[]): T {
  return entries[Math.floor(random() * entries.length)] as T;
}

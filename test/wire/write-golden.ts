/**
 * Writes frames.json.gz: `node --import tsx test/wire/write-golden.ts`.
 *
 * Run it when the protocol gains a message or a field, and read what it says: a frame that is there
 * already and changes is read by older peers as something else than was meant.
 */

import { writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { readResult } from "../../bench/lib/result-file.ts";
import { encode } from "../../src/wire/codec.ts";
import { FOREIGN, MESSAGES } from "./golden-messages.ts";

const path = new URL("../golden/frames.json.gz", import.meta.url);
const { frames: before } = readResult<{ frames: { name: string; hex: string }[] }>(path);
const known = new Map(before.map(({ name, hex }) => [name, hex]));
const frames = MESSAGES.map(({ name, direction, message }) => ({
  name,
  direction,
  message,
  hex: encode(message).toString("hex"),
}));
for (const { name, hex } of frames) {
  if (!known.has(name)) console.log(`new: ${name}`);
  else if (known.get(name) !== hex) console.log(`CHANGED: ${name}`);
  known.delete(name);
}
for (const name of known.keys()) console.log(`gone: ${name}`);
writeFileSync(path, gzipSync(JSON.stringify({ frames, foreign: FOREIGN }), { level: 9 }));

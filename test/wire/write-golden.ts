/**
 * Writes frames.json: `node --import tsx test/wire/write-golden.ts`.
 *
 * Run it when the protocol gains a message or a field, then read the diff: a changed `hex` of an
 * existing frame means that older peers read something else than was meant.
 */

import { writeFileSync } from "node:fs";
import { encode } from "../../src/wire/codec.ts";
import { FOREIGN, MESSAGES } from "./golden-messages.ts";

const frames = MESSAGES.map(({ name, direction, message }) => ({
  name,
  direction,
  message,
  hex: encode(message).toString("hex"),
}));

/** A frame a line, so that a diff names each that has changed. */
const lines = (rows: readonly object[]): string =>
  `[\n${rows.map((row) => JSON.stringify(row)).join(",\n")}\n]`;

const path = new URL("../golden/frames.json", import.meta.url);
writeFileSync(path, `{"frames": ${lines(frames)},\n"foreign": ${lines(FOREIGN)}}\n`);

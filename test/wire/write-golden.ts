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

/** A frame a line: that is what a change of it shows. */
const lines = (all: readonly unknown[]): string =>
  all.map((one) => `\n${JSON.stringify(one)}`).join(",");

const path = new URL("../golden/frames.json", import.meta.url);
writeFileSync(path, `{"frames":[${lines(frames)}],\n"foreign":[${lines(FOREIGN)}]}\n`);

/** Answers in zstd, whose library may not come back. */

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Unzstd } from "../../src/measure/content-decoder.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { PACKED } from "./packed-shapes.ts";

const { pieces } = PACKED.find(({ name }) => name === "zstd") as (typeof PACKED)[number];

test("each piece keeps the time at which its bytes came", async () => {
  const times: number[] = [];
  let text = "";
  const decoder = new Unzstd((bytes, atMs) => {
    times.push(atMs);
    text += Buffer.from(bytes).toString();
  });
  for (const [index, piece] of pieces.entries()) decoder.push(piece as Uint8Array, index);
  expect(await decoder.end()).toBeUndefined();
  expect(text.endsWith("data: [DONE]\n\n") || text.endsWith("[DONE]\n\n")).toBe(true);
  expect(times).toEqual([...times].sort((a, b) => a - b));
  expect(new Set(times).size).toBeGreaterThan(2);
});

test("an answer that the library doesn't come back from is damaged, and holds up nobody", async () => {
  const library = join(await temporaryFolder(), "stuck.cjs");
  await writeFile(library, "exports.Decompress = class { push() { for (;;); } };");
  const stuck = new Unzstd(() => expect.unreachable(), { library, pieceMsMax: 50 });
  for (const piece of pieces) stuck.push(piece as Uint8Array, 0);
  expect(await stuck.end()).toBe("no end of a piece after 0.05 s");
});

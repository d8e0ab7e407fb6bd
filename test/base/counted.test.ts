/** Numbers of things in what people read: `1 start`, never `1 starts`. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { counted } from "../../src/base/counted.ts";

test("one of a thing is one, any other number several", () => {
  expect([0, 1, 2].map((count) => counted(count, "start"))).toEqual([
    ...["0 starts", "1 start", "2 starts"],
  ]);
  expect(counted(3, "process")).toBe("3 processes");
  expect(counted(1, "process")).toBe("1 process");
  expect(counted(1200, "request", "1,200")).toBe("1,200 requests");
});

/** A number and a noun that is always several. No limit is one; of a share, `3 of ${all} graphs`, both are at hand. */
const ALWAYS_SEVERAL =
  /(?<!of )\$\{(?![^}]*(?:counted|_MAX))[^}]*\} (?:starts|files|processes|spans|requests|runs|keys)\b(?! no plain)/g;

test("no sentence has a noun that is several whatever its number is", () => {
  const root = new URL("../../src/", import.meta.url).pathname;
  const files = readdirSync(root, { recursive: true, encoding: "utf8" });
  const found = files
    .filter((file) => file.endsWith(".ts"))
    .flatMap((file) => {
      const lines = readFileSync(join(root, file), "utf8").split("\n");
      return lines.filter((line) => line.match(ALWAYS_SEVERAL) !== null).map((line) => line.trim());
    })
    // A number that is chosen by its own sentence to be several.
    .filter((line) => !/=== 1 \?/.test(line));
  expect(found).toEqual([]);
  expect("means of " + "$" + "{n} starts").not.toMatch(ALWAYS_SEVERAL);
  expect("$" + "{n} starts were left out").toMatch(ALWAYS_SEVERAL);
});

/**
 * Runs those of a checkout's vitest tests that are in a list, and nothing else of their files. A
 * file may have moved, but is known by its own name: to import all others would cost time as well.
 *
 *   node --import tsx bench/lib/old-tests.ts NAMES.json REPORT.json     in the checkout's root
 *
 * NAMES.json has `files`, their names without folders, and `names`: `describe` blocks and the test,
 * joined by " > ".
 */

import { readdirSync, readFileSync } from "node:fs";
import { basename, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { createVitest } from "vitest/node";

const [names = "", report = ""] = process.argv.slice(2);
const { files } = JSON.parse(readFileSync(names, "utf8")) as { files: string[] };
const basenames = new Set(files);
// For the workers: thousands of names are too many for one regular expression.
process.env["OLD_TESTS"] = resolve(names);
const vitest = await createVitest("test", {
  watch: false,
  reporters: ["default", "json"],
  outputFile: { json: report },
  setupFiles: [fileURLToPath(new URL("old-tests-only.ts", import.meta.url))],
});
const here = readdirSync("test", { recursive: true, encoding: "utf8" });
await vitest.start(here.filter((path) => basenames.has(basename(path))).map((f) => `test/${f}`));
await vitest.close();

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
import { basename } from "node:path";
import { createVitest } from "vitest/node";

const [names = "", report = ""] = process.argv.slice(2);
const wanted = JSON.parse(readFileSync(names, "utf8")) as { files: string[]; names: string[] };
const basenames = new Set(wanted.files);
// Vitest joins names by a blank to match them.
const escaped = wanted.names.map((name) =>
  name.replaceAll(" > ", " ").replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"),
);
const vitest = await createVitest("test", {
  watch: false,
  reporters: ["default", "json"],
  outputFile: { json: report },
  testNamePattern: new RegExp(`^(?:${escaped.join("|")})$`),
});
const here = readdirSync("test", { recursive: true, encoding: "utf8" });
await vitest.start(here.filter((path) => basenames.has(basename(path))).map((f) => `test/${f}`));
await vitest.close();

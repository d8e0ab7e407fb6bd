/**
 * Sums up what bench/gpu/loaders.sh left as one document on stdout, or prints such a one's table.
 *
 *   node --import tsx bench/gpu/loaders-summary.ts OUT_DIR HOST SHAPE > bench/results/NAME.json
 *   node --import tsx bench/gpu/loaders-summary.ts --table bench/results/NAME.json
 */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { StartResult } from "../../src/startup/start.ts";
import { readResult, rounded } from "../lib/result-file.ts";
import { CACHES, type LoadersResult, loadersTable, startsOf } from "./lib/loaders-result.ts";

const [folder, host, shape] = process.argv.slice(2);
if (folder === "--table" && host !== undefined) {
  console.log(loadersTable(readResult<LoadersResult>(pathToFileURL(host))));
} else if (folder === undefined || host === undefined || shape === undefined) {
  console.error("Expected OUT_DIR HOST SHAPE or --table FILE, such as out H200 llama-3.1-8b.");
  process.exitCode = 2;
} else {
  const starts = CACHES.flatMap((cache) => {
    const file = join(folder, cache, "startup.json");
    if (!existsSync(file)) return [];
    const found = JSON.parse(readFileSync(file, "utf8")) as { starts: readonly StartResult[] };
    return startsOf(cache, found.starts);
  });
  const result: LoadersResult = { what: "loaders", host, shape, starts };
  console.log(JSON.stringify(result, rounded, 1));
}

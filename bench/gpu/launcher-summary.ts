/**
 * Sums up what bench/gpu/launcher.sh left, in one or several folders, as one document on stdout.
 *
 *   node --import tsx bench/gpu/launcher-summary.ts FAMILY HOST OUT_DIR… > bench/results/NAME.json
 *
 * COLD_TURNS=1,2 leaves out turns in which caches were still being filled, as where a warm-up was
 * cut off; the document says so.
 * Several folders: parts run in separate calls; of a part in two of them the last counts.
 */

import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { StartResult } from "../../src/startup/start.ts";
import type { Comparison, LauncherChecks, LauncherResult } from "./lib/start-result.ts";

const [family, host, ...folders] = process.argv.slice(2);
if (family === undefined || host === undefined || folders.length === 0) {
  console.error("Expected FAMILY HOST OUT_DIR…, such as dense-8b H200 out.");
  process.exit(2);
}

const coldTurns = (process.env["COLD_TURNS"] ?? "")
  .split(",")
  .filter((turn) => turn !== "")
  .map(Number);
if (!coldTurns.every(Number.isInteger)) {
  console.error(`Expected COLD_TURNS as 1,2, got ${process.env["COLD_TURNS"]}.`);
  process.exit(2);
}

function place(name: string): string | undefined {
  return folders.map((folder) => join(folder, name)).findLast((path) => existsSync(path));
}

function read<T>(name: string): T | undefined {
  const file = place(name);
  return file === undefined ? undefined : (JSON.parse(readFileSync(file, "utf8")) as T);
}

function comparison(name: string): Comparison | undefined {
  const file = place(name);
  const found = read<Omit<Comparison, "starts"> & { starts: readonly StartResult[] }>(name);
  if (file === undefined || found === undefined) return undefined;
  const { simulated, failures, left } = found;
  const starts = found.starts
    .filter(({ variant, run }) => !wasSpawned(join(dirname(file), `${variant}-${run}.log`)))
    .filter(({ run }) => !coldTurns.includes(run))
    .map(({ segments: _, ...start }) => start);
  return { simulated, failures, left, ...(coldTurns.length > 0 ? { coldTurns } : {}), starts };
}

/** What was to be forked and was spawned instead measures nothing of a launcher. */
function wasSpawned(log: string): boolean {
  return existsSync(log) && readFileSync(log, "utf8").includes("Not forked but spawned");
}

/** Every folder's parts, and what they ended as. */
function parts(): Pick<LauncherResult, "serve" | "parts"> {
  const all = folders.map(
    (folder) =>
      JSON.parse(readFileSync(join(folder, "parts.json"), "utf8")) as Pick<
        LauncherResult,
        "serve" | "parts"
      >,
  );
  return { serve: all[0]?.serve ?? "", parts: all.flatMap((each) => each.parts) };
}

const price = read<{ microsecondsEach: number }>("price.json");
if (price === undefined) {
  console.error(`Expected price.json in ${folders.join(", ")}, there is none.`);
  process.exit(1);
}
const compared = comparison("startup.json");
const checks = read<LauncherChecks>("checks.json");
const starts = comparison(join("caches", "startup.json"));
const pack = read<{ packBytes: number; seconds: number }>("caches-pack.json");
const result: LauncherResult = {
  ...{ what: "launcher", family, host, spanMicroseconds: price.microsecondsEach, ...parts() },
  ...(compared === undefined ? {} : { comparison: compared }),
  ...(checks === undefined ? {} : { checks }),
  ...(starts === undefined || pack === undefined
    ? {}
    : { caches: { ...starts, packBytes: pack.packBytes, packSeconds: pack.seconds } }),
};
console.log(JSON.stringify(result, undefined, 1));

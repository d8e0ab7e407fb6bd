/**
 * Sums up what bench/gpu/many.sh left as OUT_DIR/many.json; what is missing is left out.
 *
 *   node --import tsx bench/gpu/many-summary.ts OUT_DIR FAMILY,… HOST
 */

import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ManyCheck, ManyFamily, ManyResult, RankFault } from "./lib/many-result.ts";
import type { LauncherResult } from "./lib/start-result.ts";

const [out, names, host] = process.argv.slice(2);
if (out === undefined || names === undefined || host === undefined) {
  console.error("Expected OUT_DIR FAMILY,… HOST, such as out dense-70b-tp4 H200.");
  process.exit(2);
}
const folder = out;

function read<T>(file: string): T | undefined {
  const path = join(folder, file);
  return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as T) : undefined;
}

function checksOf(family: string): ManyCheck[] {
  const place = join(folder, "checks");
  const files = existsSync(place) ? readdirSync(place).sort() : [];
  return files
    .filter((file) => file.startsWith(`${family}.`) && file.endsWith(".json"))
    .flatMap((file) => read<ManyCheck>(join("checks", file)) ?? []);
}

/** By the script that knows its parts. */
function launcherOf(family: string): LauncherResult | undefined {
  const place = join(folder, "launcher", family);
  if (!existsSync(join(place, "parts.json"))) return undefined;
  const script = new URL("launcher-summary.ts", import.meta.url).pathname;
  const command = [...process.execArgv, script, family, host as string, place];
  return JSON.parse(execFileSync(process.execPath, command, { encoding: "utf8" }));
}

function familyOf(family: string): ManyFamily {
  const launcher = launcherOf(family);
  const checks = checksOf(family);
  const faults = read<{ cases: RankFault[] }>(join("faults", `${family}.json`))?.cases ?? [];
  return {
    family,
    ranks: Number(/-tp(\d+)/.exec(family)?.[1] ?? 1),
    checks,
    faults,
    ...(launcher === undefined ? {} : { launcher }),
  };
}

const starts = read<Pick<ManyResult, "cells" | "failed">>(join("starts", "families.json"));
const variables = join(folder, "environment");
const text = existsSync(variables) ? readFileSync(variables, "utf8") : "";
const result: ManyResult = {
  what: "many",
  host,
  environment: text.split("\n").filter((line) => line !== ""),
  families: names.split(",").map(familyOf),
  cells: starts?.cells ?? [],
  failed: starts?.failed ?? [],
};
const file = join(folder, "many.json");
writeFileSync(file, `${JSON.stringify(result)}\n`);
const checks = result.families.flatMap((family) => family.checks);
const faults = result.families.flatMap((family) => family.faults);
const launchers = result.families.filter(({ launcher }) => launcher !== undefined);
console.error(
  `results: ${file} (${result.cells.length} cells, ${result.failed.length} failed, ` +
    `${checks.length} checks, ${faults.length} faults, ${launchers.length} launchers)`,
);

/**
 * Commands as people have them: compiled. Each start from the sources takes a second of a core to
 * translate them, and the tests start hundreds. Global set-up builds what is older than the sources.
 */

import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** The command `lazygraph`. */
export const MAIN: string = join(ROOT, "dist/cli/main.js");
/** `lazygraph simulated-engine` by itself. */
export const SIMULATED_ENGINE: string = join(ROOT, "dist/cli/simulated-engine.js");

export function setup(): void {
  if (existsSync(MAIN) && newest(join(ROOT, "src")) <= statSync(MAIN).mtimeMs) return;
  execFileSync(process.execPath, [join(ROOT, "scripts/build-ts.mjs")], { stdio: "inherit" });
}

/**
 * When a folder or anything in it was last changed, in milliseconds of the epoch. Folders count as
 * files do: theirs is when a file came or went.
 */
export function newest(folder: string): number {
  const inside = readdirSync(folder, { recursive: true, encoding: "utf8" });
  const paths = ["", ...inside].map((name) => join(folder, name));
  return paths.reduce((latest, path) => Math.max(latest, statSync(path).mtimeMs), 0);
}

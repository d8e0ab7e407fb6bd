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
  if (existsSync(MAIN) && newest("src") <= statSync(MAIN).mtimeMs) return;
  execFileSync(process.execPath, [join(ROOT, "scripts/build-ts.mjs")], { stdio: "inherit" });
}

function filesOf(folder: string): string[] {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true });
  return files
    .filter((file) => file.isFile())
    .map(({ parentPath, name }) => join(parentPath, name));
}

/** When a file of this folder was last changed, in milliseconds of the epoch. */
function newest(folder: string): number {
  return Math.max(0, ...filesOf(join(ROOT, folder)).map((file) => statSync(file).mtimeMs));
}

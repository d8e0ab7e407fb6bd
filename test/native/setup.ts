/** Builds the addon and its stand-in library once, where nobody has: no test of it may be skipped. */

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

export function setup(): void {
  const built = ["build/Release/gpu_memory.node", "build/fake/libnvidia-ml.so"];
  if (built.every((path) => existsSync(`${root}${path}`))) return;
  execFileSync("npm", ["run", "--silent", "build:native"], { cwd: root, stdio: "inherit" });
}

/**
 * Copies the addon that was built here to where an installed package finds it:
 * prebuilds/<platform>-<arch>/gpu_memory.node. It runs on this C library and newer ones, so
 * release builds belong on the oldest system that is supported.
 */
import { copyFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";

const root = new URL("..", import.meta.url);
const built = new URL("build/Release/gpu_memory.node", root);
const folder = new URL(`prebuilds/${process.platform}-${process.arch}/`, root);

try {
  // A file that doesn't even load here must not travel.
  createRequire(import.meta.url)(built.pathname);
} catch (error) {
  console.error(`lazygraph prebuild: ${error.message}. Run \`npm run build:native\` first.`);
  process.exit(1);
}
mkdirSync(folder, { recursive: true });
copyFileSync(built, new URL("gpu_memory.node", folder));
console.log(`prebuilds/${process.platform}-${process.arch}/gpu_memory.node`);

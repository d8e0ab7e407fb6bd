/** The Python that runs the plugin's own code without vLLM. */

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The virtual environment that `npm test` makes for the worker's tests, else the one on the path. */
export function workerPython(): string {
  const own = fileURLToPath(new URL("../../worker/.venv/bin/python", import.meta.url));
  return existsSync(own) ? own : "python3";
}

/** The words that stand for a command and have a launcher fork it. */

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { LazygraphError } from "../base/errors.ts";
import { resolvePython, withoutEnv } from "./python-of.ts";
import { askLauncher } from "./status.ts";

/**
 * Words to spawn in the place of `command`: its own Python with the launcher's client, which passes
 * on files, signals and the exit code, and which becomes the command itself where it can't be
 * forked.
 *
 * @param folder where they will be spawned. @default this process's
 * @throws LazygraphError `ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE`, `…_BUSY`, or `…_PYTHON` for a command whose
 * Python can't be known
 */
export async function launcherCommand(
  socket: string,
  command: readonly string[],
  environment: NodeJS.ProcessEnv,
  folder: string | URL = ".",
): Promise<string[]> {
  const { client } = await askLauncher(socket);
  const { variables, rest } = withoutEnv(command);
  const [name = ""] = rest;
  const at = folder instanceof URL ? fileURLToPath(folder) : folder;
  const file = name.includes("/") ? resolve(at, name) : name;
  const python = await resolvePython(file, { ...environment, ...variables });
  if (python === undefined) {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_LAUNCHER_PYTHON",
      `Expected \`vllm serve MODEL …\` of a Python on this host, got ` +
        `${JSON.stringify((command[0] ?? "").slice(0, 80))}: give it as it runs beside vLLM's Python.`,
    );
  }
  // -I: neither the folder nor the user's variables decide what this little script imports.
  return [python, "-I", client, socket, "--", ...command];
}

/**
 * Whether the Python that a command will run has the plugin `lazygraph-vllm`.
 *
 * Asked before the command starts, because without the plugin vLLM runs as if we weren't there:
 * the user would wait for a model to load only to find that nothing was gained.
 */

import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, open } from "node:fs/promises";
import { basename, delimiter, join } from "node:path";

export const PLUGIN_PACKAGE = "lazygraph-vllm";
const PLUGIN_NAME = "lazygraph";
/** The plugin is published nowhere yet and not in the npm package, so no index has its name. */
const PLUGIN_SOURCE = "./worker";
const PLUGIN_GROUP = "vllm.general_plugins";
const PROBE_TIMEOUT_MS = 10_000;
const HEAD_BYTES = 4096;

export type PluginProbe =
  | { readonly found: "yes"; readonly python: string }
  | { readonly found: "no"; readonly python: string }
  /** vLLM's own allow-list of plugins leaves ours out. */
  | { readonly found: "excluded"; readonly allowed: string }
  /** The command isn't one we can look into (a container, a launcher, a script). */
  | { readonly found: "unknown"; readonly reason: string };

const PROBE = `import importlib.metadata as m
print(any(e.name == "${PLUGIN_NAME}" for e in m.entry_points(group="${PLUGIN_GROUP}")))`;

/** How the plugin gets into a Python: a command, and where it works. */
export function pluginRemedy(python: string, flags = ""): string {
  const command = `${python} -m pip install ${flags}${PLUGIN_SOURCE}`;
  return `\`${command}\` in a checkout of lazygraph, or the same with a wheel built from there`;
}

export async function probePlugin(
  command: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<PluginProbe> {
  const allowed = environment["VLLM_PLUGINS"];
  const names = allowed?.split(",").map((name) => name.trim());
  if (allowed !== undefined && names !== undefined && !names.includes(PLUGIN_NAME)) {
    return { found: "excluded", allowed };
  }
  const python = await resolvePython(command[0] ?? "", environment);
  if (python === undefined) {
    return { found: "unknown", reason: "the command is neither a Python nor a script of one" };
  }
  const answer = await ask(python, environment);
  if (answer === "True") return { found: "yes", python };
  if (answer === "False") return { found: "no", python };
  return { found: "unknown", reason: `${python} gave no answer` };
}

/** The interpreter behind `vllm` or `python`; undefined for anything else. */
export async function resolvePython(
  file: string,
  environment: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  const path = file.includes("/") ? file : await findOnPath(file, environment);
  if (path === undefined) return undefined;
  const name = basename(path);
  if (/^python(\d+(\.\d+)?)?$/.test(name)) return path;
  if (name !== "vllm") return undefined;
  return pythonOfScript(await fileHead(path), environment);
}

/** Reads the three forms that installers write into the head of a console script. */
async function pythonOfScript(
  text: string,
  environment: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  const [first = "", second = ""] = text.split("\n");
  const shebang = /^#!\s*(\S+)(?:\s+(\S+))?/.exec(first);
  if (shebang === null) return undefined;
  const [, interpreter = "", argument = ""] = shebang;
  // pip writes `#!/bin/sh` and `'''exec' "/a long/path/python" "$0" "$@"` for paths that the
  // kernel would cut or split.
  const trampoline = /^'''exec'\s+(?:"([^"]+)"|(\S+))/.exec(second);
  if (trampoline !== null) return trampoline[1] ?? trampoline[2];
  if (basename(interpreter) === "env") {
    return argument.startsWith("python") ? findOnPath(argument, environment) : undefined;
  }
  return basename(interpreter).startsWith("python") ? interpreter : undefined;
}

export async function findOnPath(
  name: string,
  environment: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  for (const folder of (environment["PATH"] ?? "").split(delimiter)) {
    const path = join(folder, name);
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

/** The first bytes of a file as text; empty when it cannot be read. */
export async function fileHead(path: string): Promise<string> {
  try {
    await using file = await open(path);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return buffer.toString("utf8", 0, bytesRead);
  } catch {
    return "";
  }
}

/** The probe's one line; undefined when the interpreter fails, says too much or takes too long. */
function ask(python: string, environment: NodeJS.ProcessEnv): Promise<string | undefined> {
  return new Promise((resolve) => {
    execFile(
      python,
      ["-c", PROBE],
      { env: environment, timeout: PROBE_TIMEOUT_MS, killSignal: "SIGKILL", maxBuffer: 65_536 },
      (error, stdout) => resolve(error === null ? stdout.trim() : undefined),
    );
  });
}

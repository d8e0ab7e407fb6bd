/**
 * Whether the Python that a command will run has the plugin `lazygraph-vllm`.
 *
 * Asked before the command starts, because without the plugin vLLM runs as if we weren't there:
 * the user would wait for a model to load only to find that nothing was gained.
 */

import { execFile } from "node:child_process";
import { realpath } from "node:fs/promises";
import { dirname } from "node:path";
import { endsAlone } from "../base/ends-alone.ts";
import { resolvePython } from "../launcher/python-of.ts";

export const PLUGIN_PACKAGE = "lazygraph-vllm";
const PLUGIN_NAME = "lazygraph";
/** The plugin is published nowhere yet and not in the npm package, so no index has its name. */
const PLUGIN_SOURCE = "./worker";
const PLUGIN_GROUP = "vllm.general_plugins";
const PROBE_TIMEOUT_MS = 10_000;

export type PluginProbe =
  | { readonly found: "yes"; readonly python: string }
  /** `vllm`: whether vLLM itself is there, without which nothing will run at all. */
  | { readonly found: "no"; readonly python: string; readonly vllm: boolean }
  /** vLLM's own allow-list of plugins leaves ours out. */
  | { readonly found: "excluded"; readonly allowed: string }
  /** The command isn't one we can look into (a container, a launcher, a script). */
  | { readonly found: "unknown"; readonly reason: string };

/** Nothing is imported: of vLLM that takes seconds. */
const PROBE = `import importlib.metadata as m, importlib.util as u
print(any(e.name == "${PLUGIN_NAME}" for e in m.entry_points(group="${PLUGIN_GROUP}")),
      u.find_spec("vllm") is not None)`;
/** Behind what a site's start-up files print. */
const ANSWER = /^(True|False)(?: (True|False))?$/;

/** How the plugin gets into a Python: a command, and where it works. */
export function pluginRemedy(python: string, flags = ""): string {
  const command = `${python} -m pip install ${flags}${PLUGIN_SOURCE}`;
  return `\`${command}\` in a checkout of lazygraph, or the same with a wheel built from there`;
}

/**
 * @param having a Python that is known to have it, as a launcher's has: it isn't asked again, which
 *   costs a forked start a good part of what is left of it
 */
export async function probePlugin(
  command: readonly string[],
  environment: NodeJS.ProcessEnv,
  having?: string,
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
  if (having !== undefined && (await isSamePython(python, having))) return { found: "yes", python };
  const answer = await ask(python, environment);
  const [, plugin, vllm] = ANSWER.exec(answer?.split("\n").at(-1) ?? "") ?? [];
  if (plugin === "True") return { found: "yes", python };
  if (plugin === "False") return { found: "no", python, vllm: vllm !== "False" };
  return { found: "unknown", reason: `${python} gave no answer` };
}

/** One folder has one set of packages, and one file behind two names in it is one interpreter. */
async function isSamePython(a: string, b: string): Promise<boolean> {
  if (dirname(a) !== dirname(b)) return false;
  const files = await Promise.all([a, b].map((path) => realpath(path))).catch(() => undefined);
  return files !== undefined && files[0] === files[1];
}

/** What the probe prints; undefined when the interpreter fails, says too much or takes too long. */
function ask(python: string, environment: NodeJS.ProcessEnv): Promise<string | undefined> {
  return new Promise((resolve) => {
    const limits = { timeout: PROBE_TIMEOUT_MS, killSignal: "SIGKILL", maxBuffer: 65_536 } as const;
    endsAlone(
      execFile(python, ["-c", PROBE], { env: environment, ...limits }, (error, stdout) =>
        resolve(error === null ? stdout.trim() : undefined),
      ),
    );
  });
}

/**
 * What a Python has of what an engine needs. Only metadata is read: importing vLLM takes seconds
 * and may touch the GPU.
 */

import { execFile } from "node:child_process";
import { endsAlone } from "../base/ends-alone.ts";
import { PLUGIN_PACKAGE } from "./plugin-probe.ts";

const TIMEOUT_MS = 20_000;
const OUTPUT_BYTES_MAX = 256 * 1024;

export interface PythonFacts {
  readonly executable: string;
  readonly version: string;
  readonly vllm?: string;
  readonly torch?: string;
  readonly plugin?: string;
  /** The plugin's name where vLLM looks for plugins; absent if it is not registered there. */
  readonly entryPoint?: string;
}

export type PythonProbe =
  | { readonly ok: true; readonly facts: PythonFacts }
  | { readonly ok: false; readonly missing: boolean; readonly reason: string };

const MARK = "lazygraph-doctor:";
/** The mark finds the answer among whatever a site's start-up files print. */
const PROBE = `
import importlib.metadata as m, json, platform, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
own = [e.name for e in m.entry_points(group="vllm.general_plugins")
       if e.value.split(":")[0].split(".")[0] == "lazygraph_vllm"]
print("${MARK}" + json.dumps({"executable": sys.executable, "version": platform.python_version(),
  "vllm": version("vllm"), "torch": version("torch"), "plugin": version("${PLUGIN_PACKAGE}"),
  "entryPoint": own[0] if own else None}))
`;

export async function probePython(
  python: string,
  environment: NodeJS.ProcessEnv,
): Promise<PythonProbe> {
  const limits = {
    env: environment,
    timeout: TIMEOUT_MS,
    killSignal: "SIGKILL",
    maxBuffer: OUTPUT_BYTES_MAX,
  } as const;
  return new Promise((resolve) => {
    const child = execFile(python, ["-c", PROBE], limits, (error, stdout, stderr) => {
      if (error !== null) return resolve(failed(python, error, stderr));
      const facts = factsOf(stdout);
      if (facts !== undefined) return resolve({ ok: true, facts });
      const reason = `${python} did not answer as a Python 3.10 or newer does`;
      resolve({ ok: false, missing: false, reason });
    });
    endsAlone(child);
  });
}

function failed(
  python: string,
  error: Error & { code?: string | number | null; killed?: boolean },
  stderr: string,
): PythonProbe {
  if (error.code === "ENOENT") {
    return { ok: false, missing: true, reason: `there is no program ${python}` };
  }
  if (error.killed === true) {
    return { ok: false, missing: false, reason: `no answer within ${TIMEOUT_MS / 1000} s` };
  }
  const last = stderr.trim().split("\n").at(-1) || error.message;
  return { ok: false, missing: false, reason: last.slice(0, 200) };
}

function factsOf(stdout: string): PythonFacts | undefined {
  const line = stdout.split("\n").find((text) => text.startsWith(MARK));
  if (line === undefined) return undefined;
  try {
    const answer = JSON.parse(line.slice(MARK.length)) as Record<string, string | null>;
    const known = Object.entries(answer).filter(([, value]) => typeof value === "string");
    return Object.fromEntries(known) as unknown as PythonFacts;
  } catch {
    return undefined;
  }
}

/** The fingerprint of what a command would compile here: asked of its Python, its GPUs, its model. */

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { promisify } from "node:util";
import { endsAlone } from "../base/ends-alone.ts";
import { LazygraphError, messageOf } from "../base/errors.ts";
import { jsonObject } from "../base/parse-json.ts";
import { readRegularFile } from "../base/read-file.ts";
import {
  type CacheFingerprint,
  configFileOf,
  decidingOptions,
  decidingVariables,
  modelOf,
  PACKAGES,
} from "../caches/fingerprint.ts";
import { openGpuMemory } from "../gpu/memory.ts";
import { resolvePython } from "../launcher/python-of.ts";
import { PLUGIN_PACKAGE } from "./plugin-probe.ts";
import { vllmCommand } from "./vllm-command.ts";

const PROBE_SECONDS_MAX = 20;
const OUTPUT_BYTES_MAX = 1 << 16;
const MARK = "lazygraph-caches:";
/**
 * Only metadata is read; the mark finds the answer among what a site's start-up files print. Ours is
 * the one plugin that brings no kernels.
 */
const PROBE = `
import importlib.metadata as m, json, platform, sys
names = set(sys.argv[1:])
for group in "vllm.general_plugins", "vllm.platform_plugins":
    names |= {e.dist.name for e in m.entry_points(group=group) if e.dist}
found = {}
for name in sorted(names - {"${PLUGIN_PACKAGE}"}):
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print("${MARK}" + json.dumps({"python": platform.python_version(), "packages": found}))
`;

/** @throws LazygraphError `ERR_LAZYGRAPH_COMMAND_NOT_VLLM`, or `ERR_LAZYGRAPH_CACHES` */
export async function cacheFingerprint(
  command: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<CacheFingerprint> {
  const { file, words, variables } = vllmCommand(command);
  const all = { ...environment, ...variables };
  const [versions, gpu] = await Promise.all([versionsOf(file, all), gpusOf()]);
  return {
    ...versions,
    ...gpu,
    model: modelDigest(modelOf(words)),
    options: withConfigDigest(decidingOptions(words)),
    variables: decidingVariables(all),
  };
}

async function versionsOf(
  file: string,
  environment: NodeJS.ProcessEnv,
): Promise<Pick<CacheFingerprint, "python" | "packages">> {
  const python = await resolvePython(file, environment);
  const failed = (got: string, cause?: unknown): LazygraphError =>
    new LazygraphError(
      "ERR_LAZYGRAPH_CACHES",
      `Expected the versions of ${python ?? file} and its packages, got ${got.slice(0, 200)}: give ` +
        "the command as it runs beside vLLM's Python.",
      { cause },
    );
  if (python === undefined) throw failed("a command that is neither a Python nor a script of one");
  const limits = { timeout: PROBE_SECONDS_MAX * 1000, maxBuffer: OUTPUT_BYTES_MAX } as const;
  const asked = promisify(execFile)(python, ["-c", PROBE, ...PACKAGES], {
    ...{ env: environment, killSignal: "SIGKILL", ...limits },
  });
  endsAlone(asked.child);
  const { stdout } = await asked.catch((error: unknown) => {
    throw failed(messageOf(error), error);
  });
  const line = stdout.split("\n").find((text) => text.startsWith(MARK)) ?? "";
  const answer = jsonObject(line.slice(MARK.length));
  if (answer === undefined) throw failed("another answer");
  return answer as Pick<CacheFingerprint, "python" | "packages">;
}

const NO_GPU = { gpu: "none", driver: "none" } as const;

/** Kinds of GPU, not how many: a command says how many it takes. */
async function gpusOf(): Promise<Pick<CacheFingerprint, "gpu" | "driver">> {
  const memory = await openGpuMemory();
  if (!memory.available) return NO_GPU;
  try {
    const { devices } = await memory.survey();
    const kinds = devices.map(({ name, computeCapability }) =>
      computeCapability === undefined ? name : `${name} (${computeCapability})`,
    );
    const gpu = [...new Set(kinds)].sort().join(", ") || NO_GPU.gpu;
    return { gpu, driver: memory.driverVersion ?? "unknown" };
  } catch {
    return NO_GPU;
  } finally {
    await memory.close();
  }
}

const DIGEST_CHARS = 16;
const CONFIG_BYTES_MAX = 16 << 20;

/** A local model is what its configuration says, wherever it lies. */
function modelDigest(model: string | undefined): string {
  if (model === undefined) return "vLLM's default";
  return digestOf(join(model, "config.json")) ?? model;
}

/** A file that can't be read is its name: the command will say what is wrong with it. */
function withConfigDigest(options: readonly string[]): string[] {
  const file = configFileOf(options);
  const digest = file === undefined ? undefined : digestOf(file);
  return options.map((option) =>
    option === `--config ${file}` && digest !== undefined ? `--config ${digest}` : option,
  );
}

function digestOf(file: string): string | undefined {
  try {
    const content = readRegularFile(file, CONFIG_BYTES_MAX);
    return createHash("sha256").update(content).digest("hex").slice(0, DIGEST_CHARS);
  } catch {
    return undefined;
  }
}

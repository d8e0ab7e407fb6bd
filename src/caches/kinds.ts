/** What an engine compiles and keeps: which caches there are, and which variable moves each. */

import { join } from "node:path";

export interface CacheKind {
  /** Its folder's name in a folder of caches. */
  readonly name: string;
  readonly variable: string;
  readonly holds: string;
}

/** The one kind whose files any engine may have: the driver knows which of them are its own. */
export const DRIVER_KIND = "driver";

export const CACHE_KINDS: readonly CacheKind[] = [
  {
    ...{ name: "vllm", variable: "VLLM_CACHE_ROOT" },
    holds: "vLLM: graphs compiled by Inductor, what models are, autotuning, DeepGEMM's kernels",
  },
  {
    ...{ name: "inductor", variable: "TORCHINDUCTOR_CACHE_DIR" },
    holds: "Inductor: what is compiled outside of vLLM's own graphs",
  },
  {
    ...{ name: "triton", variable: "TRITON_CACHE_DIR" },
    holds: "Triton: kernels",
  },
  {
    ...{ name: "flashinfer", variable: "FLASHINFER_WORKSPACE_BASE" },
    holds: "FlashInfer: kernels",
  },
  {
    ...{ name: DRIVER_KIND, variable: "CUDA_CACHE_PATH" },
    holds: "CUDA's driver: PTX compiled for this GPU",
  },
];

/** Variables that put every cache under one folder. */
export function cacheVariables(folder: string): Record<string, string> {
  return Object.fromEntries(
    CACHE_KINDS.map(({ name, variable }) => [variable, join(folder, name)]),
  );
}

export interface CachePlace extends CacheKind {
  readonly path: string;
}

/** Where they are when nobody has moved them, or by the variables of `environment`. */
export function usualPlaces(environment: NodeJS.ProcessEnv, temporary: string): CachePlace[] {
  const home = environment["HOME"] ?? "/root";
  const user = environment["USER"] ?? environment["LOGNAME"] ?? "root";
  const usual: Readonly<Record<string, string>> = {
    vllm: join(environment["XDG_CACHE_HOME"] ?? join(home, ".cache"), "vllm"),
    inductor: join(temporary, `torchinductor_${user}`),
    triton: join(environment["TRITON_HOME"] ?? home, ".triton", "cache"),
    driver: join(home, ".nv", "ComputeCache"),
  };
  return CACHE_KINDS.map((kind) => {
    const moved = environment[kind.variable];
    if (kind.name !== "flashinfer") return { ...kind, path: moved ?? usual[kind.name] ?? "" };
    return { ...kind, path: join(moved ?? home, ".cache", "flashinfer") };
  });
}

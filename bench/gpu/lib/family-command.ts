/** The command and the environment of one cell's server. Pure. */

import {
  type Arm,
  type Family,
  type FamilyCell,
  isOurs,
  modeOf,
  type OurArm,
} from "./family-plan.ts";

export interface ServeOptions {
  /** A model's folder. */
  readonly model: string;
  /** `vllm serve` in words, or what stands for it. */
  readonly serve: readonly string[];
  readonly port: number;
  readonly httpPort: number;
  /** Our command, `node dist/cli/main.js` in words. */
  readonly lazygraph: readonly string[];
}

/** What people write by hand to start sooner: a tenth of the sizes, in octaves. */
export const TEN_SIZES = ["1", "2", "4", "8", "16", "32", "64", "128", "256", "512"];

const ARGUMENTS: Readonly<Partial<Record<Arm, readonly string[]>>> = {
  "stock-ten": ["--cudagraph-capture-sizes", ...TEN_SIZES],
};
const ENVIRONMENT: Readonly<Partial<Record<Arm, Readonly<Record<string, string>>>>> = {
  "stock-plan": { VLLM_ENABLE_STARTUP_PLAN: "1" },
};

const POLICIES: Readonly<Partial<Record<OurArm, string>>> = {
  "idle-simple": "simple",
  "idle-costed": "costed",
};

/** What `lazygraph run` gets in one arm. */
export function ourOptions(arm: OurArm): string[] {
  const policy = POLICIES[arm];
  return ["--mode", modeOf(arm), ...(policy === undefined ? [] : ["--policy", policy])];
}

/** What vLLM's own command gets besides in one arm. */
export function armArguments(arm: Arm): readonly string[] {
  return ARGUMENTS[arm] ?? [];
}

/** Stock in all its arms has the kill switch. */
export function armEnvironment(arm: Arm): Record<string, string> {
  return { ...(isOurs(arm) ? {} : { LAZYGRAPH_DISABLE: "1" }), ...ENVIRONMENT[arm] };
}

export function serveCommand(
  family: Family,
  { arm, kind }: Pick<FamilyCell, "arm" | "kind">,
  options: ServeOptions,
): string[] {
  const { serve, model, port, httpPort, lazygraph } = options;
  const more = kind === "start" ? family.startArgs : [];
  const own = [...serve, model, "--load-format", "dummy", ...family.args, ...more];
  const command = [...own, "--port", String(port), ...armArguments(arm)];
  if (!isOurs(arm)) return command;
  const run = ["run", ...ourOptions(arm), "--quiet", "--no-plan"];
  return [...lazygraph, ...run, "--http", `127.0.0.1:${httpPort}`, "--", ...command];
}

export interface EnvironmentOptions {
  readonly gpus: readonly number[];
  /** Folder with a folder of compile caches for each family; without it vLLM's own places. */
  readonly caches?: string;
}

export function serveEnvironment(
  family: Family,
  arm: Arm,
  { gpus, caches }: EnvironmentOptions,
): Record<string, string> {
  return {
    CUDA_VISIBLE_DEVICES: gpus.join(","),
    ...cacheEnvironment(family, caches),
    ...family.env,
    ...armEnvironment(arm),
  };
}

/** Each family's caches apart, so that they can be kept and carried family by family. */
export function cacheEnvironment(
  { name }: Family,
  caches: string | undefined,
): Record<string, string> {
  if (caches === undefined) return {};
  return {
    VLLM_CACHE_ROOT: `${caches}/${name}/vllm`,
    TORCHINDUCTOR_CACHE_DIR: `${caches}/${name}/inductor`,
    TRITON_CACHE_DIR: `${caches}/${name}/triton`,
  };
}

/** vLLM's own word on the size of its KV cache; undefined where its log has none. */
export function kvTokensOf(log: string): number | undefined {
  const found = /GPU KV cache size: ([\d,]+) tokens/.exec(log)?.[1];
  return found === undefined ? undefined : Number(found.replaceAll(",", ""));
}

/**
 * What compiled code is valid for: versions, GPU, and what of a command decides about it. Pure.
 *
 * Each cache has keys of its own, so that a pack of another fingerprint is mostly useless, and nobody
 * would know why a start is slow. Triton's keys leave out what they should not: some constants of a
 * kernel, and which GPU it was tuned on (findings/triton-*.sh). There a pack would be used, wrongly.
 */

export interface CacheFingerprint {
  readonly python: string;
  /** Versions by package; one that isn't installed is not there. */
  readonly packages: Readonly<Record<string, string>>;
  /** Names and compute capabilities of this host's kinds of GPU. */
  readonly gpu: string;
  readonly driver: string;
  /** What the model is: its configuration's digest, or its name. */
  readonly model: string;
  /** Options in one order, without those that compile nothing else. */
  readonly options: readonly string[];
  /** vLLM's variables, likewise. */
  readonly variables: Readonly<Record<string, string>>;
}

/** Packages that compile, or whose code is compiled; those of vLLM's plugins come beside them. */
export const PACKAGES: readonly string[] = [
  ...["vllm", "torch", "triton", "flashinfer-python", "flashinfer-cubin", "flashinfer-jit-cache"],
  ...["deep-gemm", "nvidia-cutlass-dsl"],
];

/** How a server is reached, watched and fed, not what its model's code is. */
const HARMLESS_OPTIONS: ReadonlySet<string> = new Set([
  ...["host", "port", "uds", "api-key", "root-path", "served-model-name", "middleware"],
  ...["ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "ssl-cert-reqs", "enable-ssl-refresh"],
  ...["uvicorn-log-level", "disable-uvicorn-access-log", "enable-log-requests", "log-config-file"],
  ...["disable-log-stats", "disable-log-requests", "max-log-len", "api-server-count"],
  ...["allow-credentials", "allowed-origins", "allowed-methods", "allowed-headers"],
  ...["chat-template", "chat-template-content-format", "response-role", "tool-call-parser"],
  ...["enable-auto-tool-choice", "reasoning-parser", "load-format", "download-dir"],
  ...["model-loader-extra-config", "gpu-memory-utilization", "swap-space", "seed"],
  ...["enable-sleep-mode", "shutdown-timeout", "numa-bind"],
]);

/**
 * What vLLM leaves out of its own key (`ignored_factors` of vllm/envs.py, 0.26 and 0.33). It compiles
 * anew for every other variable, even one that changes no code, such as a longer time to get ready.
 */
const HARMLESS_VARIABLES: ReadonlySet<string> = new Set([
  ...["CACHE_ROOT", "CONFIG_ROOT", "XLA_CACHE_PATH", "RPC_BASE_PATH", "DEBUG_DUMP_PATH"],
  ...["MODEL_REDIRECT_PATH", "CUDA_COMPATIBILITY_PATH", "TUNED_CONFIG_FOLDER", "ASSETS_CACHE"],
  ...["FLASHINFER_AUTOTUNE_CACHE_DIR", "PORT", "HOST_IP", "DP_MASTER_IP", "DP_MASTER_PORT"],
  ...["NIXL_SIDE_CHANNEL_HOST", "RAY_BUNDLE_INDICES", "WORKER_MULTIPROC_METHOD", "API_KEY"],
  ...["ENABLE_STARTUP_PLAN", "SERVER_DEV_MODE", "KEEP_ALIVE_ON_ENGINE_DEATH", "LOGGING_LEVEL"],
  ...["LOGGING_PREFIX", "LOGGING_STREAM", "LOGGING_COLOR", "LOGGING_CONFIG_PATH"],
  ...["LOG_STATS_INTERVAL", "NO_USAGE_STATS", "USAGE_STATS_SERVER", "DO_NOT_TRACK"],
  ...["IMAGE_FETCH_TIMEOUT", "VIDEO_FETCH_TIMEOUT", "AUDIO_FETCH_TIMEOUT"],
  ...["EXECUTE_MODEL_TIMEOUT_SECONDS", "WORKER_SHUTDOWN_TIMEOUT_SECONDS"],
]);
const HARMLESS_KINDS = /^(HTTP|MEDIA|MAX_(AUDIO|EMBED|IMAGE|MEDIA))_/;

const PREFIX = "VLLM_";

const SHORT: Readonly<Record<string, string>> = {
  "-tp": "--tensor-parallel-size",
  "-pp": "--pipeline-parallel-size",
  "-dp": "--data-parallel-size",
  "-q": "--quantization",
  "-O": "--optimization-level",
  "-cc": "--compilation-config",
};
/** `-O3`, as vLLM takes it apart; `-O 3` and `-O=3` are in the table. */
const LEVEL = /^-O(?!=)(.+)$/s;

/** A server's options that decide what it compiles, sorted; its model is none of them. */
export function decidingOptions(words: readonly string[]): string[] {
  const options: string[] = [];
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    if (!word.startsWith("-")) continue;
    const [given = "", inline] =
      LEVEL.exec(word) === null ? word.split(/=(.*)/s) : ["-O", word.slice(2)];
    const name = (SHORT[given] ?? given).replaceAll("_", "-");
    const values = inline === undefined ? [] : [inline];
    for (let next = words[at + 1]; inline === undefined && next !== undefined; ) {
      if (/^-\D/.test(next)) break;
      values.push(next);
      at++;
      next = words[at + 1];
    }
    const bare = name.replace(/^-+(no-)?/, "");
    if (HARMLESS_OPTIONS.has(bare) || bare === "model") continue;
    options.push([name, ...values].join(" "));
  }
  return options.sort();
}

/** The file of options that `--config` names; what is in it decides, not where it lies. */
export function configFileOf(options: readonly string[]): string | undefined {
  return options.find((option) => option.startsWith("--config "))?.slice("--config ".length);
}

/** The model that a server's words name. */
export function modelOf(words: readonly string[]): string | undefined {
  const at = words.findIndex((word) => word === "--model" || word.startsWith("--model="));
  const named = words[at]?.split(/=(.*)/s)[1] ?? (at === -1 ? undefined : words[at + 1]);
  const [first, second] = words;
  const positional = first === "serve" && second?.startsWith("-") === false ? second : undefined;
  return positional ?? named;
}

export function decidingVariables(
  environment: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const entries = Object.entries(environment).filter(
    (entry): entry is [string, string] =>
      entry[1] !== undefined && entry[0].startsWith(PREFIX) && !isHarmless(entry[0]),
  );
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function isHarmless(variable: string): boolean {
  const name = variable.slice(PREFIX.length);
  return HARMLESS_VARIABLES.has(name) || HARMLESS_KINDS.test(name);
}

export interface Difference {
  readonly what: string;
  readonly pack: string;
  readonly here: string;
}

const NONE = "none";

/** What differs, the most telling first. */
export function differences(pack: CacheFingerprint, here: CacheFingerprint): Difference[] {
  const flat = (each: CacheFingerprint): Map<string, string> =>
    new Map([
      ["GPU", each.gpu],
      ...Object.entries(each.packages),
      ["model", each.model],
      ...each.options.map((option): [string, string] => {
        const [name = "", ...values] = option.split(" ");
        return [name, values.join(" ") || "given"];
      }),
      ...Object.entries(each.variables),
      ["Python", each.python],
      ["GPU driver", each.driver],
    ]);
  const [ours, theirs] = [flat(pack), flat(here)];
  return [...new Set([...ours.keys(), ...theirs.keys()])].flatMap((what) => {
    const [a = NONE, b = NONE] = [ours.get(what), theirs.get(what)];
    return a === b ? [] : [{ what, pack: a, here: b }];
  });
}

const SHOWN_MAX = 5;
const CHARS_MAX = 60;

/** As the middle of a sentence: `GPU NVIDIA H200 (here NVIDIA L4)`. */
export function differencesText(found: readonly Difference[]): string {
  const cut = (text: string): string =>
    text.length > CHARS_MAX ? `${text.slice(0, CHARS_MAX - 1)}…` : text;
  const shown = found
    .slice(0, SHOWN_MAX)
    .map(({ what, pack, here }) => `${what} ${cut(pack)} (here ${cut(here)})`);
  const more = found.length - shown.length;
  return `${shown.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}

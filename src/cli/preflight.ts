/**
 * Whether a vLLM command will be captured lazily, asked in its own Python before it starts.
 *
 * The plugin answers (`python -m lazygraph_vllm.preflight`), with vLLM's own parser and its own
 * configuration: what runs where is decided in one place.
 */

import { execFile } from "node:child_process";
import { endsAlone } from "../base/ends-alone.ts";
import { messageOf } from "../base/errors.ts";
import { jsonObject } from "../base/parse-json.ts";
import { resolvePython } from "../launcher/python-of.ts";
import { isDisabled } from "./no-engine.ts";
import { PLUGIN_PACKAGE, pluginRemedy, probePlugin } from "./plugin-probe.ts";
import type { VllmCommand } from "./vllm-command.ts";

/** The plugin gives up by itself after 120 s; this is for a Python that hangs. */
const TIMEOUT_MS = 180_000;
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;
const REASON_CHARS_MAX = 600;
const PREFLIGHT_MODULE = "lazygraph_vllm.preflight";

export interface Preflight {
  /** Whether its graphs will be captured lazily; `null`: it can't be told. */
  readonly lazily: boolean | null;
  /** Why, as a sentence without its full stop. */
  readonly reason: string;
  readonly python?: string;
  /** vLLM's version. */
  readonly vllm?: string;
  /** The plugin's version. */
  readonly plugin?: string;
  /** The plugin's adapter for that vLLM. */
  readonly adapter?: string;
  /** What the model and its parallelism have besides being dense. */
  readonly traits: readonly string[];
  /** The GPUs that the ranks would have, by name. */
  readonly gpus: readonly string[];
  /** Why these aren't known. */
  readonly gpuReason?: string;
  /** Graphs by kind. */
  readonly planned?: Readonly<Record<string, number>>;
  /** What would run although it was not tried on a GPU. */
  readonly untested: readonly string[];
  /** What the file of `--config` says and vLLM does not heed. */
  readonly ignored: readonly string[];
}

/**
 * @param python asked in the place of the command's own
 * @param timeoutMs how long the Python may take
 */
export async function askPreflight(
  command: VllmCommand,
  environment: NodeJS.ProcessEnv,
  python?: string,
  timeoutMs: number = TIMEOUT_MS,
): Promise<Preflight> {
  const own = { ...environment, ...command.variables };
  const file = python ?? (await resolvePython(command.file, own));
  if (file === undefined) {
    return untold(
      `the Python of ${command.file} can't be found, because there is no such program or it is no ` +
        "script of one; name it with --python PATH",
    );
  }
  const probe = await probePlugin([file], own);
  const unstarted = isDisabled(own) ? "" : ", so `lazygraph run` won't start it";
  if (probe.found === "excluded") {
    const why = `VLLM_PLUGINS=${probe.allowed} leaves the plugin out${unstarted}`;
    return { ...stock(why), python: file };
  }
  if (probe.found === "no" && !probe.vllm) {
    return { ...untold(`${file} has no vLLM: this command will start nothing`), python: file };
  }
  if (probe.found === "no") {
    const why = `${file} has no ${PLUGIN_PACKAGE}${unstarted}; ${pluginRemedy(file)} brings it`;
    return { ...stock(why), python: file };
  }
  const args = [...command.pythonOptions, "-m", PREFLIGHT_MODULE, "--json", "--", ...command.words];
  return { ...(await ask(file, args, own, timeoutMs)), python: file };
}

function ask(
  file: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
  timeoutMs: number,
): Promise<Preflight> {
  const limits = {
    env: environment,
    timeout: timeoutMs,
    killSignal: "SIGKILL",
    maxBuffer: OUTPUT_BYTES_MAX,
  } as const;
  return new Promise((resolve) => {
    const done = (error: Error | null, stdout: string, stderr: string): void => {
      // 1 is its exit code where it can't be told, which the document says with its reason.
      const told = error === null || (error as { code?: unknown }).code === 1;
      const answer = told ? preflightOf(stdout) : undefined;
      resolve(answer ?? untold(failure(file, error, stderr, timeoutMs)));
    };
    try {
      endsAlone(execFile(file, args, limits, done));
    } catch (error) {
      done(error as Error, "", ""); // Words that no process can have, such as with a NUL.
    }
  });
}

function failure(
  file: string,
  error: (Error & { killed?: boolean; code?: unknown }) | null,
  stderr: string,
  timeoutMs: number,
): string {
  if (error === null) return `${file} gave no answer that is one`;
  if (error.code === "ENOENT") return `there is no program ${file}`;
  if (error.code === "ERR_CHILD_PROCESS_STDIO_MAXBUFFER") return `${file} says too much`;
  if (error.killed === true) return `${file} had not answered after ${timeoutMs / 1000} s`;
  const last = stderr.trim().split("\n").at(-1) || messageOf(error);
  const isOlder = [`No module named ${PREFLIGHT_MODULE}`, `usage: python -m ${PREFLIGHT_MODULE}`];
  if (isOlder.some((sign) => last.includes(sign))) {
    const remedy = pluginRemedy(file, "--force-reinstall --no-deps ");
    return `the ${PLUGIN_PACKAGE} of ${file} is older than this; ${remedy} replaces it`;
  }
  return `${file} failed: ${last}`.slice(0, REASON_CHARS_MAX);
}

/** The plugin's document; undefined if this isn't one. A newer plugin may say more. */
export function preflightOf(stdout: string): Preflight | undefined {
  const given = jsonObject(stdout.trim().split("\n").at(-1) ?? "");
  if (given === undefined) return undefined;
  const answer = given as Readonly<Record<string, unknown>>;
  const { lazily, reason, planned } = answer;
  if ((typeof lazily !== "boolean" && lazily !== null) || typeof reason !== "string") {
    return undefined;
  }
  const texts = ["vllm", "plugin", "adapter", "gpuReason"] as const;
  const known = texts.flatMap((name) => {
    const value = answer[name];
    return typeof value === "string" ? [[name, value] as const] : [];
  });
  return {
    lazily,
    reason,
    ...Object.fromEntries(known),
    ...(isCounts(planned) && { planned }),
    traits: strings(answer["traits"]),
    gpus: strings(answer["gpus"]),
    untested: strings(answer["untested"]),
    ignored: strings(answer["ignored"]),
  };
}

function isCounts(value: unknown): value is Record<string, number> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.values(value).every((count) => Number.isSafeInteger(count));
}

function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
}

function untold(reason: string): Preflight {
  return { lazily: null, reason, traits: [], gpus: [], untested: [], ignored: [] };
}

function stock(reason: string): Preflight {
  return { lazily: false, reason, traits: [], gpus: [], untested: [], ignored: [] };
}

/**
 * `--preset NAME`: options for a purpose, ours and vLLM's. Each is a default of its own: whatever
 * the command line, the environment or the file says wins, one by one.
 */

import { choice } from "./errors.ts";
import type { OptionSpec, ParsedOptions } from "./options.ts";
import { takesWordsBehind, vllmOption } from "./vllm-options.ts";

export interface Preset {
  readonly purpose: string;
  /** Ours, under their names without dashes; `true` for those without a value. */
  readonly ours: Readonly<Record<string, string | true>>;
  /** vLLM's, likewise. */
  readonly vllm: Readonly<Record<string, string>>;
}

/** The figures behind each are in docs/configuration.md. */
export const PRESETS: Readonly<Record<string, Preset>> = {
  "scale-to-zero": {
    purpose: "the first answer of a new engine soon, the rest while it rests",
    ours: { mode: "idle" },
    vllm: {},
  },
  "lowest-latency": {
    purpose: "no request ever waits for a capture; ready comes later",
    ours: { mode: "eager" },
    vllm: {},
  },
  throughput: {
    purpose: "full batches without rest: all graphs first, fewer events a stream",
    ours: { mode: "eager" },
    vllm: { "stream-interval": "8" },
  },
  "tight-memory": {
    purpose: "graphs that traffic has earned, and room for serving kept first",
    ours: { mode: "lazy", reserve: "least" },
    vllm: {},
  },
  development: {
    purpose: "started often, used little: few graphs, and nothing learned from it",
    ours: { mode: "lazy", "no-plan": true },
    vllm: {},
  },
};

export const PRESET_OPTIONS: OptionSpec = { preset: "string" };

export const PRESET_HELP: string = [
  "  --preset NAME         options for a purpose; each gives way to one of yours:",
  ...Object.entries(PRESETS).flatMap(([name, preset]) => [
    `                        ${name}: ${words(preset).join(" ")}`,
    `                          ${preset.purpose}`,
  ]),
].join("\n");

/** Variables of the environment that say the same as an option. */
const VARIABLES: Readonly<Record<string, string>> = {
  mode: "LAZYGRAPH_MODE",
  reserve: "LAZYGRAPH_RESERVE",
  "no-plan": "LAZYGRAPH_PLAN_DIR",
};

/** Options that mean that the preset's isn't wanted, though they have another name. */
const INSTEAD: Readonly<Record<string, readonly string[]>> = {
  "no-plan": ["plan-dir", "plan-read-only"],
};

export interface AppliedPreset {
  readonly options: ParsedOptions;
  /** With vLLM's options of the preset at its end. */
  readonly command: readonly string[];
  /** What was set and what was left as it is; undefined without a preset. */
  readonly sentence: string | undefined;
}

/**
 * @param command undefined: engines are started elsewhere, and none is made longer
 * @throws OptionError for a name that is none
 */
export function withPreset(
  given: ParsedOptions,
  command: readonly string[] | undefined,
  environment: NodeJS.ProcessEnv,
): AppliedPreset {
  const name = given.strings.get("preset");
  if (name === undefined) return { options: given, command: command ?? [], sentence: undefined };
  const preset = presetOf(name);
  const isOurs = (option: string): boolean =>
    [option, ...(INSTEAD[option] ?? [])].some(
      (each) => given.strings.has(each) || given.flags.has(each) || given.lists.has(each),
    ) || (environment[VARIABLES[option] ?? ""] ?? "").trim() !== "";
  const ours = Object.entries(preset.ours).filter(([option]) => !isOurs(option));
  const missing = Object.entries(preset.vllm).filter(
    ([option]) => command === undefined || vllmOption(command, option) === undefined,
  );
  const isTold = command !== undefined && takesWordsBehind(command);
  const vllm = Object.fromEntries(isTold ? missing : []);
  const untold = Object.fromEntries(isTold ? [] : missing);
  const strings = new Map(given.strings);
  const flags = new Set(given.flags);
  for (const [option, value] of ours) {
    if (value === true) flags.add(option);
    else strings.set(option, value);
  }
  const added = Object.entries(vllm).flatMap(([option, value]) => [`--${option}`, value]);
  return {
    options: { ...given, strings, flags },
    command: [...(command ?? []), ...added],
    sentence: sentenceOf(name, {
      all: words(preset),
      set: words({ ours: Object.fromEntries(ours), vllm }),
      untold: words({ ours: {}, vllm: untold }),
      where: command === undefined ? "the engines' own commands" : "the shell's script",
    }),
  };
}

/** For a controller whose engines are started elsewhere: vLLM's options are theirs to be given. */
export function withControllerPreset(
  given: ParsedOptions,
  environment: NodeJS.ProcessEnv,
): Omit<AppliedPreset, "command"> {
  const { options, sentence } = withPreset(given, undefined, environment);
  return { options, sentence };
}

function presetOf(name: string): Preset {
  return PRESETS[choice("--preset", Object.keys(PRESETS), name)] as Preset;
}

function words({ ours, vllm }: Pick<Preset, "ours" | "vllm">): string[] {
  return [
    ...Object.entries(ours).map(([name, value]) =>
      value === true ? `--${name}` : `--${name} ${value}`,
    ),
    ...Object.entries(vllm).map(([name, value]) => `vLLM's --${name} ${value}`),
  ];
}

interface PresetWords {
  readonly all: readonly string[];
  readonly set: readonly string[];
  /** What isn't set, and where it is to be written. */
  readonly untold: readonly string[];
  readonly where: string;
}

function sentenceOf(name: string, { all, set, untold, where }: PresetWords): string {
  const left = all.filter((each) => !set.includes(each) && !untold.includes(each));
  const sets = set.length === 0 ? "sets nothing" : `sets ${set.join(", ")}`;
  const yours = left.length === 0 ? "" : `; yours is in the place of ${left.join(", ")}`;
  const own = untold.length === 0 ? "" : `; write ${untold.join(", ")} into ${where} yourself`;
  return `Preset ${name} ${sets}${yours}${own}.`;
}

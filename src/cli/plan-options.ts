/** What is captured, by which policy and learned plan, for commands with a controller. */

import { OptionError } from "../base/errors.ts";
import type { ControllerOptions } from "../controller/options.ts";
import { DEFAULT_POLICY, defaultPolicy, POLICY_NAMES } from "../schedule/choice.ts";
import { isGraphRule, pinnedInVain } from "../schedule/rules.ts";
import type { Mode } from "../wire/protocol.ts";
import { usageError } from "./errors.ts";
import { numberOption } from "./number-option.ts";
import type { OptionSpec, ParsedOptions } from "./options.ts";

export const PLAN_OPTIONS: OptionSpec = {
  policy: "string",
  "init-only": "boolean",
  "fill-share": "string",
  pin: "string",
  exclude: "string",
  "graphs-max": "string",
  profile: "string",
  "plan-dir": "string",
  "plan-read-only": "boolean",
  "no-plan": "boolean",
};

export const PLAN_HELP: string = `  --policy NAME         how lazy and idle mode decide: simple (counting steps) or costed (by measured
                        costs) (default: ${DEFAULT_POLICY}; with --fill-share simple)
  --init-only           capture before ready what earlier starts needed, and nothing after; with
                        --policy costed
  --fill-share X        share of the time, 0 to 1, by which idle mode's fill may hold up an engine
                        that has work, of the policy simple alone (default: 0)
  --pin LIST            graphs to capture before ready, with commas: an id (FULL:24), a kind
                        (PIECEWISE), a size (24), or sizes above or below one (">256", "<8")
  --exclude LIST        graphs never to capture, written likewise
  --graphs-max N        at most N graphs, the largest first among them
  --profile NAME        cost profile that estimates start from, shipped or a file
  --plan-dir FOLDER     where learned plans lie (default: LAZYGRAPH_PLAN_DIR, else
                        $XDG_STATE_HOME/lazygraph/plans, else ~/.local/state/lazygraph/plans)
  --plan-read-only      read learned plans, write none
  --no-plan             keep no learned plans`;

type Planning = Pick<
  ControllerOptions,
  | "policy"
  | "initOnly"
  | "fillShare"
  | "pin"
  | "exclude"
  | "graphsMax"
  | "profile"
  | "plan"
  | "planFolder"
  | "planReadOnly"
>;

const GRAPHS_MAX = 4096;

/** An option that a mode makes nothing of, in a sentence: another mode may come over HTTP. */
export function withoutEffect({ strings, flags }: ParsedOptions, mode: Mode): string | undefined {
  if (strings.has("fill-share") && mode !== "idle") {
    return `--fill-share has no effect in mode ${mode}: only idle mode fills.`;
  }
  if (!flags.has("init-only") || mode !== "eager") return undefined;
  return "--init-only has no effect in mode eager, which captures all graphs before ready.";
}

/** Lists' shape alone: the controller knows the rest. */
export function planOptions(options: ParsedOptions): Planning {
  const { strings, flags } = options;
  const profile = strings.get("profile");
  const folder = strings.get("plan-dir");
  const pin = listOption(options, "pin");
  const exclude = listOption(options, "exclude");
  const vain = pinnedInVain({ ...(pin && { pin }), ...(exclude && { exclude }) }, "--");
  if (vain !== undefined) throw new OptionError("--pin", vain);
  const noPlan = flags.has("no-plan");
  if (noPlan && (folder !== undefined || flags.has("plan-read-only"))) {
    const other = folder === undefined ? "--plan-read-only" : "--plan-dir";
    throw new OptionError("--no-plan", `Expected --no-plan or ${other}, got both.`);
  }
  return {
    policy: policyOption(options),
    initOnly: flags.has("init-only"),
    plan: !noPlan,
    planReadOnly: flags.has("plan-read-only"),
    ...(options.strings.has("fill-share") ? { fillShare: fillShareOption(options) } : {}),
    ...(pin === undefined ? {} : { pin }),
    ...(exclude === undefined ? {} : { exclude }),
    ...(strings.has("graphs-max") ? { graphsMax: graphsMaxOption(options) } : {}),
    ...(profile === undefined ? {} : { profile }),
    ...(folder === undefined ? {} : { planFolder: folder }),
  };
}

function policyOption(options: ParsedOptions): "simple" | "costed" {
  const text = options.strings.get("policy") ?? defaultPolicy(options.strings.has("fill-share"));
  const policy = POLICY_NAMES.find((name) => name === text);
  if (policy === undefined) throw usageError("--policy", POLICY_NAMES.join(" or "), text);
  if (options.flags.has("init-only") && policy !== "costed") {
    throw new OptionError(
      "--init-only",
      `Expected --init-only together with --policy costed, got ${policy}.`,
    );
  }
  return policy;
}

function fillShareOption(options: ParsedOptions): number {
  const policy = policyOption(options);
  if (policy !== "simple") {
    throw new OptionError(
      "--fill-share",
      `Expected --fill-share together with --policy simple, got ${policy}.`,
    );
  }
  return numberOption(options, "fill-share", { min: 0, max: 1, fallback: 0 });
}

function graphsMaxOption(options: ParsedOptions): number {
  return numberOption(options, "graphs-max", { min: 1, max: GRAPHS_MAX, fallback: 1, whole: true });
}

function listOption(options: ParsedOptions, name: string): string[] | undefined {
  const text = options.strings.get(name);
  if (text === undefined) return undefined;
  const entries = text.split(",");
  const wrong = entries.find((entry) => !isGraphRule(entry));
  if (wrong === undefined) return entries;
  const forms = "an id (FULL:24), a kind (FULL or PIECEWISE), a size (24) or sizes (>256, <8)";
  throw usageError(`--${name}`, `graphs with commas, each ${forms}`, wrong);
}

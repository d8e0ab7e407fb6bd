/** Options of a controller: their types, defaults and rules. */

import * as v from "valibot";
import { checkOptions, type OptionRules, rule, signal, textRule } from "../base/check-options.ts";
import { OptionError } from "../base/errors.ts";
import { flag, number, oneOf, type Schema, whole } from "../base/schema.ts";
import { shown } from "../base/shown.ts";
import { checkMemoryOptions, type MemoryOptions } from "../memory/options.ts";
import {
  defaultPolicy,
  POLICY_NAMES,
  type PolicyContext,
  type PolicyMaker,
  type PolicyName,
  policyMaker,
} from "../schedule/choice.ts";
import type { Policy } from "../schedule/policy.ts";
import { isGraphRule, type PlanRules, pinnedInVain } from "../schedule/rules.ts";
import type { CurveOptions } from "../wire/curve.ts";
import { endpointRule } from "../wire/endpoint.ts";
import { isPair } from "../wire/key-proof.ts";
import { LIMITS, MODES, type Mode } from "../wire/protocol.ts";
import { isCurveKey } from "../wire/z85.ts";
import { engineName } from "./call-options.ts";

export interface ControllerOptions {
  /**
   * When engines capture: everything before ready, what traffic earns, or that and the rest while
   * idle. Applies to every engine that joins, whatever it was started with.
   * @default "idle"
   */
  readonly mode?: Mode;
  /**
   * Where engines connect: `tcp://HOST:PORT` or `ipc://PATH`. Port 0 picks a free one, which
   * `controller.endpoint` then tells. What other machines may reach needs `curve`.
   * @default "tcp://127.0.0.1:0"
   */
  readonly endpoint?: string;
  /**
   * Milliseconds between heartbeats, 10 to 600,000; an engine silent for five is lost.
   * @default 1000
   */
  readonly heartbeatMs?: number;
  /**
   * Milliseconds an engine may take to answer a capture command, 1 to 3,600,000.
   * @default 60000
   */
  readonly captureTimeoutMs?: number;
  /**
   * Seconds after ready in which captures may happen; then the engine is frozen.
   * @default undefined: no end
   */
  readonly settleWithinSeconds?: number;
  /**
   * How the modes decide: `"simple"` counts steps; `"costed"` weighs measured costs in lazy and
   * idle mode. Or a function that makes the policy of one engine, called for each session and each
   * change of its mode, with what is known of such engines.
   * @default "costed", with `fillShare` "simple"
   */
  readonly policy?: PolicyName | ((mode: Mode, context: PolicyContext) => Policy);
  /**
   * Captures before ready what earlier starts needed, and nothing after. Needs the policy
   * `"costed"`; in eager mode it changes nothing.
   * @default false
   */
  readonly initOnly?: boolean;
  /**
   * Share of the time, 0 to 1, by which fill may hold up an engine that has work: the simple idle
   * mode's stall budget. Captures that traffic has earned don't count. Not with the policy
   * `"costed"`.
   * @default 0: fill only while the engine has nothing to do
   */
  readonly fillShare?: number;
  /**
   * Graphs that are captured before ready, each as an id (`FULL:24`), a kind (`PIECEWISE`), a size
   * (`24`) or a range of sizes (`>256`, `<8`). At most 256 entries.
   * @default none
   */
  readonly pin?: readonly string[];
  /**
   * Graphs that are never captured, written as those of `pin`; it wins where both match, but must
   * leave something of each entry of `pin`.
   * @default none
   */
  readonly exclude?: readonly string[];
  /**
   * Graphs captured at most, 1 to 4096.
   * @default no limit
   */
  readonly graphsMax?: number;
  /**
   * Whether learned plans are kept: what starts needed and what captures took.
   * @default true
   */
  readonly plan?: boolean;
  /**
   * Where learned plans lie.
   * @default LAZYGRAPH_PLAN_DIR, else $XDG_STATE_HOME/lazygraph/plans, else
   *   ~/.local/state/lazygraph/plans
   */
  readonly planFolder?: string;
  /**
   * Reads plans and writes none, for a folder that many replicas mount.
   * @default false
   */
  readonly planReadOnly?: boolean;
  /**
   * Where cost estimates start: the name of a cost profile that is shipped, or the path of one.
   * @default the profile of an 8B on an H200, taken to be off by half for any other model
   */
  readonly profile?: string;
  /**
   * Engines served at once, 1 to 4096; one more is put off with a reason until there is room.
   * @default 64
   */
  readonly enginesMax?: number;
  /**
   * GPU memory: what is reserved for graphs, what captures leave free, and who says what is free.
   * @default {}: the engine reserves by its own setting, an allowance for serving is left, the
   *   driver is asked
   */
  readonly memory?: MemoryOptions;
  /**
   * CURVE keys. Without them only this machine may connect.
   * @default undefined
   */
  readonly curve?: CurveOptions;
  /**
   * Closes the controller when aborted.
   * @default undefined
   */
  readonly signal?: AbortSignal;
}

type Required =
  | "mode"
  | "endpoint"
  | "heartbeatMs"
  | "captureTimeoutMs"
  | "enginesMax"
  | "initOnly"
  | "plan"
  | "planReadOnly";

/** Options after validation: complete but for those whose absence means something. */
export type ResolvedOptions = Readonly<
  { [K in Required]-?: NonNullable<ControllerOptions[K]> } & Omit<
    ControllerOptions,
    Required | "policy"
  > & {
      policy: PolicyMaker;
      rules: PlanRules;
      /** The policy within other rules, which an engine was told by an earlier controller. */
      policyWithin: (rules: PlanRules) => PolicyMaker;
    }
>;

/** Engines of one controller at most, whatever it is told: many more than one core can serve. */
export const ENGINES_MAX = 4096;
/** Entries of `pin` and of `exclude`. */
const RULES_MAX = 256;
const KEYS = "an object with publicKey and secretKey, each 40 characters of Z85";

const path = textRule("a path");
/** Only which there are: each is part of one rule. */
const CURVE_NAMES: OptionRules<CurveOptions> = {
  ...{ publicKey: v.unknown(), secretKey: v.unknown(), allowedClients: v.unknown() },
};

const RULES: OptionRules<ControllerOptions> = {
  mode: oneOf(MODES),
  endpoint: endpointRule,
  heartbeatMs: whole(LIMITS.heartbeatMsMin, LIMITS.heartbeatMsMax),
  captureTimeoutMs: whole(1, 3_600_000),
  settleWithinSeconds: number(0, 31_536_000),
  policy: rule(
    `${POLICY_NAMES.join(", ")} or a function that makes a policy`,
    (value) => typeof value === "function" || POLICY_NAMES.some((name) => name === value),
  ),
  initOnly: flag,
  fillShare: number(0, 1),
  pin: graphRules("pin"),
  exclude: graphRules("exclude"),
  graphsMax: whole(1, LIMITS.graphs),
  plan: flag,
  planFolder: path,
  planReadOnly: flag,
  profile: path,
  enginesMax: whole(1, ENGINES_MAX),
  memory: rule('an object such as { reserve: "plan" }', (value) => {
    if (typeof value !== "object" || value === null) return false;
    checkMemoryOptions(value);
    return true;
  }),
  curve: v.pipe(
    rule(KEYS, hasKeys),
    rule(`${KEYS}, that belong together`, (value) => isPair(value as CurveOptions)),
    rule(
      "with allowedClients, a list of keys of 40 characters of Z85, or of { key, engines? } with " +
        "names of engines, or a function that gives one",
      hasClients,
    ),
  ),
  signal,
};

const DEFAULTS = {
  mode: "idle",
  endpoint: "tcp://127.0.0.1:0",
  heartbeatMs: 1000,
  captureTimeoutMs: 60_000,
  enginesMax: 64,
  initOnly: false,
  plan: true,
  planReadOnly: false,
} as const;

/** @throws OptionError that names the first option that breaks its rule. */
export function resolveOptions(options: ControllerOptions): ResolvedOptions {
  checkOptions(options, RULES);
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const all = { ...DEFAULTS, ...(Object.fromEntries(given) as ControllerOptions) };
  const { initOnly, fillShare, pin, exclude, graphsMax } = all;
  const policy = all.policy ?? defaultPolicy(fillShare !== undefined);
  if (initOnly && policy !== "costed") {
    throw new OptionError(
      "initOnly",
      'Expected initOnly to go with the policy "costed", which knows what earlier starts needed, ' +
        `got ${typeof policy === "string" ? shown(policy) : "a policy of your own"}.`,
    );
  }
  if (fillShare !== undefined && policy !== "simple") {
    throw new OptionError(
      "fillShare",
      'Expected fillShare to go with the policy "simple", whose idle mode it bounds, ' +
        `got ${typeof policy === "string" ? shown(policy) : "a policy of your own"}.`,
    );
  }
  if (!all.plan && (all.planFolder !== undefined || all.planReadOnly)) {
    const other = all.planFolder === undefined ? "planReadOnly" : "planFolder";
    throw new OptionError("plan", `Expected plan: false or ${other}, got both: give one of them.`);
  }
  const rules: PlanRules = {
    ...(pin === undefined ? {} : { pin: [...pin] }),
    ...(exclude === undefined ? {} : { exclude: [...exclude] }),
    ...(graphsMax === undefined ? {} : { graphsMax }),
  };
  const vain = pinnedInVain(rules);
  if (vain !== undefined) throw new OptionError("pin", vain);
  const fill = fillShare === undefined ? {} : { fillShare };
  const policyWithin = (within: PlanRules): PolicyMaker =>
    policyMaker({ policy, initOnly, rules: within, ...fill });
  return Object.freeze({ ...all, rules, policy: policyWithin(rules), policyWithin });
}

function graphRules(name: "pin" | "exclude"): Schema<unknown> {
  const expected = `a list of at most ${RULES_MAX} graphs such as "FULL:24", "PIECEWISE", "24", ">256" or "<8"`;
  return rule(expected, (value) => {
    if (!Array.isArray(value) || value.length > RULES_MAX) return false;
    const entry = value.findIndex((each) => !isGraphRule(each));
    if (entry === -1) return true;
    throw new OptionError(
      name,
      `Expected ${name} to be ${expected}, got the entry ${shown(value[entry])}.`,
    );
  });
}

function hasKeys(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  checkOptions(value, CURVE_NAMES, "curve");
  const { publicKey, secretKey } = value as Record<string, unknown>;
  return isCurveKey(publicKey) && isCurveKey(secretKey);
}

function isAllowedClient(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return isCurveKey(value);
  const { key, engines = [], ...rest } = value as Record<string, unknown>;
  if (!isCurveKey(key) || Object.keys(rest).length > 0) return false;
  return Array.isArray(engines) && engines.every((name) => v.is(engineName, name));
}

function hasClients(value: unknown): boolean {
  const { allowedClients } = value as Record<string, unknown>;
  if (allowedClients === undefined || typeof allowedClients === "function") return true;
  return Array.isArray(allowedClients) && allowedClients.every(isAllowedClient);
}

/** What the checks of bench/gpu/checks.py and the simulated first set claim. Pure. */

import { type Finding, type Limits, type Origin, withLimits } from "./claims.ts";
import { FEATURE } from "./claims-v033.ts";

/** One line of checks.py. */
export interface Check {
  /** `FAMILY.KIND`, such as `dense-8b.verify`. */
  readonly check: string;
  readonly fine: boolean;
  readonly planned?: number;
  /** Graphs equal to an ungraphed run bit for bit, by rank. */
  readonly exact?: readonly number[];
  readonly sequences?: number;
  readonly same?: number;
  /** lora-tokens: of each adapter's `sequencesEach`, 0 being the base model. */
  readonly sequencesEach?: number;
  readonly sameByAdapter?: Readonly<Record<string, number>>;
  readonly capturedInTraffic?: number;
  /** lora-lazy: graphs captured for a case of which there was no traffic. */
  readonly unused?: readonly string[];
  /** spec-tokens: sequences that are not stock's, among captures and with all graphs. */
  readonly differing?: Readonly<Record<string, number>>;
  readonly mismatches?: readonly string[];
  readonly accepted?: Readonly<Record<string, number>>;
  readonly acceptedBetween?: readonly [number, number];
  /** ranks: how the ranks' steps compare; else how many steps there were. */
  readonly steps?: number | RankSteps;
  /** spec-steps: of stock's median, by requests. */
  readonly byRequests?: Readonly<Record<string, { readonly ratio: number }>>;
}

/** What the ranks of one engine held and served, step by step. */
export interface RankSteps {
  readonly ranks: number;
  readonly steps: number;
  readonly differ: number;
}

/** So many captures between steps, and every adapter must answer as before. */
const CAPTURES_BETWEEN_STEPS_MIN = 100;
const STEP_RATIO_MAX = 1.01;

export function checkFindings(checks: readonly Check[], told: Origin): Finding[] {
  return checks.flatMap((check) => {
    const [family = "", kind] = check.check.split(".");
    const limits = withLimits(`v033.${family.replace(FEATURE, "$1.")}`, told);
    const { atLeast, atMost } = limits;
    switch (kind) {
      case "verify": {
        const value = Math.min(...(check.exact ?? [0])) / (check.planned ?? Number.NaN);
        return [
          atLeast("graphs-exact", value, "of planned graphs bit for bit, on the worst rank", 1),
        ];
      }
      case "control": {
        const unit = "of runs with a graph made wrong found it";
        return [atLeast("control-found", Number(check.fine), unit, 1)];
      }
      case "control-rank": {
        const unit = "of runs with a graph wrong on one rank found it there alone";
        return [atLeast("rank-control-found", Number(check.fine), unit, 1)];
      }
      case "ranks":
        return rankFindings(check, limits);
      case "tokens":
      case "aside": {
        const value = (check.same ?? 0) / (check.sequences ?? Number.NaN);
        return [atLeast("tokens-exact", value, TOKENS, 1)];
      }
      case "lora-tokens":
        return adapterFindings(check, limits);
      case "lora-lazy": {
        const value = check.unused?.length ?? Number.NaN;
        return [atMost("unused-captured", value, "graphs captured of a case without traffic", 0)];
      }
      case "spec-tokens":
        return draftFindings(check, limits);
      case "spec-steps": {
        const ratios = Object.values(check.byRequests ?? {}).map(({ ratio }) => ratio);
        const value = ratios.length === 0 ? Number.NaN : Math.max(...ratios);
        const unit = "of stock's median step, worst number of requests";
        return [atMost("step-ratio", value, unit, STEP_RATIO_MAX)];
      }
      default:
        throw new Error(`Expected a check of a known kind, got ${check.check}.`);
    }
  });
}

const TOKENS = "of sequences exact, captures in traffic";

function rankFindings({ steps, fine }: Check, { atLeast, atMost }: Limits): Finding[] {
  if (steps === undefined || typeof steps === "number") return [];
  const unit = `of ${steps.steps} steps not the same on ${steps.ranks} ranks`;
  return [
    atMost("steps-differ", steps.differ, unit, 0),
    // With what there was to see: a fill, a tier dropped and captured again, a control.
    atLeast("ranks-agree", Number(fine), "of fills in traffic seen whole", 1),
  ];
}

function adapterFindings(check: Check, { atLeast }: Limits): Finding[] {
  const same = Math.min(...Object.values(check.sameByAdapter ?? { none: 0 }));
  const each = check.sequencesEach ?? Number.NaN;
  const exact = "of sequences exact before, among and after captures, worst adapter";
  const captures = check.capturedInTraffic ?? 0;
  const between = "captures between the steps of this traffic";
  return [
    atLeast("tokens-exact", same / each, exact, 1),
    atLeast("captures-between-steps", captures, between, CAPTURES_BETWEEN_STEPS_MIN),
  ];
}

function draftFindings(check: Check, { atLeast, atMost }: Limits): Finding[] {
  const { sequences = Number.NaN, differing = {}, mismatches, accepted = {} } = check;
  const [low, high] = check.acceptedBetween ?? [Number.NaN, Number.NaN];
  const ours = accepted["ours"] ?? Number.NaN;
  const apart = Math.max(low - ours, ours - high, 0);
  const shapes = "steps whose drafter ran another shape than its target";
  return [
    atLeast("tokens-exact", 1 - Math.max(...Object.values(differing), 0) / sequences, TOKENS, 1),
    atMost("shape-mismatches", mismatches?.length ?? Number.NaN, shapes, 0),
    atMost("acceptance-apart", apart, "of drafted tokens beyond the interval of two stock runs", 0),
  ];
}

interface FirstSetArm {
  readonly name: string;
  readonly addedRequestSeconds: number;
  /** The same load before the first set was chosen by value. */
  readonly before?: number;
}

export interface FirstSet {
  readonly shareMax: number;
  readonly first: readonly { readonly load: string; readonly arms: readonly FirstSetArm[] }[];
  /** Of every profile under every load: each mode of ours that came out above a comparator. */
  readonly comparisons: readonly {
    readonly above: readonly (readonly [ours: string, comparator: string])[];
  }[];
}

/**
 * Added request-seconds of the default idle mode, of those that the costed one had before; and how
 * often lazy mode came out above stock or the fixed ladder where nobody knows the engine's costs.
 * With known ones the worst of all runs tells it.
 */
export function firstSetFindings(set: FirstSet, told: Origin): Finding[] {
  const isAbove = ({ above }: FirstSet["comparisons"][number]): boolean =>
    above.some(([mode]) => mode === "lazy, unknown engine");
  return [
    ...addedFindings(set, told),
    {
      ...{ ...told, id: "v033.simulated.lazy-of-unknown-engine-runs-above" },
      value: set.comparisons.filter(isAbove).length,
      unit: `of ${set.comparisons.length} runs above stock or the ladder, simulated`,
      ...{ limit: 0, sense: "atMost" },
    },
  ];
}

function addedFindings({ shareMax, first }: FirstSet, told: Origin): Finding[] {
  return first.flatMap(({ load, arms }) => {
    const idle = arms.find(({ name }) => name === "idle-costed");
    const speed = /speed ([\d.]+)/.exec(load)?.[1];
    if (idle?.before === undefined || speed === undefined) return [];
    return [
      {
        ...told,
        id: `v033.simulated.moe-idle.speed-${speed}`,
        value: idle.addedRequestSeconds / idle.before,
        unit: "of before, simulated",
        limit: shareMax,
        sense: "atMost",
      },
    ];
  });
}

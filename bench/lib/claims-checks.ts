/** What the checks of bench/gpu/checks.py and the simulated first set claim. Pure. */

import { MIB } from "../../src/base/units.ts";
import { quantile } from "../../src/measure/statistics.ts";
import { type Finding, type Limits, type Origin, withLimits } from "./claims.ts";
import { FEATURE } from "./claims-v033.ts";

/** One line of checks.py. */
export interface Check {
  /** `FAMILY.KIND`, such as `dense-8b.verify`. */
  readonly check: string;
  readonly fine: boolean;
  readonly planned?: number;
  /** Graphs equal to an ungraphed run bit for bit, by rank; sleep: whether all tokens are stock's. */
  readonly exact?: readonly number[] | boolean;
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
  /** sleep, aside: what the control got right of `sequences`. */
  readonly controlSame?: number;
  /** aside: states that were looked at, and how many changed, by the graph that was captured. */
  readonly states?: number;
  readonly touched?: Readonly<Record<string, number>>;
  /** sleep: by `stock`, `offload`, `kept` or `dropped` graphs and level, as in `kept.2`. */
  readonly sorts?: Readonly<Record<string, SleepCycles>>;
  /** offload-tokens: captures while copies were under way, and what each control changed. */
  readonly amongCopies?: number;
  readonly controlDiffers?: Readonly<Record<string, number>>;
  readonly controlCrashed?: string | null;
  readonly writesDiffers?: Readonly<Record<string, number>>;
  /** spec-steps: of stock's median, by requests. */
  readonly byRequests?: Readonly<Record<string, { readonly ratio: number }>>;
}

/** What the ranks of one engine held and served, step by step. */
export interface RankSteps {
  readonly ranks: number;
  readonly steps: number;
  readonly differ: number;
}

/** What cycles of sleep and wake of one sort came to. */
export interface SleepCycles {
  readonly cycles: number;
  readonly grownBytes: number;
  /** Device memory of the engine's process, asleep. */
  readonly asleepBytes: number;
  /** From wake, of each cycle. */
  readonly firstTokenSeconds: readonly number[];
}

/** So many captures between steps, and every adapter must answer as before. */
const CAPTURES_BETWEEN_STEPS_MIN = 100;
const STEP_RATIO_MAX = 1.01;
const COPIES_MIN = 10;
const GROWTH_MIB_MAX = 64;
/** From wake to a first token, beyond stock's median: nobody would notice. */
const WAKE_SECONDS_MAX = 0.1;

export function checkFindings(checks: readonly Check[], told: Origin): Finding[] {
  return checks.flatMap((check) => {
    const [family = "", kind] = check.check.split(".");
    const limits = withLimits(`v033.${family.replace(FEATURE, "$1.")}`, told);
    const { atLeast, atMost } = limits;
    switch (kind) {
      case "verify": {
        const exact = typeof check.exact === "object" ? check.exact : [0];
        const value = Math.min(...exact) / (check.planned ?? Number.NaN);
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
        const { same = 0, sequences = Number.NaN, controlSame } = check;
        const exact = atLeast("tokens-exact", same / sequences, TOKENS, 1);
        if (controlSame === undefined) return [exact];
        const unit = "of runs whose captures spoilt blocks in use found it";
        const found = atLeast("traffic-control-found", Number(controlSame < sequences), unit, 1);
        const { states, touched = {} } = check;
        if (states === undefined) return [exact, found];
        const of = `of ${states} recurrent states of live requests, looked at around each capture`;
        return [exact, found, atMost("states-touched", sum(touched), of, 0)];
      }
      case "lora-tokens":
        return adapterFindings(check, limits);
      case "sleep":
        return sleepFindings(check, limits);
      case "reload": {
        const { controlSame = Number.NaN, sequences = Number.NaN } = check;
        const unit = "of sleeps at level 2 exact, weights read again by each loader";
        const control = "of runs that read no weights found";
        return [
          atLeast("reload.tokens-exact", Number(check.exact === true), unit, 1),
          atLeast("reload.control-found", Number(controlSame < sequences), control, 1),
        ];
      }
      case "offload-tokens":
        return offloadFindings(check, limits);
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

function sleepFindings(check: Check, { atLeast, atMost }: Limits): Finding[] {
  const sorts = check.sorts ?? {};
  const ours = Object.entries(sorts).filter(([name]) => /^(kept|dropped)\./.test(name));
  const cycles = ours.reduce((all, [, { cycles: count }]) => all + count, 0);
  const grown = Math.max(...ours.map(([, { grownBytes }]) => grownBytes / MIB));
  const { controlSame = Number.NaN, sequences = Number.NaN } = check;
  return [
    atLeast("tokens-exact", Number(check.exact === true), `of ${cycles} cycles exact`, 1),
    atLeast(
      "control-found",
      Number(controlSame < sequences),
      "of runs without their weights found",
      1,
    ),
    atMost("growth", ours.length === 0 ? Number.NaN : grown, "MiB asleep, worst", GROWTH_MIB_MAX),
    ...ours.flatMap(([name, sort]) => {
      const level = name.split(".")[1];
      const stock = sorts[`stock.${level}`];
      const offload = sorts[`offload.${level}`];
      if (stock === undefined) return [];
      const later = quantile(sort.firstTokenSeconds, 0.5) - quantile(stock.firstTokenSeconds, 0.5);
      const more = (sort.asleepBytes - stock.asleepBytes) / MIB;
      const id = name.split(".").toReversed().join(".");
      return [
        atMost(
          `level-${id}.first-token-later`,
          later,
          "s later than stock's from wake, medians",
          WAKE_SECONDS_MAX,
        ),
        atMost(`level-${id}.asleep-more`, more, "MiB more than stock asleep", 0),
        ...(offload === undefined || !name.startsWith("dropped")
          ? []
          : [
              atMost(
                `level-${id}.asleep-more-than-offloaded`,
                (sort.asleepBytes - offload.asleepBytes) / MIB,
                "MiB more than stock asleep with its graphs on the host",
                0,
              ),
            ]),
      ];
    }),
  ];
}

function offloadFindings(check: Check, { atLeast }: Limits): Finding[] {
  const wrong = check.differing === undefined ? Number.NaN : sum(check.differing);
  const exact = 1 - wrong / (check.sequencesEach ?? Number.NaN);
  const { amongCopies = 0 } = check;
  const loads = sum(check.controlDiffers) > 0 || typeof check.controlCrashed === "string";
  const found = [loads, sum(check.writesDiffers) > 0].filter(Boolean).length;
  return [
    atLeast("tokens-exact", exact, "of sequences exact, loaded from the host too", 1),
    atLeast("captures-among-copies", amongCopies, "captures with copies under way", COPIES_MIN),
    atLeast("controls-found", found, "of two controls, wrong loads and careless captures", 2),
  ];
}

function sum(by: Readonly<Record<string, number>> = {}): number {
  return Object.values(by).reduce((all, each) => all + each, 0);
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

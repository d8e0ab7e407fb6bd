/** What the checks of bench/gpu/checks.py and the simulated first set claim. Pure. */

import type { Finding, Origin } from "./claims.ts";

/** One line of checks.py. */
export interface Check {
  /** `FAMILY.verify`, `FAMILY.control` or `FAMILY.tokens`. */
  readonly check: string;
  readonly fine: boolean;
  readonly planned?: number;
  /** Graphs equal to an ungraphed run bit for bit, by rank. */
  readonly exact?: readonly number[];
  readonly sequences?: number;
  readonly same?: number;
}

export function checkFindings(checks: readonly Check[], told: Origin): Finding[] {
  return checks.map((check) => {
    const [family, kind] = check.check.split(".");
    const all = { ...told, limit: 1, sense: "atLeast" } as const;
    switch (kind) {
      case "verify": {
        const worst = Math.min(...(check.exact ?? [0])) / (check.planned ?? Number.NaN);
        const unit = "of planned graphs bit for bit, on the worst rank";
        return { ...all, id: `v033.${family}.graphs-exact`, value: worst, unit };
      }
      case "control": {
        const unit = "of runs with a graph made wrong found it";
        return { ...all, id: `v033.${family}.control-found`, value: Number(check.fine), unit };
      }
      default: {
        const value = (check.same ?? 0) / (check.sequences ?? Number.NaN);
        const unit = "of sequences exact, captures in traffic";
        return { ...all, id: `v033.${family}.tokens-exact`, value, unit };
      }
    }
  });
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

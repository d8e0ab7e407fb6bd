/** What the simulated loads of bench/simulate.ts and bench/first-set.ts claim at their worst. Pure. */

import type { Finding, Origin } from "./claims.ts";

/** An overloaded engine's added request-seconds, as a multiple of what two tops alone come to. */
const OVERLOAD_MAX = 1.25;
/** A second start's excess over floor, as a share of the first one's. */
const SECOND_EXCESS_MAX = 0.6;
/** Under these speeds of the conversation trace the queue only grows. */
const OVERLOADS = [6, 10] as const;

interface Run {
  readonly policy: string;
  readonly addedRequestSeconds: number;
}

export interface SimulatedLoads {
  readonly loads: readonly { readonly load: string; readonly policies: readonly Run[] }[];
  readonly secondStarts: readonly Second[];
  readonly holdOutSecondStarts: readonly Second[];
}

interface Second {
  readonly floor: number;
  readonly first: number;
  readonly second: number;
}

export function simulatedFindings(set: SimulatedLoads, told: Origin): Finding[] {
  return [
    ...OVERLOADS.map((speed) => overloadFinding(set, speed, told)),
    secondsFinding("second-starts", set.secondStarts, told),
    secondsFinding("second-starts-hold-out", set.holdOutSecondStarts, told),
  ];
}

function overloadFinding({ loads }: SimulatedLoads, speed: number, told: Origin): Finding {
  const name = `conversation, speed ${speed}, first 300 s`;
  const runs = loads.find(({ load }) => load === name)?.policies ?? [];
  const added = (policy: string): number =>
    runs.find((run) => run.policy === policy)?.addedRequestSeconds ?? Number.NaN;
  const worst = Math.max(added("lazy-costed"), added("idle-costed"));
  return {
    ...{ ...told, id: `v033.simulated.overload.speed-${speed}`, value: worst / added("floor") },
    ...{ unit: "of floor, the worse of lazy and idle, simulated", limit: OVERLOAD_MAX },
    sense: "atMost",
  };
}

function secondsFinding(id: string, seconds: readonly Second[], told: Origin): Finding {
  const met = seconds.filter(
    ({ floor, first, second }) =>
      second <= floor || second - floor <= SECOND_EXCESS_MAX * (first - floor),
  );
  return {
    ...{ ...told, id: `v033.simulated.${id}`, value: met.length, limit: seconds.length },
    ...{ unit: "starts with at most 60% of the first one's excess, simulated", sense: "atLeast" },
  };
}

export interface Compared {
  readonly comparisons: readonly {
    readonly arms: readonly { readonly name: string; readonly addedRequestSeconds: number }[];
  }[];
}

/** Lazy mode by the engine's own costs, under the load where it looks worst. */
export function worstFindings({ comparisons }: Compared, told: Origin): Finding[] {
  return (["stock", "ladder"] as const).map((comparator) => {
    const ratios = comparisons.map(({ arms }) => {
      const added = (name: string): number =>
        arms.find((arm) => arm.name === name)?.addedRequestSeconds ?? Number.NaN;
      return added("lazy-costed") / added(comparator);
    });
    return {
      ...{ ...told, id: `v033.simulated.lazy-over-${comparator}`, value: Math.max(...ratios) },
      ...{ unit: `of ${comparator}'s, worst of ${ratios.length} runs, simulated`, limit: 1 },
      sense: "atMost",
    };
  });
}

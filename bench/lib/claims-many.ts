/** What bench/gpu/many.sh claims of engines on four and eight ranks. Pure. */

import { type CellSummary, isStart } from "../gpu/lib/family-result.ts";
import type { ManyFamily, ManyResult } from "../gpu/lib/many-result.ts";
import { type Finding, type Origin, withLimits } from "./claims.ts";
import { checkFindings } from "./claims-checks.ts";
import { startupFindings } from "./claims-startup.ts";
import { familyFindings } from "./claims-v033.ts";

/** Of one model, from so many ranks to the next more that were measured. */
const STALL_GROWTH_MAX = 1.5;
/** A request waits for one capture at most. */
const STALL_MS_MAX = 250;
/** After ready, and with the fill on its way to the graph that the fault is in. */
const END_SECONDS_MAX = 60;

/** The longest time that a capture held an idle engine of so many ranks up. */
export interface Stall {
  readonly family: string;
  readonly ranks: number;
  readonly ms: number;
}

/** @param fewer what was measured elsewhere, to hold stalls on more ranks against */
export function manyFindings(
  result: ManyResult,
  told: Origin,
  fewer: readonly Stall[] = [],
): Finding[] {
  const { families, cells } = result;
  return [
    ...familyFindings(cells, told).map(renamed),
    ...families.flatMap((family) => [
      ...checkFindings(family.checks, told).map(renamed),
      ...ofFaults(family, told),
      ...(family.launcher === undefined ? [] : startupFindings(family.launcher, told)).map(renamed),
    ]),
    ...stallFindings(result, fewer, told),
  ];
}

/** `many.FAMILY.…`, whichever campaign first made such a claim. */
function renamed(finding: Finding): Finding {
  return { ...finding, id: finding.id.replace(/^(v033|startup)\./, "many.") };
}

function ofFaults({ family, faults }: ManyFamily, told: Origin): Finding[] {
  if (faults.length === 0) return [];
  const { atMost, atLeast } = withLimits(`many.${family}`, told);
  const held = faults.filter(({ holds }) => holds).length / faults.length;
  const left = faults.reduce((sum, fault) => sum + fault.left, 0);
  const killed = faults.find((fault) => fault.case === "killed");
  const unit = `of ${faults.length} cases with one rank struck, a control among them`;
  return [
    atLeast("faults-held", held, unit, 1),
    atMost("processes-left", left, `processes after ${faults.length} cases`, 0),
    ...(killed === undefined
      ? []
      : [atMost("killed-seconds", killed.seconds, "s after ready to its end", END_SECONDS_MAX)]),
  ];
}

/** The longest of each family's idle starts, a GPU for each rank. */
export function stallsOf(cells: readonly CellSummary[]): Stall[] {
  const all = cells.filter(isStart).flatMap(({ family, arm, round, gpus, ours }): Stall[] => {
    const ms = arm === "idle" && round >= 0 ? ours?.longestStallMs : undefined;
    return ms === undefined ? [] : [{ family, ranks: gpus.length, ms }];
  });
  const longest = all.sort((one, other) => other.ms - one.ms);
  return longest.filter(({ family }, i) => all.findIndex((one) => one.family === family) === i);
}

function stallFindings(
  { families, cells }: ManyResult,
  fewer: readonly Stall[],
  told: Origin,
): Finding[] {
  const stalls = stallsOf(cells);
  return [
    ...families.flatMap(({ family, ranks, checks }): Finding[] => {
      const inTraffic = checks.flatMap((check) => check.longestStallMs ?? []);
      const ofStarts = stalls.filter((stall) => stall.family === family).map(({ ms }) => ms);
      const all = [...ofStarts, ...inTraffic];
      if (all.length === 0) return [];
      const { atMost } = withLimits(`many.${family}`, told);
      return [atMost("longest-stall", Math.max(...all), `ms, ${ranks} ranks`, STALL_MS_MAX)];
    }),
    // Starts against starts: a fill in traffic waits for steps as well.
    ...stalls.flatMap(({ family, ranks, ms }): Finding[] => {
      const [before] = [...fewer, ...stalls]
        .filter((other) => modelOf(other.family) === modelOf(family) && other.ranks < ranks)
        .sort((one, other) => other.ranks - one.ranks);
      if (before === undefined) return [];
      const { atMost } = withLimits(`many.${family}`, told);
      const unit = `of the longest stall on ${before.ranks} ranks, on ${ranks}, idle starts`;
      return [atMost("stall-growth", ms / before.ms, unit, STALL_GROWTH_MAX)];
    }),
  ];
}

/** A family's name without its number of ranks: `dense-70b`, `moe-30b-ep`. */
function modelOf(family: string): string {
  return family.replace(/-tp\d+/, "").replace(/-ep\d+$/, "-ep");
}

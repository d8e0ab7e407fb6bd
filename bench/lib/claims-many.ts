/** What bench/gpu/many.sh claims of engines on four and eight ranks. Pure. */

import { isStart } from "../gpu/lib/family-result.ts";
import type { ManyFamily, ManyResult } from "../gpu/lib/many-result.ts";
import { type Finding, type Origin, withLimits } from "./claims.ts";
import { checkFindings } from "./claims-checks.ts";
import { startupFindings } from "./claims-startup.ts";
import { familyFindings } from "./claims-v033.ts";

/** Of one model, from its fewest ranks to its most. */
const STALL_GROWTH_MAX = 1.5;
/** A request waits for one capture at most. */
const STALL_MS_MAX = 250;
/** After ready, and with the fill on its way to the graph that the fault is in. */
const END_SECONDS_MAX = 60;

export function manyFindings(result: ManyResult, told: Origin): Finding[] {
  const { families, cells } = result;
  return [
    ...familyFindings(cells, told).map(renamed),
    ...families.flatMap((family) => [
      ...checkFindings(family.checks, told).map(renamed),
      ...ofFaults(family, told),
      ...(family.launcher === undefined ? [] : startupFindings(family.launcher, told)).map(renamed),
    ]),
    ...stallFindings(result, told),
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

/** The longest time that a capture held an engine up, by idle starts and by the fill in traffic. */
function longestStallMs({ family, checks }: ManyFamily, { cells }: ManyResult): number | undefined {
  const ofStarts = cells.filter(isStart).flatMap((start) => {
    const isOwn = start.family === family && start.arm === "idle" && start.round >= 0;
    return isOwn ? (start.ours?.longestStallMs ?? []) : [];
  });
  const all = [...ofStarts, ...checks.flatMap((check) => check.longestStallMs ?? [])];
  return all.length === 0 ? undefined : Math.max(...all);
}

function stallFindings(result: ManyResult, told: Origin): Finding[] {
  const stalls = result.families.flatMap((family) => {
    const ms = longestStallMs(family, result);
    return ms === undefined ? [] : [{ ...family, ms }];
  });
  const models = new Set(stalls.map(({ family }) => modelOf(family)));
  return [
    ...stalls.map(({ family, ranks, ms }) => {
      const { atMost } = withLimits(`many.${family}`, told);
      return atMost("longest-stall", ms, `ms, ${ranks} ranks`, STALL_MS_MAX);
    }),
    ...[...models].flatMap((model): Finding[] => {
      const own = stalls.filter(({ family }) => modelOf(family) === model);
      const [fewest, ...more] = own.sort((one, other) => one.ranks - other.ranks);
      const most = more.at(-1);
      if (fewest === undefined || most === undefined) return [];
      const { atMost } = withLimits(`many.${model}`, told);
      const unit = `of the longest stall on ${fewest.ranks} ranks, on ${most.ranks}`;
      return [atMost("stall-growth", most.ms / fewest.ms, unit, STALL_GROWTH_MAX)];
    }),
  ];
}

/** A family's name without its parallelism: `dense-70b`. */
function modelOf(family: string): string {
  return family.replace(/-tp\d+/, "");
}

/** Simulated runs of policies by name, as request-seconds added to the oracle's. */

import type { Profile } from "../../src/profile/profile.ts";
import { createSetup, type PolicyName } from "../../src/sim/virtual/setups.ts";
import { SimulatedPlans } from "../../src/sim/virtual/simulated-plans.ts";
import { type SimulatedRun, simulate } from "../../src/sim/virtual/virtual.ts";
import type { TraceRequest } from "../../src/trace/trace.ts";

export interface Load {
  readonly name: string;
  readonly requests: () => AsyncIterable<TraceRequest> | Iterable<TraceRequest>;
}

export type AddedRun = SimulatedRun & {
  readonly addedRequestSeconds: number;
  readonly wallSeconds: number;
};

/** One run for each name; the oracle's always. */
export async function addedRuns(
  profile: Profile,
  load: Load,
  names: readonly PolicyName[],
): Promise<AddedRun[]> {
  const runs: (SimulatedRun & { wallSeconds: number })[] = [];
  for (const name of ["oracle", ...names] as const) {
    const started = performance.now();
    const setup = createSetup(name, profile);
    const run = await simulate({ profile, ...setup, requests: load.requests() });
    runs.push({ ...run, wallSeconds: (performance.now() - started) / 1000 });
    console.error(`${load.name}: ${name} in ${runs.at(-1)?.wallSeconds.toFixed(1)} s`);
  }
  const [oracle, ...rest] = runs;
  return rest.map((run) => ({
    ...run,
    addedRequestSeconds: run.completionSecondsSum - (oracle?.completionSecondsSum ?? 0),
  }));
}

export interface SecondStart {
  readonly policy: string;
  readonly learnedFrom: string;
  readonly load: string;
  readonly floor: number;
  readonly first: number;
  readonly second: number;
  /** The second start's excess over floor as a share of the first's. */
  readonly excessShare: number;
  readonly graphsLearned: number;
}

/**
 * The same load without a plan, and with the plan of a start under another load (or the same). The
 * plan is recorded and ordered by the code behind real engines.
 */
export async function secondStart(
  profile: Profile,
  name: "lazy-costed" | "idle-costed",
  [learnedFrom, load]: readonly [Load, Load],
): Promise<SecondStart> {
  const setup = createSetup(name, profile);
  const teacher = new SimulatedPlans(profile);
  await simulate({ profile, ...setup, plans: teacher.engines, requests: learnedFrom.requests() });
  const plan = teacher.plan();
  const [floor, first] = await addedRuns(profile, load, ["floor", name]);
  const plans = new SimulatedPlans(profile, plan).engines;
  const run = await simulate({ profile, ...setup, plans, requests: load.requests() });
  const floorAdded = floor?.addedRequestSeconds ?? 0;
  const firstAdded = first?.addedRequestSeconds ?? 0;
  const second = run.completionSecondsSum - (first?.completionSecondsSum ?? 0) + firstAdded;
  return {
    policy: name,
    learnedFrom: learnedFrom.name,
    load: load.name,
    floor: floorAdded,
    first: firstAdded,
    second,
    excessShare: (second - floorAdded) / (firstAdded - floorAdded),
    graphsLearned: plan.first.length,
  };
}

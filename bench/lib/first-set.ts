/** Arms and loads of `npm run bench:first-set`. */

import { foreignSeed } from "../../src/plan/seed.ts";
import { costSeedOf } from "../../src/profile/cost-seed.ts";
import type { Profile } from "../../src/profile/profile.ts";
import { createCostPolicy } from "../../src/schedule/costed/costed.ts";
import { createSetup, type PolicyName, type Setup } from "../../src/sim/virtual/setups.ts";
import { simulate } from "../../src/sim/virtual/virtual.ts";
import type { Load } from "./added.ts";

/** A policy by name, or one that starts with the costs of another engine. */
export type ArmName = PolicyName | "lazy, unknown engine" | "idle, unknown engine";

export interface Arm {
  readonly name: ArmName;
  readonly addedRequestSeconds: number;
  readonly captureBeforeReadySeconds: number;
  readonly graphsBeforeReady: number;
  readonly graphsCaptured: number;
  readonly stallSecondsMax: number;
}

/**
 * One run for each arm under one load, as request-seconds added to the oracle's.
 *
 * @param other whose costs an engine that nobody knows starts with
 */
export async function armsOf(
  profile: Profile,
  other: Profile,
  load: Load,
  names: readonly ArmName[],
): Promise<Arm[]> {
  const oracle = await simulate({
    profile,
    ...createSetup("oracle", profile),
    requests: load.requests(),
  });
  const arms: Arm[] = [];
  for (const name of names) {
    const setup = setupOf(profile, other, name);
    const run = await simulate({ profile, ...setup, requests: load.requests() });
    arms.push({
      name,
      addedRequestSeconds: run.completionSecondsSum - oracle.completionSecondsSum,
      captureBeforeReadySeconds: run.captureBeforeReadySeconds,
      graphsBeforeReady: run.graphsAtReady,
      graphsCaptured: run.graphsCaptured,
      stallSecondsMax: run.stallSecondsMax,
    });
  }
  return arms;
}

function setupOf(profile: Profile, other: Profile, name: ArmName): Setup {
  if (name !== "lazy, unknown engine" && name !== "idle, unknown engine") {
    return createSetup(name, profile);
  }
  const mode = name === "lazy, unknown engine" ? "lazy" : "idle";
  return { mode, policy: () => createCostPolicy({ mode, costs: foreignSeed(costSeedOf(other)) }) };
}

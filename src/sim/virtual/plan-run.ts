/** Learned plans of simulated starts: the same recorder as behind a real engine. */

import { hostname } from "node:os";
import { packageVersion } from "../../base/version.ts";
import { type Fingerprint, fingerprintOf } from "../../plan/fingerprint.ts";
import { addLearned, agePlan, emptyPlan } from "../../plan/merge.ts";
import type { Plan } from "../../plan/plan.ts";
import { PlanRecorder } from "../../plan/recorder.ts";
import { costSeedOf } from "../../profile/cost-seed.ts";
import type { Profile } from "../../profile/profile.ts";
import type { Policy } from "../../schedule/policy.ts";
import type { EngineState } from "../../schedule/state.ts";

/** The fingerprint under which the simulated engine's process joins a controller. */
export function simulatedFingerprint({ engine, captures }: Profile): Fingerprint {
  const ranks = [{ gpuName: `${engine.gpuName} (simulated)` }];
  const graphs = captures.costs.map(({ graph }) => graph);
  const { cudagraphMode } = engine;
  const told = { cudagraphMode, graphs, ranks };
  return fingerprintOf({ ...engine, pluginVersion: packageVersion() }, told);
}

export interface LearningPolicy extends Policy {
  /** The plan after this start; the one it began with where nothing was learned. */
  plan(): Plan;
}

/** The same policy, with somebody who takes notes. */
export function learningPolicy(
  policy: Policy,
  profile: Profile,
  earlier: Plan | undefined,
): LearningPolicy {
  let state: EngineState | undefined;
  let recorder: PlanRecorder | undefined;
  return {
    name: policy.name,
    decide(its, event) {
      state = its;
      recorder ??= new PlanRecorder(its.planned, costSeedOf(profile));
      if (event.type === "demand") recorder.observe(event.steps ?? [], its.waiting);
      return policy.decide(its, event);
    },
    plan() {
      const now = new Date().toISOString();
      const learnedBy = `lazygraph ${packageVersion()} on ${hostname()}: simulate`;
      const fingerprint = simulatedFingerprint(profile);
      const head = { fingerprint, createdAt: now, learnedBy, simulated: profile.name };
      const base = earlier ?? emptyPlan(head);
      const learned = state === undefined ? undefined : recorder?.learned(state);
      if (learned === undefined) return base;
      return { ...addLearned(agePlan(base, [learned]), [learned], 1), learnedBy, updatedAt: now };
    },
  };
}

/** Learned plans of simulated starts, in memory: learned and used by the code behind real engines. */

import { hostname } from "node:os";
import { packageVersion } from "../../base/version.ts";
import { BookEntry, type BookHead, type Contribution } from "../../plan/book.ts";
import { EnginePlans } from "../../plan/engine-plan.ts";
import { type Fingerprint, fingerprintOf } from "../../plan/fingerprint.ts";
import { emptyPlan } from "../../plan/merge.ts";
import type { Plan } from "../../plan/plan.ts";
import type { Profile } from "../../profile/profile.ts";

/** The fingerprint under which the simulated engine's process joins a controller. */
export function simulatedFingerprint({ engine, captures }: Profile): Fingerprint {
  const ranks = [{ gpuName: `${engine.gpuName} (simulated)` }];
  const graphs = captures.costs.map(({ graph }) => graph);
  const { cudagraphMode } = engine;
  const told = { cudagraphMode, graphs, ranks };
  return fingerprintOf({ ...engine, pluginVersion: packageVersion() }, told);
}

/** One plan, for one start. */
export class SimulatedPlans {
  readonly engines: EnginePlans;
  readonly #profile: Profile;
  readonly #learnedBy = `lazygraph ${packageVersion()} on ${hostname()}: simulate`;
  readonly #earlier: Plan | undefined;
  #book: BookEntry | undefined;

  /** @param earlier what the start begins with, whichever engine it is of. @default nothing */
  constructor(profile: Profile, earlier?: Plan) {
    this.#profile = profile;
    this.#earlier = earlier;
    const source = {
      refresh: () => Promise.resolve(),
      close: () => Promise.resolve(),
      start: (head: BookHead, contribution: Contribution) => {
        this.#book = new BookEntry(head, earlier);
        this.#book.join(contribution, now());
        const nothing = (): void => undefined;
        return { file: "a simulated start", plan: earlier, settled: nothing, end: nothing };
      },
    };
    this.engines = new EnginePlans(source, this.#learnedBy, profile);
  }

  /** The plan after this start; the one it began with where nothing was learned. */
  plan(): Plan {
    return (
      this.#book?.plan(now()) ??
      this.#earlier ??
      emptyPlan({
        fingerprint: simulatedFingerprint(this.#profile),
        createdAt: now(),
        learnedBy: this.#learnedBy,
        simulated: this.#profile.name,
      })
    );
  }
}

function now(): string {
  return new Date().toISOString();
}

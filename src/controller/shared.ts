/** What all engines of one controller share: learned plans, and the memory of this host's GPUs. */

import { hostname } from "node:os";
import { codeOf, messageOf } from "../base/errors.ts";
import { packageVersion } from "../base/version.ts";
import { publishProblem } from "../engine/events.ts";
import { type SharedMemory, sharedMemory } from "../engine/shared-memory.ts";
import { HostGpus } from "../memory/gpus.ts";
import { EnginePlans } from "../plan/engine-plan.ts";
import { defaultPlanFolder } from "../plan/place.ts";
import { PlanStore } from "../plan/store.ts";
import { loadProfile } from "../profile/load.ts";
import type { Ground } from "./ground.ts";
import type { ResolvedOptions } from "./options.ts";

/** Learned plans, and what is wrong with them. */
export class SharedPlans {
  readonly engines: EnginePlans;
  /** Kept until there is an engine: who starts a controller listens from then on at the latest. */
  #kept: string[] | undefined = [];

  constructor(options: ResolvedOptions, ground: Ground) {
    this.engines = openPlans(options, ground, (message) => this.#problem(message));
  }

  /** What was kept, and from now on everything at once. */
  tellProblems(): void {
    const problems = this.#kept ?? [];
    this.#kept = undefined;
    for (const message of problems) this.#problem(message);
  }

  /** Writes what was learned. Never rejects. */
  async close(): Promise<void> {
    await this.engines.close();
    this.tellProblems();
  }

  #problem(message: string): void {
    if (this.#kept !== undefined) this.#kept.push(message);
    else publishProblem("", "ERR_LAZYGRAPH_PLAN", message);
  }
}

function openPlans(
  options: ResolvedOptions,
  { clock, files }: Ground,
  onProblem: (message: string) => void,
): EnginePlans {
  const { plan, planFolder, planReadOnly, profile } = options;
  const folder = plan ? (planFolder ?? foundPlanFolder(onProblem)) : undefined;
  const store =
    folder === undefined
      ? undefined
      : new PlanStore({ folder, readOnly: planReadOnly, clock, files, onProblem });
  const learnedBy = `lazygraph ${packageVersion()} on ${hostname()}`;
  const costs = profile === undefined ? undefined : loadProfile(profile);
  return new EnginePlans(store, learnedBy, costs);
}

/** Nobody asked for plans to be kept: where there is no place for them, none are. */
function foundPlanFolder(onProblem: (message: string) => void): string | undefined {
  try {
    return defaultPlanFolder(process.env);
  } catch (error) {
    onProblem(messageOf(error));
    return undefined;
  }
}

/**
 * The driver of this host's GPUs is opened later, when an engine has told which it is on.
 *
 * @param onNews free memory has crossed what is spoken for
 */
export function openMemory(
  { memory = {} }: ResolvedOptions,
  { clock }: Ground,
  onNews: () => void,
): SharedMemory {
  if (memory.gpu === false) return sharedMemory(memory);
  const gpus = new HostGpus({
    clock,
    onNews,
    onFault: (gpu, error) =>
      publishProblem(
        "",
        codeOf(error) ?? "ERR_LAZYGRAPH_INTERNAL",
        `The memory of GPU ${gpu} can't be read, so its engines' own figures count: ` +
          messageOf(error),
      ),
  });
  return sharedMemory(memory, gpus);
}

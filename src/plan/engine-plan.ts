/** One engine's learned plan: what it starts with, and what it adds. */

import type { StepShape } from "../base/graph.ts";
import { loadProfile } from "../profile/load.ts";
import type { Profile } from "../profile/profile.ts";
import type { PolicyContext } from "../schedule/choice.ts";
import { StepObserver } from "../schedule/costed/observer.ts";
import type { Prior } from "../schedule/costed/prior.ts";
import type { Bucket, Placed } from "../schedule/costed/shapes.ts";
import type { StepsSeen } from "../schedule/policy.ts";
import type { EngineState, GraphState } from "../schedule/state.ts";
import type { Hello, Inventory } from "../wire/protocol.ts";
import type { Contribution } from "./book.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { type Plan, planBytes, priorOf } from "./plan.ts";
import { learnedOf } from "./recorder.ts";
import { costSeedFor } from "./seed.ts";
import type { PlanStart, PlanStore } from "./store.ts";

/** The learned plan of an engine, as a snapshot shows it. */
export interface PlanSnapshot {
  /** The plan's file. */
  readonly file: string;
  /** Starts behind what was known when this engine started; 0: nothing was. */
  readonly starts: number;
  /** Graphs that earlier starts needed, most valuable first. */
  readonly first: readonly string[];
}

/** Where plans are kept: a folder's, or a simulation's own. */
export type PlanSource = Pick<PlanStore, "refresh" | "close" | "start">;

/** Hands every engine its plan; without a store nothing is learned or known. */
export class EnginePlans {
  readonly #store: PlanSource | undefined;
  readonly #learnedBy: string;
  #profile: Profile | undefined;

  /** @param profile where cost estimates start. @default the one shipped, loaded when first needed */
  constructor(store: PlanSource | undefined, learnedBy: string, profile?: Profile) {
    this.#store = store;
    this.#learnedBy = learnedBy;
    this.#profile = profile;
  }

  /** Reads what has changed on the disk. Never rejects. */
  async refresh(): Promise<void> {
    await this.#store?.refresh();
  }

  /** Writes what was learned, for two seconds at most. Never rejects. */
  async close(): Promise<void> {
    await this.#store?.close();
  }

  /** An engine told its graphs. At once. */
  engine(hello: Hello, inventory: Inventory, state: EngineState): EnginePlan {
    this.#profile ??= loadProfile();
    return new EnginePlan(hello, inventory, state, {
      store: this.#store,
      profile: this.#profile,
      learnedBy: this.#learnedBy,
    });
  }
}

interface EnginePlanOptions {
  readonly store: PlanSource | undefined;
  readonly profile: Profile;
  readonly learnedBy: string;
}

export class EnginePlan {
  /** Undefined where plans are off. */
  readonly snapshot: PlanSnapshot | undefined;
  /** What a policy is made with. */
  readonly context: PolicyContext;
  /** Bytes of each graph that earlier starts captured. */
  readonly bytes: ReadonlyMap<string, number>;
  readonly #observer: StepObserver;
  readonly #start: PlanStart | undefined;

  /** @param state the engine's, for as long as it has this inventory */
  constructor(hello: Hello, inventory: Inventory, state: EngineState, options: EnginePlanOptions) {
    const { store, profile, learnedBy } = options;
    const { planned } = state;
    const contribution: Contribution = {
      fresh: inventory.phase === "loading" || inventory.phase === "capturing",
      learned: () => learnedOf(this.#observer, state),
    };
    const { simulated } = hello;
    const more = simulated === undefined ? {} : { simulated };
    const fingerprint = fingerprintOf(hello, inventory);
    this.#start = store?.start({ fingerprint, learnedBy, ...more }, contribution);
    const plan = this.#start?.plan;
    const prior = plan === undefined ? undefined : knownPrior(plan, state);
    const costs = costSeedFor(profile, hello, plan);
    this.#observer = new StepObserver(planned, costs);
    const observer = this.#observer;
    this.context = { costs, observer, ...(prior === undefined ? {} : { prior }) };
    this.bytes = plan === undefined ? new Map() : planBytes(plan);
    this.snapshot =
      this.#start &&
      Object.freeze({
        file: this.#start.file,
        starts: plan?.starts ?? 0,
        first: Object.freeze([...(prior?.first ?? [])]),
      });
  }

  /** See engine/prefetch.ts. */
  prefetch(): number {
    return this.#observer.prefetch();
  }

  /** Likewise, of the graphs that served last: mostly the same ones do again. */
  prefetchGraphs(entries: readonly GraphState[]): number {
    return this.#observer.prefetchGraphs(entries);
  }

  /** Where these steps stand in the plan; to be read before the next report. */
  placed(steps: readonly StepsSeen[]): Placed {
    return this.#observer.costs.shapes.placed(steps);
  }

  /** Place in the plan of the graph that stock would replay for this step of that bucket; -1: none. */
  idealAt(step: StepShape, bucket: Bucket | undefined): number {
    return this.#observer.idealAt(step, bucket);
  }

  /** @returns seconds that these steps took longer than with their ideal graphs */
  observe(steps: readonly StepsSeen[], waiting: number, atSeconds: number): number {
    return this.#observer.observe(steps, waiting, atSeconds).regretSeconds;
  }

  settled(): void {
    this.#start?.settled();
  }

  end(): void {
    this.#start?.end();
  }
}

/** A plan edited by hand may name graphs that this engine hasn't got. */
function knownPrior(plan: Plan, state: EngineState): Prior {
  return priorOf({ ...plan, first: plan.first.filter((id) => state.graphs.has(id)) });
}

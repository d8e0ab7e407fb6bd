/**
 * How long a simulated engine's steps and captures take: the profile's figures, with the warm-up
 * runs that a kind's first capture needs, each varied by the jitter. Pure.
 */

import type { Graph } from "../../base/graph.ts";
import { createRandom, type Random, standardNormal } from "../../base/random.ts";
import type { Profile } from "../../profile/profile.ts";
import { type CostModel, createCostModel, type StepWork } from "./cost.ts";

export interface DurationOptions {
  readonly warmUps: "first" | "all";
  /** Relative standard deviation. */
  readonly jitter: number;
  readonly seed: number;
}

export class Durations {
  readonly #options: DurationOptions;
  readonly #costs: CostModel;
  readonly #random: Random;
  readonly #warmedKinds = new Set<string>();

  constructor(profile: Profile, options: DurationOptions) {
    this.#options = options;
    this.#costs = createCostModel(profile);
    this.#random = createRandom(options.seed);
  }

  /** Of a step served by `graph`, or ungraphed. */
  stepSeconds(graph: Graph | undefined, work: StepWork): number {
    return this.#vary(this.#costs.stepSeconds(graph, work));
  }

  /** Until such a step is launched: always the same. */
  launchSeconds(graph: Graph | undefined): number {
    return this.#costs.launchSeconds(graph);
  }

  /** Whether a capture before ready has a warm-up run; from then on its kind counts as warm. */
  warmUp({ kind }: Graph): boolean {
    // The first capture of a kind compiles and loads kernels: it can't go without a warm-up run.
    const warmUp = this.#options.warmUps === "all" || !this.#warmedKinds.has(kind);
    this.#warmedKinds.add(kind);
    return warmUp;
  }

  /** Of a capture before ready. */
  startSeconds(graph: Graph, warmUp: boolean): number {
    return this.#vary(this.#costs.startSeconds(graph, warmUp));
  }

  /** What of a capture with a warm-up run goes into that run. */
  warmUpShare(graph: Graph): number {
    return 1 - this.#costs.startSeconds(graph, false) / this.#costs.startSeconds(graph, true);
  }

  /** Of a capture between two steps. A kind's first one needs its warm-up run, whenever it comes. */
  laterSeconds(graph: Graph): number {
    const seconds = this.#costs.laterSeconds(graph);
    if (this.#warmedKinds.has(graph.kind)) return this.#vary(seconds);
    this.#warmedKinds.add(graph.kind);
    const cold = this.#costs.startSeconds(graph, true);
    return this.#vary(seconds + cold - this.#costs.startSeconds(graph, false));
  }

  /** Of a capture in a step: no warm-up run is counted. */
  inStepSeconds(graph: Graph): number {
    return this.#vary(this.#costs.laterSeconds(graph));
  }

  #vary(seconds: number): number {
    const { jitter } = this.#options;
    if (jitter === 0) return seconds;
    return seconds * Math.max(0.1, 1 + jitter * standardNormal(this.#random));
  }
}

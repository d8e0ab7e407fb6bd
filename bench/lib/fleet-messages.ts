/** What the processes of `npm run bench:fleet` tell each other. */

import type { ProbeFigures } from "./fleet-probe.ts";

/** Of a controller's process, since its last answer. */
export interface ControllerFigures extends ProbeFigures {
  readonly rssBytes: number;
  /** Processor time used, and the time it was used in. */
  readonly busySeconds: number;
  readonly seconds: number;
  /** Of the processor time, that of each thread by its name; empty where the host doesn't tell. */
  readonly busyByThread: Readonly<Record<string, number>>;
  readonly engines: number;
  readonly settled: number;
  /** Engines lost so far, by the controller's word. */
  readonly lost: number;
  readonly problems: Readonly<Record<string, number>>;
}

/** Processor time of a controller, and the time it was used in. */
export interface CoreFigures {
  readonly busySeconds: number;
  readonly seconds: number;
  /** Frames of telemetry that engines sent meanwhile. */
  readonly frames: number;
  readonly busyByThread: Readonly<Record<string, number>>;
}

/** `begin`: what the next figures are of begins now; `unwatch`: likewise, and without the probe. */
export type ToController =
  | "figures"
  | "begin"
  | "unwatch"
  | "collect"
  | "exit"
  | { readonly profiled: string };
export type FromController =
  | { readonly type: "listening"; readonly endpoint: string; readonly http?: string }
  | { readonly type: "figures"; readonly figures: ControllerFigures };

export interface EngineFigures {
  readonly connected: number;
  readonly welcomed: number;
  readonly ready: number;
  readonly settled: number;
  readonly captures: number;
  /** Beats of the controller's that came more than one interval late. */
  readonly missedHeartbeats: number;
  readonly longestSilenceMs: number;
  /** Times that a controller asked who somebody is, or for an inventory. */
  readonly resyncs: number;
  readonly refusals: number;
  /** From the first engine's ready to the last one's being settled; 0 while one isn't. */
  readonly allSettledSeconds: number;
  /** From each engine's ready to its being settled. */
  readonly settleP50Seconds: number;
  readonly settleMaxSeconds: number;
  /** From a result's leaving to the next capture's coming, by the engines' own clock. */
  readonly answerP50Ms: number;
  readonly answerP99Ms: number;
  readonly telemetry: number;
  readonly busyShare: number;
}

export type ToEngines =
  | {
      readonly type: "arrive";
      readonly engines: number;
      readonly seconds: number;
      /** They have all of their graphs, as engines do whose controller was started anew. */
      readonly full: boolean;
    }
  | { readonly type: "serve" }
  | { readonly type: "figures" }
  | { readonly type: "exit" };
export type FromEngines = { readonly type: "figures"; readonly figures: EngineFigures };

/** What bench/gpu/launcher.sh found, in one document: what bench/results keeps. */

import type { FailedStart } from "../../../src/cli/startup-turns.ts";
import type { StartResult } from "../../../src/startup/start.ts";

/** A start without its segments, which the phases sum up. */
export type Start = Omit<StartResult, "segments">;

export interface Comparison {
  readonly simulated: boolean;
  readonly failures: readonly FailedStart[];
  /** Starts for which there was no time. */
  readonly left: number;
  /** Turns left out: stock filled compile caches in them. */
  readonly coldTurns?: readonly number[];
  readonly starts: readonly Start[];
}

interface Verdict {
  readonly holds: boolean;
  /** Why the check could not be made. */
  readonly error?: string;
}

/** Of launcher_checks.py; what there was no time for is not there. */
export interface LauncherChecks {
  readonly starts?: Verdict;
  readonly readySeconds?: Readonly<Record<"spawned" | "forked", readonly number[]>>;
  readonly tokens?: Verdict & { readonly starts: number; readonly equal: number };
  readonly leaks?: Verdict & {
    readonly files: readonly [before: number, after: number];
    readonly children: readonly number[];
  };
  readonly growth?: Verdict & { readonly bytes: number; readonly bytesMax: number };
  readonly killed?: Verdict & { readonly cases?: readonly Verdict[] };
  readonly orphan?: Verdict;
}

export interface LauncherResult {
  readonly what: "launcher";
  /** The family's name in the claims, such as `dense-8b`. */
  readonly family: string;
  readonly host: string;
  readonly serve: string;
  /** Microseconds that one timed span costs on that host. */
  readonly spanMicroseconds: number;
  readonly parts: readonly { readonly part: string; readonly state: string }[];
  readonly comparison?: Comparison;
  readonly checks?: LauncherChecks;
  readonly caches?: Comparison & {
    readonly packBytes: number;
    readonly packSeconds: number;
  };
}

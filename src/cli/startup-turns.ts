/** Starts of several variants in turns: what one of them lacks must not cost the others' figures. */

import { codeOf, messageOf } from "../base/errors.ts";
import type { StartResult } from "../startup/start.ts";
import {
  type MeasuredStart,
  measureStart,
  type StartOptions,
  type Variant,
} from "./startup-run.ts";

export interface Turns {
  readonly variants: readonly Variant[];
  readonly runs: number;
  readonly folder: string;
  readonly readyWithinSeconds: number;
  /** No start is begun that would end later, going by the longest of its variant so far. */
  readonly withinSeconds: number;
  readonly signal: AbortSignal;
}

/** A start that was never ready, or gave no token. */
export interface FailedStart {
  readonly variant: string;
  readonly run: number;
  readonly code: string | undefined;
  readonly error: string;
}

export interface Outcome {
  readonly results: readonly StartResult[];
  readonly failures: readonly FailedStart[];
  /** Of what was asked for, starts for which there was no time. */
  readonly left: number;
  readonly stopped: boolean;
}

export interface Listener {
  /** It runs, and is waited for at `url`. */
  spawned?(variant: Variant, run: number, url: URL, log: string): void;
  /** After each start, with all that there is: nothing measured is lost with what comes. */
  started(measured: MeasuredStart, outcome: Outcome): Promise<void>;
  failed(failure: FailedStart, outcome: Outcome): Promise<void>;
}

/** A variant that fails is tried once more: a port may have been taken. */
const FAILURES_MAX = 2;

/** @param now in seconds */
export async function takeTurns(
  turns: Turns,
  listener: Listener,
  measure: (start: StartOptions) => Promise<MeasuredStart> = measureStart,
  now: () => number = () => performance.now() / 1000,
): Promise<Outcome> {
  const { variants, runs, folder, readyWithinSeconds, withinSeconds, signal } = turns;
  const results: StartResult[] = [];
  const failures: FailedStart[] = [];
  const longest = new Map<string, number>();
  const began = now();
  let left = variants.length * runs;
  const outcome = (stopped = false): Outcome => ({ results, failures, left, stopped });
  const isGivenUp = (name: string): boolean =>
    failures.filter(({ variant }) => variant === name).length >= FAILURES_MAX;
  for (let run = 1; run <= runs; run++) {
    for (const variant of variants) {
      const { name } = variant;
      const since = now();
      if (isGivenUp(name)) {
        left--;
        continue;
      }
      if (since - began + (longest.get(name) ?? 0) > withinSeconds) return outcome();
      left--;
      const onSpawned = (url: URL, log: string): void => listener.spawned?.(variant, run, url, log);
      const start = { variant, run, folder, readyWithinSeconds, signal, onSpawned };
      const measured = await measure(start).catch((error: unknown) => ({ error }));
      if ("result" in measured) {
        results.push(measured.result);
        // Ending it takes its time as well.
        longest.set(name, Math.max(longest.get(name) ?? 0, now() - since));
        await listener.started(measured, outcome());
        continue;
      }
      if (signal.aborted) return outcome(true);
      const { error } = measured;
      const failure = { variant: name, run, code: codeOf(error), error: messageOf(error) };
      failures.push(failure);
      await listener.failed(failure, outcome());
    }
  }
  return outcome();
}

/** What `lazygraph startup` keeps of its starts: `startup.json`. */

import { hideSecretOptions } from "../base/secrets.ts";
import { packageVersion } from "../base/version.ts";
import { type Estimate, estimate } from "../bench/bootstrap.ts";
import type { StartResult } from "../startup/start.ts";
import type { Variant } from "./startup-run.ts";
import type { FailedStart, Outcome } from "./startup-turns.ts";

/** Intervals of fewer starts would say nothing. */
const INTERVAL_STARTS_MIN = 3;

export interface StartupDocument {
  readonly format: "lazygraph-startup";
  readonly formatVersion: 1;
  readonly lazygraph: string;
  readonly simulated: boolean;
  /** Their commands without keys and tokens. */
  readonly variants: readonly Variant[];
  readonly summary: readonly {
    readonly name: string;
    readonly starts: number;
    readonly readySeconds: Estimate | undefined;
    readonly firstTokenSeconds: Estimate | undefined;
  }[];
  readonly failures: readonly FailedStart[];
  /** Of the starts that were asked for, those for which there was no time. */
  readonly left: number;
  readonly starts: readonly StartResult[];
}

export function startupDocument(variants: readonly Variant[], outcome: Outcome): StartupDocument {
  const { results, failures, left } = outcome;
  const summary = variants.flatMap(({ name }) => {
    const own = results.filter(({ variant }) => variant === name);
    if (own.length === 0) return [];
    const interval = (pick: (result: StartResult) => number): Estimate | undefined =>
      own.length < INTERVAL_STARTS_MIN ? undefined : estimate(own.map((r) => [pick(r)]))?.mean;
    return [
      {
        name,
        starts: own.length,
        readySeconds: interval(({ readySeconds }) => readySeconds),
        firstTokenSeconds: interval(({ firstTokenSeconds }) => firstTokenSeconds),
      },
    ];
  });
  return {
    format: "lazygraph-startup",
    formatVersion: 1,
    lazygraph: packageVersion(),
    simulated: results.some(({ simulated }) => simulated),
    variants: variants.map(({ name, command, prepare }) => ({
      name,
      command: hideSecretOptions(command),
      ...(prepare === undefined ? {} : { prepare: hideSecretOptions([prepare]).join("") }),
    })),
    summary,
    failures,
    left,
    starts: results,
  };
}

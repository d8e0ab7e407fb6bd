/** What `lazygraph startup` keeps of its starts: `startup.json`. */

import { packageVersion } from "../base/version.ts";
import { estimate } from "../bench/bootstrap.ts";
import type { StartResult } from "../startup/start.ts";
import type { Variant } from "./startup-run.ts";
import type { Outcome } from "./startup-turns.ts";

/** Intervals of fewer starts would say nothing. */
const INTERVAL_STARTS_MIN = 3;

export function startupDocument(variants: readonly Variant[], outcome: Outcome): object {
  const { results, failures, left } = outcome;
  const summary = variants.flatMap(({ name }) => {
    const own = results.filter(({ variant }) => variant === name);
    if (own.length === 0) return [];
    const interval = (pick: (result: StartResult) => number): object | undefined =>
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
    variants,
    summary,
    failures,
    left,
    starts: results,
  };
}

/** The figures of starts, as `lazygraph startup` keeps and compares them. */

import { mean } from "../measure/statistics.ts";
import { type PhaseTime, phaseTimes, type Segment, UNATTRIBUTED } from "./attribute.ts";
import type { Span } from "./spans.ts";

export interface StartResult {
  readonly variant: string;
  readonly run: number;
  readonly readySeconds: number;
  /** From the spawn to the end of an answer of one token, asked for at once. */
  readonly firstTokenSeconds: number;
  readonly phases: readonly PhaseTime[];
  readonly segments: readonly Segment[];
  /** Spans that were timed, over all processes: each cost its share of the time. */
  readonly spans: number;
  readonly processes: number;
  readonly simulated: boolean;
  readonly weights: { readonly bytes: number; readonly loader: string } | undefined;
}

export function startResult(
  variant: string,
  run: number,
  times: Pick<StartResult, "readySeconds" | "firstTokenSeconds">,
  pieces: readonly Segment[],
  spans: readonly Span[],
): StartResult {
  const loaded = spans.find(({ name, detail }) => name === "weights" && "bytes" in detail);
  return {
    ...{ variant, run, ...times },
    phases: phaseTimes(pieces),
    segments: pieces,
    spans: spans.length,
    processes: new Set(spans.map(({ pid }) => pid)).size,
    simulated: spans.some(({ detail }) => detail["simulated"] === true),
    weights: loaded && {
      bytes: Number(loaded.detail["bytes"]),
      loader: String(loaded.detail["loader"]),
    },
  };
}

/** Seconds that no phase covers. */
export function unattributedSeconds({ phases }: StartResult): number {
  return phases.find(({ name }) => name === UNATTRIBUTED)?.seconds ?? 0;
}

export interface PhaseDifference {
  readonly name: string;
  readonly base: number;
  readonly other: number;
}

/** Mean seconds by phase of two variants, the largest difference first. */
export function differences(
  base: readonly StartResult[],
  other: readonly StartResult[],
): PhaseDifference[] {
  const names = new Set([...base, ...other].flatMap(({ phases }) => phases.map((p) => p.name)));
  return [...names]
    .map((name) => ({ name, base: meanSeconds(base, name), other: meanSeconds(other, name) }))
    .sort((a, b) => Math.abs(b.other - b.base) - Math.abs(a.other - a.base));
}

export function meanSeconds(results: readonly StartResult[], phase: string): number {
  const all = results.map(({ phases }) => phases.find(({ name }) => name === phase)?.seconds ?? 0);
  return mean(all);
}

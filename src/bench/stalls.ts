/** Stalls by what caused them: a capture, or a kernel compiled on its first use. Pure. */

import { longestTokenGap } from "./gap.ts";
import type { CellRun, RequestRecord } from "./samples.ts";
import { type Hold, isDelayed } from "./windows.ts";

/**
 * `both`: a capture compiles what its graph has never run, so that one holds the other up. `neither`
 * is known only where captures and compilations are: a long step, or the host.
 */
export type GapCause = "capture" | "compilation" | "both" | "neither";

export interface StallFigures {
  /** What held the engine up in the longest gap between tokens. */
  readonly longestTokenGapCause?: GapCause;
  /** Stretches in which kernels were compiled while it served; absent where nobody timed them. */
  readonly compilationsAfterReady?: number;
  readonly longestCompilationMs?: number;
  /** Share of the requests whose first token waited for a compilation. */
  readonly shareDelayedByCompilation?: number;
}

export function stallFigures(run: CellRun, completed: readonly RequestRecord[]): StallFigures {
  const { compilations } = run;
  if (compilations === undefined) return {};
  const inOrder = apart(compilations);
  const cause = gapCause(run, inOrder, completed);
  const longest = Math.max(...inOrder.map(lengthSeconds));
  const delayed = completed.filter((request) => isDelayed(request, inOrder));
  return {
    ...(cause === undefined ? {} : { longestTokenGapCause: cause }),
    compilationsAfterReady: inOrder.length,
    ...(inOrder.length === 0 ? {} : { longestCompilationMs: longest * 1000 }),
    ...(inOrder.length === 0 || completed.length === 0
      ? {}
      : { shareDelayedByCompilation: delayed.length / completed.length }),
  };
}

/** What lies in the longest gap for at least half of it: less explains little. */
function gapCause(
  { captures }: CellRun,
  compilations: readonly Hold[],
  completed: readonly RequestRecord[],
): GapCause | undefined {
  const gap = longestTokenGap(completed);
  if (gap === undefined) return undefined;
  const from = gap.atSeconds - gap.seconds;
  const explains = (holds: readonly Hold[]): boolean =>
    coveredSeconds(holds, from, gap.atSeconds) >= gap.seconds / 2;
  const [capture, compilation] = [explains(captures), explains(compilations)];
  if (capture && compilation) return "both";
  if (capture) return "capture";
  return compilation ? "compilation" : "neither";
}

function coveredSeconds(holds: readonly Hold[], from: number, to: number): number {
  const inside = apart(holds).map(({ startSeconds, endSeconds }) => {
    return Math.max(0, Math.min(endSeconds, to) - Math.max(startSeconds, from));
  });
  return inside.reduce((sum, seconds) => sum + seconds, 0);
}

function lengthSeconds({ startSeconds, endSeconds }: Hold): number {
  return endSeconds - startSeconds;
}

/**
 * In order, and none within another: ranks compile the same kernel at the same time, and the search
 * for one in a window halves, which wants their ends in order.
 */
function apart(holds: readonly Hold[]): Hold[] {
  const merged: Hold[] = [];
  for (const hold of [...holds].sort((a, b) => a.startSeconds - b.startSeconds)) {
    const last = merged.at(-1);
    if (last === undefined || hold.startSeconds > last.endSeconds) merged.push(hold);
    else if (hold.endSeconds > last.endSeconds) {
      merged[merged.length - 1] = { ...last, endSeconds: hold.endSeconds };
    }
  }
  return merged;
}

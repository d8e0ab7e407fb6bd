/** What bench/gpu/many.sh found, in one document: what bench/results keeps. */

import type { Check } from "../../lib/claims-checks.ts";
import type { CellSummary } from "./family-result.ts";
import type { LauncherResult } from "./start-result.ts";

/** Of checks.py. */
export interface ManyCheck extends Check {
  /** Of `ranks`: the longest time that a capture held requests up. */
  readonly longestStallMs?: number | null;
}

/** One case of rank_faults.py. */
export interface RankFault {
  readonly case: string;
  readonly holds: boolean;
  /** From ready to its end, or to when it had seen enough. */
  readonly seconds: number;
  readonly left: number;
  readonly reason: string | null;
}

export interface ManyFamily {
  readonly family: string;
  /** Ranks of its engine, a GPU each. */
  readonly ranks: number;
  readonly checks: readonly ManyCheck[];
  readonly faults: readonly RankFault[];
  readonly launcher?: LauncherResult;
}

export interface ManyResult {
  readonly what: "many";
  readonly host: string;
  /** What its servers were told of NCCL and of all-reduces, as `NCCL_NVLS_ENABLE=0`. */
  readonly environment?: readonly string[];
  readonly families: readonly ManyFamily[];
  /** Of families.sh: starts, and each graph against an ungraphed run. */
  readonly cells: readonly CellSummary[];
  /** Cells that failed, with their reasons. */
  readonly failed: readonly { readonly cell: string; readonly reason: string }[];
}

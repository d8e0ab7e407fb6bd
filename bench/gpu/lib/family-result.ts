/** What cells of families.sh leave behind, one JSON file each. */

import type { CompilationRecord, RequestRecord } from "../../../src/bench/samples.ts";
import type { DecodeResult } from "./decode.ts";
import { cellName, type FamilyCell } from "./family-plan.ts";
import { msByRequests, type ParityFigures, parityFigures } from "./parity.ts";
import type { StartTiming } from "./start-timing.ts";

export interface StartResult extends FamilyCell {
  readonly shape: string;
  readonly gpus: readonly number[];
  /** By fork from a process with vLLM imported, or as people start it. */
  readonly via: "launcher" | "spawn";
  /** The arguments after `serve MODEL`. */
  readonly args: readonly string[];
  readonly timing: Omit<StartTiming, "deviceBeganAt">;
  readonly spawnToReadySeconds: number;
  readonly spawnToFirstTokenSeconds: number;
  /** From the first rank's device initialisation. */
  readonly deviceToReadySeconds?: number;
  readonly deviceToFirstTokenSeconds?: number;
  readonly kvTokens?: number;
  readonly decode: readonly DecodeResult[];
  readonly ours?: OurFigures;
  /** The family's first, without a warm-up: caches were being filled, and only captures compare. */
  readonly cold?: true;
}

/** From our controller. */
export interface OurFigures {
  readonly unsupported?: string;
  readonly graphsPlanned: number;
  readonly graphsAtReady: number;
  readonly graphsBeforeDecode: number;
  readonly graphsAfterDecode: number;
  readonly readyToSettledSeconds?: number;
  readonly longestCaptureMs: number;
  readonly longestStallMs?: number;
  /** At ready: what captured graphs took and what the rest was said to take; at the end: taken. */
  readonly forecastBytes?: number;
  readonly takenBytes?: number;
  /** Each graph's capture, before ready and after. */
  readonly captures: readonly {
    readonly id: string;
    readonly ms: number;
    readonly bytes: number;
  }[];
}

export type CaptureCosts = Pick<
  OurFigures,
  "graphsPlanned" | "graphsAfterDecode" | "longestCaptureMs" | "longestStallMs"
>;

interface ParityCell extends FamilyCell {
  readonly shape: string;
  readonly gpus: readonly number[];
  readonly via: "launcher" | "spawn";
  readonly rate: number;
  readonly seconds: number;
  /** Seconds from spawn: when it was ready, and second 0 of the load. */
  readonly readySeconds: number;
  readonly loadSeconds: number;
  /** Kernels compiled from ready on, in seconds from spawn; absent where nobody times them. */
  readonly compilations?: readonly CompilationRecord[];
  /** What captures had cost when the load was over. */
  readonly ours?: CaptureCosts;
}

export interface ParityResult extends ParityCell {
  readonly requests: readonly RequestRecord[];
}

/** The same without its requests, of which there are a megabyte. */
export interface ParitySummary extends ParityCell {
  readonly figures: ParityFigures;
}

export interface VerifyResult extends FamilyCell {
  readonly shape: string;
  readonly gpus: readonly number[];
  readonly graphsPlanned: number;
  readonly graphsCaptured: number;
  /** verify_report.py of its log. */
  readonly report: {
    readonly checks: number;
    readonly graphs: number;
    readonly bitForBit: number;
    readonly excluded: readonly { readonly graph: string; readonly reason: string }[];
  };
}

export interface TokensResult extends FamilyCell {
  readonly shape: string;
  readonly gpus: readonly number[];
  /** Name of the file of tokens.py beside the cells. */
  readonly tokens: string;
  /** compare_tokens.py against stock's of the same round. */
  readonly comparison?: {
    readonly good: boolean;
    readonly prompts: number;
    readonly ours: readonly { readonly sequencesDifferMax: number }[];
  };
}

export type CellResult = StartResult | ParityResult | VerifyResult | TokensResult;

/** What the sum of all cells' files has of each. */
export type CellSummary = Exclude<CellResult, ParityResult> | ParitySummary;

/** @param all with stock's of this round */
export function summaryOf(result: CellResult, all: readonly CellResult[]): CellSummary {
  if (!isParity(result)) return result;
  const { requests, ...cell } = result;
  const { readySeconds, loadSeconds, seconds } = cell;
  const name = cellName({ ...cell, arm: "stock" });
  const stock = all.filter(isParity).find((other) => cellName(other) === name);
  const known = stock && msByRequests(stock.requests, stock.readySeconds);
  return { ...cell, figures: parityFigures(requests, readySeconds, loadSeconds, seconds, known) };
}

export function isStart(result: CellResult | CellSummary): result is StartResult {
  return result.kind === "start";
}

export function isParity(result: CellResult): result is ParityResult {
  return result.kind === "parity";
}

export function isParitySummary(result: CellSummary): result is ParitySummary {
  return result.kind === "parity";
}

export function isVerify(result: CellSummary): result is VerifyResult {
  return result.kind === "verify";
}

export function isTokens(result: CellSummary): result is TokensResult {
  return result.kind === "tokens";
}

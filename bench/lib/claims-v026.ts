/** What the published results on vLLM 0.26 claim. Pure. */

import type { Estimate } from "../../src/bench/bootstrap.ts";
import type { Summary } from "../gpu/main-job-summary.ts";
import { type Finding, measured } from "./claims.ts";

const CAPTURE_SHARE_MAX = 1 / 30;
const SAVED_SHARE_MIN = 0.8;
const DECODE_RATIO_MAX = 1.02;

/**
 * What of a run counts, if not all: its decoding, where starts had cold caches; what was captured
 * and decoding, where only stock's had, whose seconds then say nothing of what is saved.
 */
export type MainJobCounts = "decoding" | "captures";

/** Capture before ready, what it saves and decoding, of a run of main-job.sh. */
export function mainJobFindings(
  summary: Summary,
  source: string,
  { id, command, counts }: { id: string; command: string; counts?: MainJobCounts | undefined },
): Finding[] {
  const base = { unit: "of stock's", source, command };
  return Object.entries(summary.modes).flatMap(([mode, { versusStock }]) => {
    if (versusStock === undefined) return [];
    const { captureShare, savedShareOfCapture, tpotRatio } = versusStock;
    const captured: Finding = {
      ...{ ...base, id: `${id}.${mode}.capture-share`, ...measured(captureShare) },
      ...{ limit: CAPTURE_SHARE_MAX, sense: "atMost" },
    };
    const saved: Finding = {
      ...{ ...base, id: `${id}.${mode}.saved-share`, ...measured(savedShareOfCapture) },
      ...{ unit: "of stock's capture seconds", limit: SAVED_SHARE_MIN, sense: "atLeast" },
    };
    const starts = counts === "captures" ? [captured] : [captured, saved];
    const decode = Object.entries(tpotRatio).map(([level, ratio]): Finding => {
      return {
        ...{ ...base, id: `${id}.${mode}.decode-${level}`, ...measured(ratio) },
        ...{ limit: DECODE_RATIO_MAX, sense: "atMost" },
      };
    });
    // Eager captures everything before ready; lazy lacks the graphs that nobody asked for.
    const startsCount = mode !== "eager" && counts !== "decoding";
    return [...(startsCount ? starts : []), ...(mode === "lazy" ? [] : decode)];
  });
}

export interface TtftResult {
  readonly verdicts: readonly {
    readonly load: string;
    readonly claim: string;
    readonly estimate: Estimate | null;
    readonly unit: string;
    readonly least: number | null;
    readonly most: number | null;
  }[];
}

/** Claims about TTFT around captures; one that is to lie on both sides counts by its distance. */
export function ttftFindings({ verdicts }: TtftResult, source: string, command: string): Finding[] {
  return verdicts.flatMap(({ load, claim, estimate, unit, least, most }): Finding[] => {
    if (estimate === null || (least === null && most === null)) return [];
    const id = `ttft.${load}.${slug(claim)}`;
    const { value, low, high } = estimate;
    const base = { id, unit, source, command };
    if (least !== null && most !== null) {
      const far = Math.max(Math.abs(low), Math.abs(high));
      const near = low <= 0 && high >= 0 ? 0 : Math.min(Math.abs(low), Math.abs(high));
      const both = { value: Math.abs(value), interval: [near, far] as const };
      return [{ ...base, ...both, limit: most, sense: "atMost" }];
    }
    const one = { value, ...(low === high ? {} : { interval: [low, high] as const }) };
    return least !== null
      ? [{ ...base, ...one, limit: least, sense: "atLeast" }]
      : [{ ...base, ...one, limit: most as number, sense: "atMost" }];
  });
}

function slug(text: string): string {
  return text
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "");
}

export interface ExactTokens {
  readonly ours: readonly { readonly rows: readonly { readonly sequencesDiffer: number }[] }[];
  readonly controls: readonly { readonly asExpected: boolean }[];
}

export function tokenFindings(result: ExactTokens, source: string, command: string): Finding[] {
  const differ = result.ours.flatMap(({ rows }) =>
    rows.map(({ sequencesDiffer }) => sequencesDiffer),
  );
  const found = result.controls.filter(({ asExpected }) => asExpected).length;
  const base = { source, command };
  return [
    {
      ...{ ...base, id: "tokens-exact.sequences-differ", value: Math.max(...differ) },
      ...{ unit: "sequences of a pass", limit: 0, sense: "atMost" },
    },
    {
      ...{ ...base, id: "tokens-exact.controls-found", value: found },
      ...{ unit: "controls", limit: result.controls.length, sense: "atLeast" },
    },
  ];
}

export interface VerifyReport {
  readonly checks: number;
  readonly bitForBit: number;
  /** Of graphs with a fault put in on purpose. */
  readonly beyondLimit: readonly unknown[];
}

/** Checks that are not bit for bit, but those with a fault in place. */
export function verifyFinding(
  { checks, bitForBit, beyondLimit }: VerifyReport,
  id: string,
  source: string,
  command: string,
): Finding {
  const value = checks - bitForBit - beyondLimit.length;
  return { id, value, unit: "checks", limit: 0, sense: "atMost", source, command };
}

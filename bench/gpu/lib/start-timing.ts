/** What the test plugin (worker/testing) wrote about a start, over its ranks. */

import { existsSync, readFileSync } from "node:fs";

/** One rank's line. Fields beyond the first three are absent in files of before they were kept. */
export interface RankTiming {
  readonly captureModelSeconds: number;
  readonly captureSeconds: number;
  readonly freeLostBytes: number;
  /** In the throw-away capture of vLLM 0.29 and later, or in what stands in its place. */
  readonly profileSeconds?: number;
  readonly compileOrWarmUpSeconds?: number;
  readonly determineAvailableMemorySeconds?: number;
  /** Seconds of the host's monotonic clock. */
  readonly deviceBeganAt?: number;
  readonly endedAt?: number;
  readonly estimateBytes?: number;
  readonly graphBytesTold?: number;
  readonly kvBlocks?: number;
  readonly vllm?: string;
}

export interface StartTiming {
  /** All of vLLM's `capture_model`, synchronised, and its graph manager alone. */
  readonly captureModelSeconds: number;
  readonly captureSeconds: number;
  readonly profileSeconds: number;
  /** Both captures together, of the rank that spent the most. */
  readonly allCaptureSeconds: number;
  readonly compileOrWarmUpSeconds: number;
  readonly determineAvailableMemorySeconds: number;
  readonly freeLostBytes: number;
  /** vLLM's estimate of what graphs take, or what was told in its place. */
  readonly estimateBytes: number;
  readonly graphBytesTold: number;
  /** Of the first rank to begin. */
  readonly deviceBeganAt: number | undefined;
  readonly vllm: string | undefined;
}

/** The slowest rank of each figure, and the most memory. */
export function overRanks(ranks: readonly RankTiming[]): StartTiming {
  if (ranks.length === 0) throw new RangeError("Expected the timing of a rank, got none.");
  const most = (pick: (rank: RankTiming) => number | undefined): number =>
    Math.max(...ranks.map((rank) => pick(rank) ?? 0));
  const begun = ranks.flatMap(({ deviceBeganAt }) => deviceBeganAt ?? []);
  return {
    captureModelSeconds: most((rank) => rank.captureModelSeconds),
    captureSeconds: most((rank) => rank.captureSeconds),
    profileSeconds: most((rank) => rank.profileSeconds),
    allCaptureSeconds: most((rank) => rank.captureModelSeconds + (rank.profileSeconds ?? 0)),
    compileOrWarmUpSeconds: most((rank) => rank.compileOrWarmUpSeconds),
    determineAvailableMemorySeconds: most((rank) => rank.determineAvailableMemorySeconds),
    freeLostBytes: most((rank) => rank.freeLostBytes),
    estimateBytes: most((rank) => rank.estimateBytes),
    graphBytesTold: most((rank) => rank.graphBytesTold),
    deviceBeganAt: begun.length === 0 ? undefined : Math.min(...begun),
    vllm: ranks.find(({ vllm }) => vllm !== undefined)?.vllm,
  };
}

/** @throws Error when the test plugin isn't there */
export function readStartTiming(file: string): StartTiming {
  if (!existsSync(file)) {
    throw new Error(
      "Expected the timing of vLLM's capture, got none: install worker/testing into its Python.",
    );
  }
  const lines = readFileSync(file, "utf8").trim().split("\n");
  return overRanks(lines.map((line) => JSON.parse(line) as RankTiming));
}

/** The host's monotonic clock, which the ranks use, as milliseconds of `performance.now()`. */
export function performanceMs(monotonicSeconds: number): number {
  const offsetMs = Number(process.hrtime.bigint()) / 1e6 - performance.now();
  return monotonicSeconds * 1000 - offsetMs;
}

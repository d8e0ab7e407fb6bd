/**
 * What serving needs of a GPU before anything else may be captured on it.
 *
 * vLLM measures its activation peak in bytes that were allocated; what torch's allocator takes from
 * the device for them is more, because segments are large and fragment. So unless the user names a
 * margin, an allowance for that stands beside the peak until the allocator has taken it.
 */

import { MIB } from "../base/units.ts";
import type { RankMemory } from "../wire/protocol.ts";

/**
 * A Llama-3.1-8B on an H200 with a peak of 896 MiB: free memory and what the allocator held of it
 * came to 1,057 MiB in an engine that died of its first wave for want of one large block, and to
 * 1,399 and 1,405 MiB in two that served all waves (docs/gpu-memory.md). So between 161 and about
 * 500 MiB are taken beyond that peak; 0.6 of it are 538.
 */
const ALLOWANCE_OF_PEAK = 0.6;
/** Small models have small peaks, and segments of the same size. */
const ALLOWANCE_BYTES_MIN = 256 * MIB;
const ALLOWANCE_BYTES_MAX = 1088 * MIB;
/** What is left free in any case: CUDA itself takes some at times. */
export const FLOOR_BYTES: number = 64 * MIB;

/** What serving still has to take on one rank, the margin included. */
export interface ServingClaim {
  /** Activation peak that the allocator does not hold yet. */
  readonly peakBytes: number;
  /** The user's margin, or the allowance as far as it is not used up. */
  readonly marginBytes: number;
}

/**
 * @param rank as reported last
 * @param first the same rank as reported first, before anything was served
 * @param marginBytes the user's; undefined: the allowance above
 */
export function servingClaim(
  rank: RankMemory,
  first: RankMemory,
  marginBytes: number | undefined,
): ServingClaim {
  const { activationPeakBytes: peak } = rank;
  // What is held is only told at quiescence; under load the allocator's growth tells it.
  const heldBytes = rank.activationHeldBytes ?? 0;
  const grownBytes = servingBytes(rank) - servingBytes(first);
  const held = Math.max(heldBytes, grownBytes + (first.activationHeldBytes ?? 0), 0);
  const peakBytes = Math.max(0, peak - held);
  if (marginBytes !== undefined) return { peakBytes, marginBytes };
  const beyond = Math.max(0, held - peak);
  return { peakBytes, marginBytes: Math.max(FLOOR_BYTES, allowanceBytes(peak) - beyond) };
}

/**
 * The same once the rank has emptied torch's cache: nothing is taken then, all of it is to come.
 *
 * @param marginBytes the user's; undefined: the allowance above
 */
export function wholeClaimBytes(rank: RankMemory, marginBytes: number | undefined): number {
  const { activationPeakBytes: peak } = rank;
  return peak + (marginBytes ?? allowanceBytes(peak));
}

/**
 * Bytes beyond the activation peak that serving may need: the rule of the plugin's
 * `allowance_bytes`, and both are held to test/golden/rules.json.gz.
 */
export function allowanceBytes(activationPeakBytes: number): number {
  const ofPeak = Math.floor(ALLOWANCE_OF_PEAK * activationPeakBytes);
  return Math.min(ALLOWANCE_BYTES_MAX, Math.max(ALLOWANCE_BYTES_MIN, ofPeak));
}

/** What torch holds for all but graphs. */
function servingBytes({ reservedBytes, poolBytes }: RankMemory): number {
  return reservedBytes - poolBytes;
}

export interface FreeReading {
  /** The smaller of what the engine said last and what the driver says now. */
  readonly freeBytes: number;
  /**
   * What of free memory has gone since the engine spoke, and may be serving's own growth: it is
   * no longer to be claimed for serving then.
   */
  readonly sinceBytes: number;
}

/**
 * @param driverBytes what the driver says is free, where this host can ask it
 * @param old whether the engine's word is too old to be taken for the present
 */
export function freeReading(
  rank: RankMemory,
  driverBytes: number | undefined,
  old: boolean,
): FreeReading {
  if (driverBytes === undefined) return { freeBytes: rank.freeBytes, sinceBytes: 0 };
  return {
    freeBytes: old ? driverBytes : Math.min(rank.freeBytes, driverBytes),
    sinceBytes: Math.max(0, rank.freeBytes - driverBytes),
  };
}

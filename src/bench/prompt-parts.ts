/** Which stretches of a prompt are drawn apart. Pure. */

import { createRandom } from "../base/random.ts";
import type { ScheduledRequest } from "./load.ts";

export interface PromptPart {
  readonly tokens: number;
  /** Draws what it is made of. */
  readonly random: () => number;
}

/**
 * A trace that names the blocks of its prompts gets the same tokens for the same block, so that
 * prompts share what they shared: a server's prefix cache then finds as much as it did. Any other
 * request has its own from its first token on, since a shared prefix would be cached.
 *
 * @returns at least one, of `promptTokens` together
 */
export function partsOf(request: ScheduledRequest, index: number, seed: number): PromptPart[] {
  const { promptTokens, hashIds, blockTokens } = request;
  const own = createRandom((Math.imul(index + 1, 0x9e3779b1) ^ seed) >>> 0);
  if (hashIds === undefined || blockTokens === undefined) {
    return [{ tokens: promptTokens, random: own }];
  }
  const parts: PromptPart[] = [];
  let left = promptTokens;
  for (const id of hashIds) {
    if (left <= 0) break;
    const tokens = Math.min(left, blockTokens);
    parts.push({ tokens, random: createRandom(blockSeed(id, seed)) });
    left -= tokens;
  }
  // Lengths beyond the blocks, or none of them.
  if (left > 0 || parts.length === 0) parts.push({ tokens: left, random: own });
  return parts;
}

/** Ids go beyond 32 bits; those of requests are mixed by another constant. */
function blockSeed(id: number, seed: number): number {
  const [low, high] = [id % 2 ** 32, Math.floor(id / 2 ** 32)];
  return (Math.imul(low + 1, 0x85ebca6b) ^ Math.imul(high + 1, 0xc2b2ae35) ^ seed) >>> 0;
}

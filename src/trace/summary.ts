/** What a trace comes to, in figures. Pure: requests in one by one, a summary out. */

import type { TraceRequest } from "./trace.ts";

/** All in tokens; quantiles are of the nearest rank, so each is a length that occurred. */
export interface LengthSummary {
  readonly total: number;
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

export interface TraceSummary {
  readonly requests: number;
  /** From the first arrival to the last. */
  readonly seconds: number;
  /** Mean arrivals a second; undefined where all arrive at once. */
  readonly requestsPerSecond: number | undefined;
  /** Most arrivals in one minute, minutes counted from the first. */
  readonly busiestMinute: number;
  readonly promptTokens: LengthSummary;
  readonly outputTokens: LengthSummary;
  /** Absent where no request tells its blocks. */
  readonly prefixes?: PrefixSummary;
}

export interface PrefixSummary {
  readonly blocks: number;
  readonly distinctBlocks: number;
  /** Share of blocks that stand in an earlier prompt's prefix: the hits of an endless cache. */
  readonly reusedShare: number;
}

/** Distinct blocks that fit into memory; beyond them the share would be a guess. */
const BLOCKS_MAX = 10_000_000;

export class TraceSummarizer {
  readonly #prompts = new Lengths();
  readonly #outputs = new Lengths();
  readonly #prefixes = new Prefixes();
  #lastSeconds = 0;
  #minute = 0;
  #inMinute = 0;
  #busiestMinute = 0;

  add({ atSeconds, promptTokens, outputTokens, hashIds }: TraceRequest): void {
    this.#lastSeconds = atSeconds;
    const minute = Math.floor(atSeconds / 60);
    if (minute !== this.#minute) this.#inMinute = 0;
    this.#minute = minute;
    this.#inMinute++;
    this.#busiestMinute = Math.max(this.#busiestMinute, this.#inMinute);
    this.#prompts.add(promptTokens);
    this.#outputs.add(outputTokens);
    if (hashIds !== undefined) this.#prefixes.add(hashIds);
  }

  /** @throws RangeError where nothing was added */
  summary(): TraceSummary {
    const promptTokens = this.#prompts.summary();
    const requests = this.#prompts.count;
    const seconds = this.#lastSeconds;
    const prefixes = this.#prefixes.summary();
    return {
      requests,
      seconds,
      requestsPerSecond: seconds > 0 ? requests / seconds : undefined,
      busiestMinute: this.#busiestMinute,
      promptTokens,
      outputTokens: this.#outputs.summary(),
      ...(prefixes === undefined ? {} : { prefixes }),
    };
  }
}

/** Exact, in the memory of as many counts as there are different lengths. */
class Lengths {
  readonly #counts = new Map<number, number>();
  count = 0;
  #total = 0;

  add(tokens: number): void {
    this.count++;
    this.#total += tokens;
    this.#counts.set(tokens, (this.#counts.get(tokens) ?? 0) + 1);
  }

  summary(): LengthSummary {
    if (this.count === 0) throw new RangeError("Expected at least one request, got none.");
    const sorted = [...this.#counts].sort(([one], [other]) => one - other);
    const atRank = (share: number): number => {
      const rank = Math.ceil(this.count * share);
      let below = 0;
      for (const [tokens, count] of sorted) {
        below += count;
        if (below >= rank) return tokens;
      }
      throw new RangeError(`Expected a share from 0 to 1, got ${share}.`);
    };
    return {
      total: this.#total,
      mean: this.#total / this.count,
      p50: atRank(0.5),
      p90: atRank(0.9),
      p99: atRank(0.99),
      max: atRank(1),
    };
  }
}

class Prefixes {
  readonly #seen = new Set<number>();
  #blocks = 0;
  #reused = 0;

  add(hashIds: readonly number[]): void {
    const firstNew = hashIds.findIndex((id) => !this.#seen.has(id));
    this.#blocks += hashIds.length;
    this.#reused += firstNew === -1 ? hashIds.length : firstNew;
    for (const id of hashIds) {
      if (this.#seen.size < BLOCKS_MAX) this.#seen.add(id);
    }
  }

  summary(): PrefixSummary | undefined {
    if (this.#blocks === 0 || this.#seen.size >= BLOCKS_MAX) return undefined;
    return {
      blocks: this.#blocks,
      distinctBlocks: this.#seen.size,
      reusedShare: this.#reused / this.#blocks,
    };
  }
}

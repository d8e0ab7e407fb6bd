/**
 * Continuous batching as vLLM's scheduler does it: running requests first, then waiting ones while
 * tokens, places and KV blocks last; long prompts in chunks; the youngest gives way when blocks run
 * out and computes its tokens again later. Prefix caching is not modelled.
 */

import type { Profile } from "../../profile/profile.ts";
import type { StepWork } from "./cost.ts";
import { RequestColumns, WaitingQueue } from "./requests.ts";

/** A request that has completed. Times are seconds on the engine's clock. */
export interface RequestSample {
  readonly arrivalSeconds: number;
  readonly firstTokenSeconds: number;
  readonly completionSeconds: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
}

/** Called for each token of a request that was added with a tag; `left` more are to come. */
export type TokenListener = (tag: number, left: number, atSeconds: number) => void;

/** The step that `compose` put together. */
export interface StepBatch extends StepWork {
  /** 1 when every request has exactly one token, else 0: the shape uniform graphs are made for. */
  uniform: number;
  /** Mean tokens in the cache, this step's included, of the step's requests. */
  contextMean: number;
}

export class Batcher {
  readonly batch: StepBatch = {
    tokens: 0,
    requests: 0,
    uniform: 0,
    contextTokens: 0,
    promptPairs: 0,
    contextMean: 0,
  };
  preemptions = 0;
  readonly #limits: Profile["limits"];
  #kvCacheTokens: number;
  readonly #columns = new RequestColumns();
  readonly #waiting = new WaitingQueue();
  readonly #running: Int32Array;
  #runningCount = 0;
  #blocksFree: number;

  constructor(limits: Profile["limits"]) {
    this.#limits = limits;
    this.#kvCacheTokens = limits.kvCacheTokens;
    this.#running = new Int32Array(limits.maxRequests);
    this.#blocksFree = Math.floor(limits.kvCacheTokens / limits.kvBlockTokens);
  }

  get running(): number {
    return this.#runningCount;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Whether a request of this length could ever run to its end alone. */
  fits(promptTokens: number, outputTokens: number): boolean {
    const { kvBlockTokens } = this.#limits;
    const blocks = Math.ceil((promptTokens + outputTokens) / kvBlockTokens);
    return blocks <= Math.floor(this.#kvCacheTokens / kvBlockTokens);
  }

  /** Takes tokens off the KV cache; before the first step only. */
  shrink(tokens: number): void {
    this.#kvCacheTokens = Math.max(0, this.#kvCacheTokens - tokens);
    this.#blocksFree = Math.floor(this.#kvCacheTokens / this.#limits.kvBlockTokens);
  }

  /**
   * @param tag above 0: its tokens are told to `finish`'s listener
   * @param sentSeconds when its client sent it, by which it is sampled
   */
  add(
    atSeconds: number,
    promptTokens: number,
    outputTokens: number,
    tag: number,
    sentSeconds: number,
  ): void {
    const slot = this.#columns.add(atSeconds, promptTokens, outputTokens, tag, sentSeconds);
    this.#waiting.pushBack(slot);
  }

  /** Forgets a request whose client has gone; false when it has completed already. */
  abort(tag: number): boolean {
    const columns = this.#columns;
    const waiting = this.#waiting.take((slot) => columns.tag[slot] === tag);
    if (waiting !== -1) {
      columns.remove(waiting);
      return true;
    }
    for (let index = 0; index < this.#runningCount; index++) {
      const slot = this.#running[index] ?? 0;
      if (columns.tag[slot] !== tag) continue;
      this.#blocksFree += columns.blocks[slot] ?? 0;
      this.#running.copyWithin(index, index + 1, this.#runningCount);
      this.#runningCount--;
      columns.remove(slot);
      return true;
    }
    return false;
  }

  /**
   * Puts the next step together; false when there is nothing to run.
   *
   * @param knownSeconds who came after that is not known yet. @default everybody is known
   */
  compose(knownSeconds: number = Number.POSITIVE_INFINITY): boolean {
    const batch = this.batch;
    batch.tokens = 0;
    batch.requests = 0;
    batch.uniform = 1;
    batch.contextTokens = 0;
    batch.promptPairs = 0;
    batch.contextMean = 0;
    const preemptionsBefore = this.preemptions;
    const budget = this.#composeRunning(this.#limits.maxBatchedTokens);
    // As in vLLM, who just took blocks away from a request lets no new one in.
    if (this.preemptions === preemptionsBefore) this.#admit(budget, knownSeconds);
    if (batch.requests === 0) return false;
    batch.contextMean /= batch.requests;
    return true;
  }

  #composeRunning(tokensMax: number): number {
    let budget = tokensMax;
    const columns = this.#columns;
    for (let index = 0; index < this.#runningCount; index++) {
      const slot = this.#running[index] ?? 0;
      const missing =
        (columns.promptTokens[slot] ?? 0) +
        (columns.generated[slot] ?? 0) -
        (columns.computed[slot] ?? 0);
      const tokens = Math.min(missing, budget);
      columns.scheduled[slot] = 0;
      if (tokens === 0 || !this.#makeRoom(slot, tokens, index)) continue;
      this.#schedule(slot, tokens);
      budget -= tokens;
    }
    return budget;
  }

  /** Frees blocks from the youngest requests on; false when `slot` itself had to give way. */
  #makeRoom(slot: number, tokens: number, index: number): boolean {
    const needed = this.#blocksMissing(slot, tokens);
    while (needed > this.#blocksFree) {
      const last = this.#running[--this.#runningCount] ?? 0;
      this.#preempt(last);
      if (this.#runningCount === index) return false;
    }
    return true;
  }

  #preempt(slot: number): void {
    const columns = this.#columns;
    this.#blocksFree += columns.blocks[slot] ?? 0;
    columns.blocks[slot] = 0;
    columns.computed[slot] = 0;
    columns.scheduled[slot] = 0;
    this.#waiting.pushFront(slot);
    this.preemptions++;
  }

  #admit(tokensMax: number, knownSeconds: number): void {
    let budget = tokensMax;
    const columns = this.#columns;
    while (budget > 0 && this.#runningCount < this.#limits.maxRequests) {
      const slot = this.#waiting.front();
      if (slot === -1 || (columns.reached[slot] ?? 0) > knownSeconds) return;
      const missing = (columns.promptTokens[slot] ?? 0) + (columns.generated[slot] ?? 0);
      const tokens = Math.min(missing, budget);
      if (this.#blocksMissing(slot, tokens) > this.#blocksFree) return;
      this.#waiting.shift();
      this.#running[this.#runningCount++] = slot;
      this.#schedule(slot, tokens);
      budget -= tokens;
    }
  }

  #blocksMissing(slot: number, tokens: number): number {
    const after = (this.#columns.computed[slot] ?? 0) + tokens;
    const blocks = Math.ceil(after / this.#limits.kvBlockTokens);
    return Math.max(0, blocks - (this.#columns.blocks[slot] ?? 0));
  }

  #schedule(slot: number, tokens: number): void {
    const columns = this.#columns;
    const batch = this.batch;
    const blocks = this.#blocksMissing(slot, tokens);
    columns.blocks[slot] = (columns.blocks[slot] ?? 0) + blocks;
    this.#blocksFree -= blocks;
    columns.scheduled[slot] = tokens;
    const computed = columns.computed[slot] ?? 0;
    batch.tokens += tokens;
    batch.requests += 1;
    batch.contextMean += computed + tokens;
    if (tokens === 1) {
      batch.contextTokens += computed + 1;
    } else {
      batch.uniform = 0;
      batch.promptPairs += tokens * computed + (tokens * (tokens + 1)) / 2;
    }
  }

  /** Books the step that ended at `atSeconds`; completed requests leave their places. */
  finish(
    atSeconds: number,
    completed: (sample: RequestSample) => void,
    token?: TokenListener,
  ): void {
    const columns = this.#columns;
    let kept = 0;
    for (let index = 0; index < this.#runningCount; index++) {
      const slot = this.#running[index] ?? 0;
      const computed = (columns.computed[slot] ?? 0) + (columns.scheduled[slot] ?? 0);
      columns.computed[slot] = computed;
      columns.scheduled[slot] = 0;
      const generated = columns.generated[slot] ?? 0;
      const promptTokens = columns.promptTokens[slot] ?? 0;
      if (computed === promptTokens + generated) {
        columns.generated[slot] = generated + 1;
        if (generated === 0) columns.firstToken[slot] = atSeconds;
        const left = (columns.outputTokens[slot] ?? 0) - generated - 1;
        const tag = columns.tag[slot] ?? 0;
        if (tag !== 0) token?.(tag, left, atSeconds);
        if (left === 0) {
          this.#blocksFree += columns.blocks[slot] ?? 0;
          completed({
            arrivalSeconds: columns.arrival[slot] ?? 0,
            firstTokenSeconds: columns.firstToken[slot] ?? 0,
            completionSeconds: atSeconds,
            promptTokens,
            outputTokens: generated + 1,
          });
          columns.remove(slot);
          continue;
        }
      }
      this.#running[kept++] = slot;
    }
    this.#runningCount = kept;
  }
}

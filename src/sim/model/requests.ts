/**
 * The requests inside a simulated engine, as columns of numbers, and the queue of those that wait.
 *
 * A trace of an hour holds millions of tokens; columns keep a step over hundreds of requests at a
 * microsecond or two, and slots are used again, so that memory follows the load, not the trace.
 */

/** Columns indexed by slot. A slot is a request's place until it completes. */
export class RequestColumns {
  /** When its client sent it. */
  arrival: Float64Array = new Float64Array(64);
  /** When it got to the engine. */
  reached: Float64Array = new Float64Array(64);
  firstToken: Float64Array = new Float64Array(64);
  promptTokens: Int32Array = new Int32Array(64);
  outputTokens: Int32Array = new Int32Array(64);
  /** Tokens whose keys and values are in the cache. */
  computed: Int32Array = new Int32Array(64);
  generated: Int32Array = new Int32Array(64);
  /** KV blocks held. */
  blocks: Int32Array = new Int32Array(64);
  /** Tokens in the step under way. */
  scheduled: Int32Array = new Int32Array(64);
  /** Who wants to hear of its tokens; 0: nobody. */
  tag: Int32Array = new Int32Array(64);
  readonly #free: number[] = [];
  #used = 0;

  add(
    atSeconds: number,
    promptTokens: number,
    outputTokens: number,
    tag: number,
    sentSeconds: number,
  ): number {
    const slot = this.#free.pop() ?? this.#used++;
    if (slot === this.arrival.length) this.#grow();
    this.arrival[slot] = sentSeconds;
    this.reached[slot] = atSeconds;
    this.firstToken[slot] = Number.NaN;
    this.promptTokens[slot] = promptTokens;
    this.outputTokens[slot] = outputTokens;
    this.computed[slot] = 0;
    this.generated[slot] = 0;
    this.blocks[slot] = 0;
    this.scheduled[slot] = 0;
    this.tag[slot] = tag;
    return slot;
  }

  remove(slot: number): void {
    this.#free.push(slot);
  }

  #grow(): void {
    this.arrival = doubled(this.arrival, Float64Array);
    this.reached = doubled(this.reached, Float64Array);
    this.firstToken = doubled(this.firstToken, Float64Array);
    this.promptTokens = doubled(this.promptTokens, Int32Array);
    this.outputTokens = doubled(this.outputTokens, Int32Array);
    this.computed = doubled(this.computed, Int32Array);
    this.generated = doubled(this.generated, Int32Array);
    this.blocks = doubled(this.blocks, Int32Array);
    this.scheduled = doubled(this.scheduled, Int32Array);
    this.tag = doubled(this.tag, Int32Array);
  }
}

function doubled<T extends Float64Array | Int32Array>(
  column: T,
  create: new (length: number) => T,
): T {
  const next = new create(column.length * 2);
  next.set(column);
  return next;
}

/** First come, first served; a preempted request goes back to the front. */
export class WaitingQueue {
  /** A ring: slots from `#head` on, wrapping at the end; its length is a power of two. */
  #ring: Int32Array = new Int32Array(64);
  #head = 0;
  length = 0;

  pushBack(slot: number): void {
    if (this.length === this.#ring.length) this.#grow();
    this.#ring[(this.#head + this.length) & (this.#ring.length - 1)] = slot;
    this.length++;
  }

  pushFront(slot: number): void {
    if (this.length === this.#ring.length) this.#grow();
    this.#head = (this.#head - 1) & (this.#ring.length - 1);
    this.#ring[this.#head] = slot;
    this.length++;
  }

  /** The slot whose turn it is, or -1. */
  front(): number {
    return this.length === 0 ? -1 : (this.#ring[this.#head] ?? -1);
  }

  shift(): void {
    this.#head = (this.#head + 1) & (this.#ring.length - 1);
    this.length--;
  }

  /** Takes the first slot that matches out of the queue, or answers -1. */
  take(matches: (slot: number) => boolean): number {
    const mask = this.#ring.length - 1;
    for (let index = 0; index < this.length; index++) {
      const slot = this.#ring[(this.#head + index) & mask] ?? 0;
      if (!matches(slot)) continue;
      for (let next = index; next + 1 < this.length; next++) {
        this.#ring[(this.#head + next) & mask] = this.#ring[(this.#head + next + 1) & mask] ?? 0;
      }
      this.length--;
      return slot;
    }
    return -1;
  }

  #grow(): void {
    const next = new Int32Array(this.#ring.length * 2);
    next.set(this.#ring.subarray(this.#head));
    next.set(this.#ring.subarray(0, this.#head), this.#ring.length - this.#head);
    this.#ring = next;
    this.#head = 0;
  }
}

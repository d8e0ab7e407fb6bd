/** Virtual time for many processes: one queue of events, and a clock for each process. */

import type { Clock } from "../../src/base/clock.ts";

interface Event {
  readonly atSeconds: number;
  readonly order: number;
  readonly run: () => void;
  cancelled: boolean;
}

/** Everything that is to happen, in order of time, and of scheduling where times are equal. */
export class Timeline {
  nowSeconds = 0;
  #heap: Event[] = [];
  #order = 0;

  get pending(): number {
    return this.#heap.length;
  }

  /** @returns what cancels it */
  at(atSeconds: number, run: () => void): () => void {
    const event = { atSeconds, order: this.#order++, run, cancelled: false };
    this.#push(event);
    return () => {
      event.cancelled = true;
    };
  }

  after(seconds: number, run: () => void): () => void {
    return this.at(this.nowSeconds + Math.max(0, seconds), run);
  }

  /** Lets the next thing happen, if there is one by `untilSeconds`. */
  step(untilSeconds: number): boolean {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.atSeconds > untilSeconds) {
        this.nowSeconds = Math.max(this.nowSeconds, untilSeconds);
        return false;
      }
      this.#pop();
      if (next.cancelled) continue;
      this.nowSeconds = next.atSeconds;
      next.run();
      return true;
    }
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let place = heap.push(event) - 1;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (!before(event, heap[parent] as Event)) break;
      heap[place] = heap[parent] as Event;
      place = parent;
    }
    heap[place] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Event;
    if (heap.length === 0) return;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event))
        child++;
      if (!before(heap[child] as Event, last)) break;
      heap[place] = heap[child] as Event;
      place = child;
    }
    heap[place] = last;
  }
}

function before(a: Event, b: Event): boolean {
  return a.atSeconds < b.atSeconds || (a.atSeconds === b.atSeconds && a.order < b.order);
}

/** One process's time: killed, nothing of it happens any more; stopped, it happens afterwards. */
export class ProcessClock implements Clock {
  alive = true;
  readonly #timeline: Timeline;
  #held: (() => void)[] | undefined;
  #timers = 0;

  constructor(timeline: Timeline) {
    this.#timeline = timeline;
  }

  /** Timers that wait. */
  get timers(): number {
    return this.#timers;
  }

  get stopped(): boolean {
    return this.#held !== undefined;
  }

  now(): number {
    return this.#timeline.nowSeconds;
  }

  after(seconds: number, callback: () => void): () => void {
    let waits = true;
    this.#timers++;
    const done = (): void => {
      if (waits) this.#timers--;
      waits = false;
    };
    const cancel = this.#timeline.after(seconds, () =>
      this.run(() => {
        if (!waits) return;
        done();
        callback();
      }),
    );
    return () => {
      done();
      cancel();
    };
  }

  /** What comes from outside, now or as soon as the process goes on. */
  run(action: () => void): void {
    if (!this.alive) return;
    if (this.#held === undefined) action();
    else this.#held.push(action);
  }

  kill(): void {
    this.alive = false;
    this.#held = undefined;
  }

  stop(): void {
    this.#held ??= [];
  }

  goOn(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const action of held) this.run(action);
  }
}

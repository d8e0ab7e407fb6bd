/**
 * How fast captures follow each other over all engines: as fast as this process can take what comes
 * of them, and no faster. One capture is a command, an answer, a new table and the next decision, so
 * that many engines that fill at once would keep everybody's frames waiting.
 *
 * Captures are counted in slots of time. Where the event loop was busier than it should be, the next
 * slot has fewer; where it was not, more again. Within a slot they follow each other evenly: those
 * that begin in one moment end in one moment, and what came of the last waits for all the others,
 * from then on with each capture anew.
 */

import type { Clock } from "../base/clock.ts";

const SLOT_SECONDS = 0.05;
/** Share of the time that the event loop may be at work while engines fill. */
const BUSY_SHARE_MAX = 0.6;
/** Captures begun in a slot at most, however idle it was before: more would come as one burst. */
const SLOT_CAPTURES_MAX = 128;
/** At least, whoever else keeps the event loop busy: they take a few percent of it. */
const SLOT_CAPTURES_MIN = 8;
const GROWTH = 1.15;
/** How far the even row may be ahead: what a timer that came late has left out is made up for. */
const AHEAD_SECONDS = 0.008;
/** How often those who wait are looked at: a timer for each capture would take longer than some. */
const LOOK_SECONDS = 0.004;

/**
 * The even row of a slot's captures.
 *
 * @param rowSeconds when the row's next one is due
 * @param allowed captures in a slot
 * @returns when the one after it is due if one begins now; undefined: none may yet
 */
export function nextInRow(
  rowSeconds: number,
  nowSeconds: number,
  allowed: number,
): number | undefined {
  if (nowSeconds < rowSeconds - AHEAD_SECONDS) return undefined;
  // Nothing is saved up beyond that: who comes after a rest is no reason for a burst.
  return Math.max(nowSeconds, rowSeconds) + SLOT_SECONDS / allowed;
}

export interface CapturePaceOptions {
  readonly clock: Clock;
  /** Share of the time since the last call in which the event loop was at work. */
  readonly busyShare: () => number;
}

export class CapturePace {
  readonly #options: CapturePaceOptions;
  readonly #waiting: (() => void)[] = [];
  #slotAtSeconds: number;
  #rowSeconds: number;
  #begun = 0;
  #allowed = SLOT_CAPTURES_MAX;
  #cancel: (() => void) | undefined;

  constructor(options: CapturePaceOptions) {
    this.#options = options;
    const now = options.clock.now();
    this.#slotAtSeconds = now;
    this.#rowSeconds = now;
  }

  /** Resolves when a capture may begin; undefined: at once. First come, first served. */
  turn(): Promise<void> | undefined {
    const now = this.#look();
    if (this.#waiting.length === 0 && this.#begins(now)) return undefined;
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#lookLater();
    });
  }

  /** Everybody goes on: what they wait for has ended. */
  close(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    for (const go of this.#waiting.splice(0)) go();
  }

  /** @returns the time by which it looked */
  #look(): number {
    const now = this.#options.clock.now();
    this.#beginSlot(now);
    let going = 0;
    while (going < this.#waiting.length && this.#begins(now)) going += 1;
    if (going > 0) for (const go of this.#waiting.splice(0, going)) go();
    return now;
  }

  #beginSlot(now: number): void {
    const elapsed = now - this.#slotAtSeconds;
    // A timer may be a little early.
    if (elapsed < 0.9 * SLOT_SECONDS) return;
    const busy = this.#options.busyShare();
    // A slot that lasted longer, as without captures or with a full loop, counts by its time.
    const perSlot = (this.#begun * SLOT_SECONDS) / elapsed;
    this.#allowed =
      busy > BUSY_SHARE_MAX
        ? Math.max(
            SLOT_CAPTURES_MIN,
            Math.floor((Math.min(this.#allowed, perSlot) * BUSY_SHARE_MAX) / busy),
          )
        : Math.min(SLOT_CAPTURES_MAX, Math.ceil(this.#allowed * GROWTH));
    this.#slotAtSeconds = now;
    this.#begun = 0;
  }

  /** Whether one more may begin now, and then it has. */
  #begins(now: number): boolean {
    if (this.#begun >= this.#allowed) return false;
    const next = nextInRow(this.#rowSeconds, now, this.#allowed);
    if (next === undefined) return false;
    this.#rowSeconds = next;
    this.#begun += 1;
    return true;
  }

  #lookLater(): void {
    this.#cancel ??= this.#options.clock.after(LOOK_SECONDS, () => {
      this.#cancel = undefined;
      this.#look();
      if (this.#waiting.length > 0) this.#lookLater();
    });
  }
}

/** By Node's own account of the event loop. */
export function eventLoopShare(): () => number {
  let last = performance.eventLoopUtilization();
  return () => {
    const { utilization } = performance.eventLoopUtilization(last);
    last = performance.eventLoopUtilization();
    return utilization;
  };
}

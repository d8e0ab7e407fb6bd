/**
 * The plans of one controller in memory: what was read, and what the starts under way add to it.
 * Pure: `store.ts` reads and writes.
 */

import type { Fingerprint } from "./fingerprint.ts";
import { addLearned, agePlan, emptyPlan } from "./merge.ts";
import type { Plan } from "./plan.ts";
import type { Learned } from "./recorder.ts";

/** What one engine contributes until it ends. */
export interface Contribution {
  /** Whether this controller saw it start: coming back to one that serves ages nothing. */
  readonly fresh: boolean;
  /** Undefined while there is nothing to tell. */
  readonly learned: () => Learned | undefined;
}

export interface BookHead {
  readonly fingerprint: Fingerprint;
  readonly learnedBy: string;
  readonly simulated?: string;
}

/** Ended starts that are kept apart while others are under way; then they become the base. */
const ENDED_MAX = 64;

/** One fingerprint's plan. */
export class BookEntry {
  readonly #head: BookHead;
  /** Before the starts under way. */
  #base: Plan | undefined;
  /** What those that ended have learned; undefined for those under way. */
  readonly #contributions = new Map<Contribution, Learned | undefined>();

  constructor(head: BookHead, base: Plan | undefined) {
    this.#head = head;
    this.#base = base;
  }

  /** Engines that start together share what came before them; one after the other they age it. */
  join(contribution: Contribution, now: string): void {
    const ended = [...this.#contributions].filter(([, learned]) => learned !== undefined);
    const over = ended.length === this.#contributions.size;
    if (ended.length > 0 && (over || ended.length >= ENDED_MAX)) {
      this.#base = this.#with(ended, now);
      for (const [start] of ended) this.#contributions.delete(start);
    }
    this.#contributions.set(contribution, undefined);
  }

  /** The engine's process is gone: what it learned stays. */
  end(contribution: Contribution): void {
    if (!this.#contributions.has(contribution)) return;
    const learned = contribution.learned();
    if (learned === undefined) this.#contributions.delete(contribution);
    else this.#contributions.set(contribution, learned);
  }

  /** The plan as it would be written now; undefined when nothing is known at all. */
  plan(now: string): Plan | undefined {
    return this.#with([...this.#contributions], now);
  }

  #with(
    contributions: readonly (readonly [Contribution, Learned | undefined])[],
    now: string,
  ): Plan | undefined {
    const learned = contributions.flatMap(([contribution, ended]) => {
      const what = ended ?? contribution.learned();
      return what === undefined ? [] : [{ what, fresh: contribution.fresh }];
    });
    const [any] = learned;
    if (any === undefined) return this.#base;
    const { fingerprint, learnedBy, simulated } = this.#head;
    const known =
      this.#base ??
      emptyPlan({
        fingerprint,
        createdAt: now,
        learnedBy,
        ...(simulated === undefined ? {} : { simulated }),
      });
    const news = learned.filter(({ fresh }) => fresh).map(({ what }) => what);
    const all = learned.map(({ what }) => what);
    return { ...addLearned(agePlan(known, news), all, news.length), learnedBy, updatedAt: now };
  }
}

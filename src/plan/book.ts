/**
 * The plans of one controller in memory: what was read, and what the starts under way add to it.
 * Pure: `store.ts` reads and writes.
 */

import type { Fingerprint } from "./fingerprint.ts";
import { addLearned, agePlan, emptyPlan, learnedSince } from "./merge.ts";
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

/** A plan as it may be written, and what to say once it is on the disk. */
export interface Draft {
  readonly plan: Plan;
  written(): void;
}

/** Ended starts that are kept apart while others are under way; then they become the base. */
const ENDED_MAX = 64;

interface Share {
  /** What it learned, once it has ended. */
  ended?: Learned;
  /** What of it is in the file that was written last. */
  written?: Learned;
  /** What of it is in the base. */
  counted?: Learned;
}

/** One fingerprint's plan. */
export class BookEntry {
  readonly #head: BookHead;
  /** Before the starts under way. */
  #base: Plan | undefined;
  readonly #shares = new Map<Contribution, Share>();

  constructor(head: BookHead, base: Plan | undefined) {
    this.#head = head;
    this.#base = base;
  }

  /** Engines that start together share what came before them; one after the other they age it. */
  join(contribution: Contribution, now: string): void {
    const ended = [...this.#shares].filter(([, share]) => share.ended !== undefined);
    const over = ended.length === this.#shares.size;
    if (ended.length > 0 && (over || ended.length >= ENDED_MAX)) {
      this.#base = this.#with(learnedBy(ended), now);
      for (const [start] of ended) this.#shares.delete(start);
    }
    this.#shares.set(contribution, {});
  }

  /** The engine's process is gone: what it learned stays. */
  end(contribution: Contribution): void {
    const share = this.#shares.get(contribution);
    if (share === undefined) return;
    const learned = contribution.learned();
    if (learned === undefined) this.#shares.delete(contribution);
    else share.ended = learned;
  }

  /** The plan as it would be written now; undefined when nothing is known at all. */
  plan(now: string): Plan | undefined {
    return this.#with(learnedBy([...this.#shares]), now);
  }

  draft(now: string): Draft | undefined {
    const learned = learnedBy([...this.#shares]);
    const plan = this.#with(learned, now);
    return (
      plan && {
        plan,
        written: () => {
          for (const { share, what } of learned) share.written = what;
        },
      }
    );
  }

  /** Another controller wrote the file, on the ground of what this one had written before. */
  rebase(base: Plan): void {
    this.#base = base;
    for (const share of this.#shares.values()) {
      if (share.written !== undefined) share.counted = share.written;
    }
  }

  #with(all: readonly Part[], now: string): Plan | undefined {
    if (all.length === 0) return this.#base;
    const { fingerprint, learnedBy, simulated } = this.#head;
    const known =
      this.#base ??
      emptyPlan({
        fingerprint,
        createdAt: now,
        learnedBy,
        ...(simulated === undefined ? {} : { simulated }),
      });
    const parts = all.map(({ what, share: { counted }, fresh }) => ({
      what: counted === undefined ? what : learnedSince(what, counted),
      fresh: fresh && counted === undefined,
    }));
    const news = parts.filter(({ fresh }) => fresh).map(({ what }) => what);
    const learned = parts.map(({ what }) => what);
    return { ...addLearned(agePlan(known, news), learned, news.length), learnedBy, updatedAt: now };
  }
}

interface Part {
  readonly share: Share;
  readonly what: Learned;
  readonly fresh: boolean;
}

function learnedBy(shares: readonly (readonly [Contribution, Share])[]): Part[] {
  return shares.flatMap(([contribution, share]) => {
    const what = share.ended ?? contribution.learned();
    return what === undefined ? [] : [{ share, what, fresh: contribution.fresh }];
  });
}

/**
 * Learned plans in a folder, one file for each fingerprint.
 *
 * Files are read ahead, because an engine's first set of graphs can't wait for a disk: all of the
 * folder when it opens, and what has changed since whenever an engine says hello. Whatever goes
 * wrong here is told once and changes nothing else: engines then start as if nothing were known.
 *
 * A file is written under a lock, and never over what has not been read: what another controller
 * wrote since becomes the base. What is used least goes, from memory and folder.
 */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { type Clock, withinSeconds } from "../base/clock.ts";
import { BookEntry, type BookHead, type Contribution } from "./book.ts";
import { storable } from "./check.ts";
import { type PlanFiles, planFiles } from "./files.ts";
import { fingerprintKey } from "./fingerprint.ts";
import { PlanFolder, type StoreLimits } from "./folder.ts";
import type { Plan } from "./plan.ts";

export interface PlanStoreOptions {
  readonly folder: string;
  /** Reads plans and writes none. */
  readonly readOnly: boolean;
  readonly clock: Clock;
  /** One sentence about a file or the folder that can't be used. */
  readonly onProblem: (sentence: string) => void;
  /** @default this host's */
  readonly files?: PlanFiles;
  /** @default 1,024 files of 256 MiB together, 64 MiB of which are kept in memory */
  readonly limits?: StoreLimits;
}

/** One engine's part in a plan. */
export interface PlanStart {
  readonly file: string;
  /** What was known when the engine started. */
  readonly plan: Plan | undefined;
  /** Writes soon: nothing is left to capture. */
  settled(): void;
  /** The engine's process is gone: what it learned is kept, and written. */
  end(): void;
}

interface Entry {
  readonly book: BookEntry;
  readonly name: string;
  /** How many engines contribute now. */
  engines: number;
  /** Digest of what was written last. */
  saved: string | undefined;
  /** What a start was given, when it was last put together for one. */
  given: { readonly plan: Plan | undefined; readonly atSeconds: number } | undefined;
}

const LIMITS: StoreLimits = { files: 1024, fileBytes: 256 << 20, readBytes: 64 << 20 };
/** Fingerprints whose engines are gone that are remembered beside those on the disk. */
const ENTRIES_MAX = 256;
const SAVE_SECONDS = 120;
const SETTLED_SAVE_SECONDS = 1;
/**
 * A plan is put together from all starts under way, each of which takes a quarter of a millisecond.
 * Of so many, and for so long for each, what was put together last will do, and is written as rarely.
 */
const STARTS_MANY = 16;
const SECONDS_PER_START = 0.03;
/** A disk that doesn't answer must not keep a controller from closing. */
const CLOSE_SECONDS_MAX = 2;

export class PlanStore {
  readonly #options: PlanStoreOptions;
  readonly #folder: PlanFolder;
  /** By key, in order of last use. */
  readonly #entries = new Map<string, Entry>();
  #reading: Promise<void> | undefined;
  #saving: Promise<void> = Promise.resolve();
  #cancelSave: () => void = () => {};
  #saveAtSeconds = Number.POSITIVE_INFINITY;
  #closed = false;
  /** A lock stood in the way of the last writing. */
  #locked = false;
  /** The time for closing is over: what is not written by now is not any more. */
  #over = false;

  constructor(options: PlanStoreOptions) {
    this.#options = options;
    this.#folder = new PlanFolder({ files: planFiles, limits: LIMITS, ...options });
  }

  /** Reads what is new in the folder. Never rejects; one reading at a time. */
  refresh(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#reading ??= this.#folder
      .refresh(() => this.#closed)
      .finally(() => {
        this.#reading = undefined;
      });
    return this.#reading;
  }

  /** An engine told its graphs. At once, with what has been read so far. */
  start(head: BookHead, contribution: Contribution): PlanStart {
    const key = fingerprintKey(head.fingerprint);
    const found = this.#folder.plan(key);
    let entry = this.#entries.get(key);
    if (entry === undefined || entry.engines === 0) {
      // What earlier engines of this controller learned may not be on the disk yet.
      const base = entry?.book.plan(this.#now()) ?? found?.plan;
      entry = {
        book: new BookEntry(head, base),
        name: `${key}.json`,
        engines: 0,
        saved: undefined,
        given: undefined,
      };
    }
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    const plan = this.#planFor(entry);
    entry.engines++;
    entry.book.join(contribution, this.#now());
    this.#forgetEntries();
    this.#saveWithin(SAVE_SECONDS);
    let ended = false;
    const joined = entry;
    return {
      file: join(this.#options.folder, found?.name ?? entry.name),
      plan,
      settled: () => this.#saveSoon(joined),
      end: () => {
        if (ended) return;
        ended = true;
        joined.engines--;
        joined.book.end(contribution);
        this.#saveSoon(joined);
      },
    };
  }

  #planFor(entry: Entry): Plan | undefined {
    const { engines, given, book } = entry;
    const atSeconds = this.#options.clock.now();
    const age = atSeconds - (given?.atSeconds ?? Number.NEGATIVE_INFINITY);
    if (engines >= STARTS_MANY && age < SECONDS_PER_START * engines) return given?.plan;
    const plan = book.plan(this.#now());
    entry.given = { plan, atSeconds };
    return plan;
  }

  /** Writes what is left to write, within two seconds. Never rejects. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelSave();
    const saving = this.#save().then(() => !this.#locked);
    const written = await withinSeconds(this.#options.clock, CLOSE_SECONDS_MAX, saving);
    this.#over = true;
    if (written !== true) this.#folder.lost(CLOSE_SECONDS_MAX);
  }

  /** Names told by engines must not fill the memory: those on the disk are read when needed. */
  #forgetEntries(): void {
    let gone = [...this.#entries.values()].filter(({ engines }) => engines === 0).length;
    for (const [key, { engines }] of this.#entries) {
      if (gone <= ENTRIES_MAX) return;
      if (engines > 0) continue;
      this.#entries.delete(key);
      gone--;
    }
  }

  /** All that changed, one file after the other; resolves when it is on the disk. Never rejects. */
  #save(): Promise<void> {
    this.#saving = this.#saving.then(async () => {
      let wrote = false;
      this.#locked = false;
      for (const [key, entry] of this.#entries) {
        if (!this.#over && (await this.#saveOne(key, entry))) wrote = true;
      }
      if (!wrote || this.#over) return;
      const busy = [...this.#entries.values()].filter(({ engines }) => engines > 0);
      await this.#folder.evict(new Set(busy.map(({ name }) => name))).catch(() => undefined);
    });
    return this.#saving;
  }

  /** @returns whether something was written */
  async #saveOne(key: string, entry: Entry): Promise<boolean> {
    if (this.#options.readOnly || this.#folder.isNewer(entry.name)) return false;
    if (this.#isSaved(key, entry)) return false;
    try {
      const release = await this.#folder.lock(entry.name, () => this.#over);
      if (release === undefined) {
        this.#locked = true;
        this.#saveWithin(SETTLED_SAVE_SECONDS);
        return false;
      }
      try {
        return (await this.#takeOver(key, entry)) && (await this.#write(key, entry));
      } finally {
        await release().catch(() => undefined);
      }
    } catch (error) {
      this.#folder.cantWrite(error);
      return false;
    }
  }

  #isSaved(key: string, { book, saved }: Entry): boolean {
    const plan = book.plan(this.#now());
    if (plan === undefined || plan === this.#folder.plan(key)?.plan) return true;
    return saved === digestOf(plan);
  }

  /**
   * What another controller wrote since this one read the file comes first.
   * @returns whether the file may be replaced
   */
  async #takeOver(key: string, { book, name }: Entry): Promise<boolean> {
    const change = await this.#folder.readAgain(name);
    if (change !== "read") return change === "unchanged";
    const found = this.#folder.plan(key);
    if (found?.name === name) book.rebase(found.plan);
    return true;
  }

  async #write(key: string, entry: Entry): Promise<boolean> {
    const { book, name } = entry;
    const draft = book.draft(this.#now());
    if (draft === undefined || this.#over) return false;
    const plan = storable(draft.plan);
    await this.#folder.write(key, name, plan, () => {
      draft.written();
      entry.saved = digestOf(draft.plan);
    });
    return true;
  }

  #saveSoon({ engines }: Entry): void {
    const seconds = Math.max(SETTLED_SAVE_SECONDS, SECONDS_PER_START * engines);
    this.#saveWithin(Math.min(SAVE_SECONDS, seconds));
  }

  #saveWithin(seconds: number): void {
    if (this.#closed || this.#options.readOnly) return;
    const atSeconds = this.#options.clock.now() + seconds;
    if (atSeconds >= this.#saveAtSeconds) return;
    this.#cancelSave();
    this.#saveAtSeconds = atSeconds;
    this.#cancelSave = this.#options.clock.after(seconds, () => {
      this.#saveAtSeconds = Number.POSITIVE_INFINITY;
      void this.#save();
      const busy = [...this.#entries.values()].some(({ engines }) => engines > 0);
      if (busy) this.#saveWithin(SAVE_SECONDS);
    });
  }

  #now(): string {
    return new Date().toISOString();
  }
}

/** The time of writing alone is no change. */
function digestOf(plan: Plan): string {
  return createHash("sha256")
    .update(JSON.stringify({ ...plan, updatedAt: "" }))
    .digest("base64");
}

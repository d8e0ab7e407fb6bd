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
import { codeOf, messageOf } from "../base/errors.ts";
import { BookEntry, type BookHead, type Contribution } from "./book.ts";
import { PlanFault, storable } from "./check.ts";
import { type FileVersion, type PlanFiles, planFiles } from "./files.ts";
import { fingerprintKey } from "./fingerprint.ts";
import type { Plan } from "./plan.ts";
import { ReadPlans } from "./read-plans.ts";

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

/** Beyond these the plan whose last use is the longest ago goes. */
export interface StoreLimits {
  readonly files: number;
  readonly fileBytes: number;
  readonly readBytes: number;
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
/** Another controller holds a lock while it writes one file. */
const LOCK_TRIES = 20;
const LOCK_WAIT_SECONDS = 0.05;
const PROBLEMS_MAX = 20;
/** Names that this store gives; others are the user's own files. */
const OWN_NAME = /^[0-9a-f]{24}\.json$/;

export class PlanStore {
  readonly #options: PlanStoreOptions;
  readonly #files: PlanFiles;
  readonly #limits: StoreLimits;
  readonly #read: ReadPlans;
  /** Names that a newer version of this package wrote. */
  readonly #newer = new Set<string>();
  /** By key, in order of last use. */
  readonly #entries = new Map<string, Entry>();
  readonly #told = new Set<string>();
  #reading: Promise<void> | undefined;
  #saving: Promise<void> = Promise.resolve();
  #cancelSave: () => void = () => {};
  #saveAtSeconds = Number.POSITIVE_INFINITY;
  #closed = false;
  /** The time for closing is over: what is not written by now is not any more. */
  #over = false;

  constructor(options: PlanStoreOptions) {
    this.#options = options;
    this.#files = options.files ?? planFiles;
    this.#limits = options.limits ?? LIMITS;
    this.#read = new ReadPlans(this.#limits.readBytes);
  }

  /** Reads what is new in the folder. Never rejects; one reading at a time. */
  refresh(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#reading ??= this.#readFolder()
      .catch((error: unknown) => this.#cantRead(this.#options.folder, error))
      .finally(() => {
        this.#reading = undefined;
      });
    return this.#reading;
  }

  /** An engine told its graphs. At once, with what has been read so far. */
  start(head: BookHead, contribution: Contribution): PlanStart {
    const key = fingerprintKey(head.fingerprint);
    const found = this.#read.get(key);
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
    await withinSeconds(this.#options.clock, CLOSE_SECONDS_MAX, this.#save());
    this.#over = true;
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

  // ---------------------------------------------------------------- writing

  /** All that changed, one file after the other; resolves when it is on the disk. Never rejects. */
  #save(): Promise<void> {
    this.#saving = this.#saving.then(async () => {
      let wrote = false;
      for (const [key, entry] of this.#entries) {
        if (!this.#over && (await this.#saveOne(key, entry))) wrote = true;
      }
      if (wrote && !this.#over) await this.#evict().catch(() => undefined);
    });
    return this.#saving;
  }

  /** @returns whether something was written */
  async #saveOne(key: string, entry: Entry): Promise<boolean> {
    const { folder, readOnly } = this.#options;
    if (readOnly || this.#newer.has(entry.name) || this.#isSaved(key, entry)) return false;
    try {
      const release = await this.#lock(entry.name);
      if (release === undefined) {
        this.#saveWithin(SETTLED_SAVE_SECONDS);
        return false;
      }
      try {
        return (await this.#takeOver(key, entry)) && (await this.#write(key, entry));
      } finally {
        await release().catch(() => undefined);
      }
    } catch (error) {
      const why = reasonOf(error);
      this.#tell(
        folder,
        `Expected a folder for learned plans that can be written, got ${why} for ${folder}: ` +
          "what this start learns is lost unless that changes; name another folder, or say that " +
          "plans are read only.",
      );
      return false;
    }
  }

  #isSaved(key: string, { book, saved }: Entry): boolean {
    const plan = book.plan(this.#now());
    if (plan === undefined || plan === this.#read.get(key)?.plan) return true;
    return saved === digestOf(plan);
  }

  async #lock(name: string): Promise<(() => Promise<void>) | undefined> {
    const { folder, clock } = this.#options;
    for (let tries = 1; ; tries++) {
      const release = await this.#files.lock(folder, name);
      if (release !== undefined || tries >= LOCK_TRIES || this.#over) return release;
      await new Promise<void>((resolve) => clock.after(LOCK_WAIT_SECONDS, resolve));
    }
  }

  /**
   * What another controller wrote since this one read the file comes first.
   * @returns whether the file may be replaced
   */
  async #takeOver(key: string, { book, name }: Entry): Promise<boolean> {
    const file = join(this.#options.folder, name);
    const version = await this.#versionOf(file);
    if (version === undefined || this.#read.version(name) === version.key) return true;
    try {
      await this.#readOne(name);
    } catch (error) {
      await this.#refuse(name, error);
      // No plan, and set aside; or gone. What can't be read, or is newer than this package, stays.
      return (await this.#versionOf(file)) === undefined;
    }
    const found = this.#read.get(key);
    if (found !== undefined && found.name === name) book.rebase(found.plan);
    return true;
  }

  async #versionOf(file: string): Promise<FileVersion | undefined> {
    try {
      return await this.#files.version(file);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  async #write(key: string, entry: Entry): Promise<boolean> {
    const { folder } = this.#options;
    const { book, name } = entry;
    const draft = book.draft(this.#now());
    if (draft === undefined || this.#over) return false;
    const plan = storable(draft.plan);
    await this.#files.write(folder, name, plan);
    draft.written();
    entry.saved = digestOf(draft.plan);
    const version = await this.#files.version(join(folder, name));
    this.#read.put(key, { plan, name, bytes: version.bytes }, version.key);
    this.#told.delete(folder);
    return true;
  }

  /** Of files that this store wrote, those used the longest ago go when there are too many. */
  async #evict(): Promise<void> {
    const { folder } = this.#options;
    const busy = new Set(
      [...this.#entries.values()].filter(({ engines }) => engines > 0).map(({ name }) => name),
    );
    const names = (await this.#files.names(folder)).filter((name) => OWN_NAME.test(name));
    const about: { name: string; bytes: number; atUnixMs: number }[] = [];
    for (const name of names) {
      const version = await this.#versionOf(join(folder, name));
      if (version !== undefined) about.push({ name, ...version });
    }
    about.sort((a, b) => a.atUnixMs - b.atUnixMs);
    let files = about.length;
    let bytes = about.reduce((sum, file) => sum + file.bytes, 0);
    for (const file of about) {
      if (files <= this.#limits.files && bytes <= this.#limits.fileBytes) return;
      if (busy.has(file.name) || this.#newer.has(file.name)) continue;
      await this.#files.remove(join(folder, file.name));
      this.#read.forget(file.name);
      files--;
      bytes -= file.bytes;
    }
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

  // ---------------------------------------------------------------- reading

  async #readFolder(): Promise<void> {
    const { folder } = this.#options;
    for (const name of await this.#files.names(folder)) {
      if (this.#closed) return;
      await this.#readOne(name).catch((error: unknown) => this.#refuse(name, error));
    }
  }

  async #readOne(name: string): Promise<void> {
    const file = join(this.#options.folder, name);
    const version = await this.#files.version(file);
    if (this.#read.version(name) === version.key) return;
    // It counts as looked at even if it turns out to be no plan.
    this.#read.seen(name, version.key);
    this.#newer.delete(name);
    const plan = await this.#files.read(file);
    const key = fingerprintKey(plan.fingerprint);
    if (OWN_NAME.test(name) && name !== `${key}.json`) {
      throw new PlanFault(`the plan of fingerprint ${name.slice(0, 24)}`, `that of ${key}`);
    }
    const known = this.#read.get(key);
    // Of two files for one fingerprint the newer counts, whatever its name.
    if (known === undefined || known.name === name || known.plan.updatedAt <= plan.updatedAt) {
      this.#read.put(key, { plan, name, bytes: version.bytes }, version.key);
    }
  }

  /** A file that is no plan of ours never counts; where we may, it makes room for one that is. */
  async #refuse(name: string, error: unknown): Promise<void> {
    const { folder, readOnly } = this.#options;
    const file = join(folder, name);
    this.#read.drop(name);
    if (!(error instanceof PlanFault)) {
      // Looked at again, in case it was the disk's fault.
      this.#read.forget(name);
      // Gone since the folder was listed: nothing to say.
      if (codeOf(error) !== "ENOENT") this.#cantRead(file, error);
      return;
    }
    const what = `Plan ${file}: ${error.message}`;
    if (error.newer) {
      this.#newer.add(name);
      this.#tell(file, `${what}, of a newer version of this package; it is left as it is.`);
      return;
    }
    // Other names are the user's own files: only what we would write over is ours to move.
    if (readOnly || !OWN_NAME.test(name)) {
      this.#tell(file, `${what}; it is ignored.`);
      return;
    }
    const aside = await this.#files.setAside(folder, name).catch(() => undefined);
    this.#read.forget(name);
    this.#tell(
      file,
      `${what}; it is ${aside === undefined ? "ignored" : `set aside as ${aside}`}.`,
    );
  }

  #cantRead(file: string, error: unknown): void {
    const why = reasonOf(error);
    this.#tell(
      file,
      `Expected learned plans that can be read, got ${why} for ${file}: engines start as if ` +
        "nothing had been learned.",
    );
  }

  /** Once for each file, until it works again: a full disk is no reason to fill a log as well. */
  #tell(about: string, sentence: string): void {
    if (this.#told.has(about) || this.#told.size >= PROBLEMS_MAX) return;
    this.#told.add(about);
    this.#options.onProblem(sentence);
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

function reasonOf(error: unknown): string {
  return codeOf(error) ?? messageOf(error);
}

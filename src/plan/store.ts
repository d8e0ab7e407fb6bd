/**
 * Learned plans in a folder, one file for each fingerprint.
 *
 * Files are read ahead, because an engine's first set of graphs can't wait for a disk: all of the
 * folder when it opens, and what has changed since whenever an engine says hello. Whatever goes
 * wrong here is told once and changes nothing else: engines then start as if nothing were known.
 */

import { join } from "node:path";
import { type Clock, withinSeconds } from "../base/clock.ts";
import { codeOf, messageOf } from "../base/errors.ts";
import { BookEntry, type BookHead, type Contribution } from "./book.ts";
import { PlanFault } from "./check.ts";
import { planNames, readPlan, setAside, versionOf, writePlan } from "./files.ts";
import { fingerprintKey } from "./fingerprint.ts";
import type { Plan } from "./plan.ts";

export interface PlanStoreOptions {
  readonly folder: string;
  /** Reads plans and writes none. */
  readonly readOnly: boolean;
  readonly clock: Clock;
  /** One sentence about a file or the folder that can't be used. */
  readonly onProblem: (sentence: string) => void;
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
  /** Another version of this package wrote the file: it is not ours to replace. */
  readonly foreign: boolean;
  /** How many engines contribute now. */
  engines: number;
}

const SAVE_SECONDS = 120;
const SETTLED_SAVE_SECONDS = 1;
/** A disk that doesn't answer must not keep a controller from closing. */
const CLOSE_SECONDS_MAX = 2;
const PROBLEMS_MAX = 20;

export class PlanStore {
  readonly #options: PlanStoreOptions;
  /** By key: what was read, and from which version of which file. */
  readonly #read = new Map<string, { readonly plan: Plan; readonly name: string }>();
  readonly #versions = new Map<string, string>();
  /** Names that a newer version of this package wrote. */
  readonly #newer = new Set<string>();
  readonly #entries = new Map<string, Entry>();
  readonly #saved = new Map<string, string>();
  readonly #told = new Set<string>();
  #reading: Promise<void> | undefined;
  #saving: Promise<void> = Promise.resolve();
  #cancelSave: () => void = () => {};
  #saveAtSeconds = Number.POSITIVE_INFINITY;
  #closed = false;

  constructor(options: PlanStoreOptions) {
    this.#options = options;
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
      const name = `${key}.json`;
      // What earlier engines of this controller learned may not be on the disk yet.
      const base = entry?.book.plan(this.#now()) ?? found?.plan;
      const foreign = this.#newer.has(name);
      entry = { book: new BookEntry(head, base), name, foreign, engines: 0 };
      this.#entries.set(key, entry);
    }
    const plan = entry.book.plan(this.#now());
    entry.engines++;
    entry.book.join(contribution, this.#now());
    this.#saveWithin(SAVE_SECONDS);
    let ended = false;
    const joined = entry;
    return {
      file: join(this.#options.folder, found?.name ?? entry.name),
      plan,
      settled: () => this.#saveWithin(SETTLED_SAVE_SECONDS),
      end: () => {
        if (ended) return;
        ended = true;
        joined.engines--;
        joined.book.end(contribution);
        this.#saveWithin(SETTLED_SAVE_SECONDS);
      },
    };
  }

  /** Writes what is left to write, within two seconds. Never rejects. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelSave();
    await withinSeconds(this.#options.clock, CLOSE_SECONDS_MAX, this.#save());
  }

  /** All that changed, one file after the other; resolves when it is on the disk. Never rejects. */
  #save(): Promise<void> {
    this.#saving = this.#saving.then(async () => {
      for (const [key, entry] of this.#entries) await this.#saveOne(key, entry);
    });
    return this.#saving;
  }

  async #saveOne(key: string, { book, name, foreign }: Entry): Promise<void> {
    const { folder, readOnly } = this.#options;
    const plan = book.plan(this.#now());
    if (plan === undefined || readOnly || foreign) return;
    // The time of writing alone is no change.
    const content = JSON.stringify({ ...plan, updatedAt: "" });
    if (this.#saved.get(key) === content || plan === this.#read.get(key)?.plan) return;
    try {
      await writePlan(folder, name, plan);
      this.#saved.set(key, content);
      this.#read.set(key, { plan, name });
      this.#versions.set(name, await versionOf(join(folder, name)));
      this.#told.delete(folder);
    } catch (error) {
      const why = reasonOf(error);
      this.#tell(
        folder,
        `Expected a folder for learned plans that can be written, got ${why} for ${folder}: ` +
          "what this start learns is lost unless that changes; name another folder, or say that " +
          "plans are read only.",
      );
    }
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

  async #readFolder(): Promise<void> {
    const { folder } = this.#options;
    for (const name of await planNames(folder)) {
      if (this.#closed) return;
      await this.#readOne(name).catch((error: unknown) => this.#refuse(name, error));
    }
  }

  async #readOne(name: string): Promise<void> {
    const file = join(this.#options.folder, name);
    const version = await versionOf(file);
    if (this.#versions.get(name) === version) return;
    this.#versions.set(name, version);
    this.#newer.delete(name);
    const plan = await readPlan(file);
    const key = fingerprintKey(plan.fingerprint);
    if (/^[0-9a-f]{24}\.json$/.test(name) && name !== `${key}.json`) {
      throw new PlanFault(`the plan of fingerprint ${name.slice(0, 24)}`, `that of ${key}`);
    }
    const known = this.#read.get(key);
    // Of two files for one fingerprint the newer counts, whatever its name.
    if (known === undefined || known.name === name || known.plan.updatedAt <= plan.updatedAt) {
      this.#read.set(key, { plan, name });
    }
  }

  /** A file that is no plan of ours never counts; where we may, it makes room for one that is. */
  async #refuse(name: string, error: unknown): Promise<void> {
    const { folder, readOnly } = this.#options;
    const file = join(folder, name);
    for (const [key, read] of this.#read) if (read.name === name) this.#read.delete(key);
    if (!(error instanceof PlanFault)) {
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
    if (readOnly || !/^[0-9a-f]{24}\.json$/.test(name)) {
      this.#tell(file, `${what}; it is ignored.`);
      return;
    }
    const aside = await setAside(folder, name).catch(() => undefined);
    this.#versions.delete(name);
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

function reasonOf(error: unknown): string {
  return codeOf(error) ?? messageOf(error);
}

/**
 * The files of a folder of learned plans: what was read of each, and what is written over or given
 * up. What can't be used is told once and changes nothing else.
 */

import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { codeOf, messageOf } from "../base/errors.ts";
import { PlanFault } from "./check.ts";
import type { FileVersion, PlanFiles } from "./files.ts";
import { fingerprintKey } from "./fingerprint.ts";
import type { Plan } from "./plan.ts";
import { type ReadPlan, ReadPlans } from "./read-plans.ts";

export interface PlanFolderOptions {
  readonly folder: string;
  readonly readOnly: boolean;
  readonly clock: Clock;
  readonly onProblem: (sentence: string) => void;
  readonly files: PlanFiles;
  readonly limits: StoreLimits;
}

/** Beyond these the plan whose last use is the longest ago goes. */
export interface StoreLimits {
  readonly files: number;
  readonly fileBytes: number;
  readonly readBytes: number;
}

/** Another controller holds a lock while it writes one file. */
const LOCK_TRIES = 20;
const LOCK_WAIT_SECONDS = 0.05;
const PROBLEMS_MAX = 20;
/** Names that a store gives; others are the user's own files. */
const OWN_NAME = /^[0-9a-f]{24}\.json$/;

export class PlanFolder {
  readonly #options: PlanFolderOptions;
  readonly #read: ReadPlans;
  /** Names that a newer version of this package wrote. */
  readonly #newer = new Set<string>();
  readonly #told = new Set<string>();

  constructor(options: PlanFolderOptions) {
    this.#options = options;
    this.#read = new ReadPlans(options.limits.readBytes);
  }

  /** What was read for a fingerprint's key. */
  plan(key: string): ReadPlan | undefined {
    return this.#read.get(key);
  }

  isNewer(name: string): boolean {
    return this.#newer.has(name);
  }

  /** Reads what is new. Never rejects. */
  async refresh(isOver: () => boolean): Promise<void> {
    const { folder, files } = this.#options;
    try {
      for (const name of await files.names(folder)) {
        if (isOver()) return;
        await this.#readOne(name).catch((error: unknown) => this.#refuse(name, error));
      }
    } catch (error) {
      this.#cantRead(folder, error);
    }
  }

  /**
   * A file that is about to be replaced, if another controller has written it since it was read.
   * @returns "stays": it must not be replaced
   */
  async readAgain(name: string): Promise<"unchanged" | "read" | "stays"> {
    const file = join(this.#options.folder, name);
    const version = await this.#versionOf(file);
    if (version === undefined || this.#read.version(name) === version.key) return "unchanged";
    try {
      await this.#readOne(name);
      return "read";
    } catch (error) {
      await this.#refuse(name, error);
      // No plan, and set aside; or gone. What can't be read, or is newer than this package, stays.
      return (await this.#versionOf(file)) === undefined ? "unchanged" : "stays";
    }
  }

  /** @returns how to release it; undefined where another controller keeps it */
  async lock(name: string, isOver: () => boolean): Promise<(() => Promise<void>) | undefined> {
    const { folder, clock, files } = this.#options;
    for (let tries = 1; ; tries++) {
      const release = await files.lock(folder, name);
      if (release !== undefined || tries >= LOCK_TRIES || isOver()) return release;
      await new Promise<void>((resolve) => clock.after(LOCK_WAIT_SECONDS, resolve));
    }
  }

  /** @param onWritten called as soon as it is on the disk */
  async write(key: string, name: string, plan: Plan, onWritten: () => void): Promise<void> {
    const { folder, files } = this.#options;
    await files.write(folder, name, plan);
    onWritten();
    const version = await files.version(join(folder, name));
    this.#read.put(key, { plan, name, bytes: version.bytes }, version.key);
    this.#told.delete(folder);
  }

  /** Of files that a store wrote, those used the longest ago go when there are too many. */
  async evict(busy: ReadonlySet<string>): Promise<void> {
    const { folder, files: io, limits } = this.#options;
    const names = (await io.names(folder)).filter((name) => OWN_NAME.test(name));
    const about: { name: string; bytes: number; atUnixMs: number }[] = [];
    for (const name of names) {
      const version = await this.#versionOf(join(folder, name));
      if (version !== undefined) about.push({ name, ...version });
    }
    about.sort((a, b) => a.atUnixMs - b.atUnixMs);
    let files = about.length;
    let bytes = about.reduce((sum, file) => sum + file.bytes, 0);
    for (const file of about) {
      if (files <= limits.files && bytes <= limits.fileBytes) return;
      if (busy.has(file.name) || this.#newer.has(file.name)) continue;
      await io.remove(join(folder, file.name));
      this.#read.forget(file.name);
      files--;
      bytes -= file.bytes;
    }
  }

  /** That nothing can be written. */
  cantWrite(error: unknown): void {
    const { folder } = this.#options;
    this.#tell(
      folder,
      `Expected a folder for learned plans that can be written, got ${reasonOf(error)} for ${folder}: ` +
        "what this start learns is lost unless that changes; name another folder, or say that " +
        "plans are read only.",
    );
  }

  /** That what was to be written at the end wasn't, within `seconds`. */
  lost(seconds: number): void {
    const { folder } = this.#options;
    this.#tell(
      folder,
      `Expected ${folder} to take what this start learned within ${seconds} s, but the disk ` +
        "doesn't answer, or another process holds a lock there: it is lost.",
    );
  }

  async #versionOf(file: string): Promise<FileVersion | undefined> {
    try {
      return await this.#options.files.version(file);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  async #readOne(name: string): Promise<void> {
    const { folder, files } = this.#options;
    const file = join(folder, name);
    const version = await files.version(file);
    if (this.#read.version(name) === version.key) return;
    // It counts as looked at even if it turns out to be no plan.
    this.#read.seen(name, version.key);
    this.#newer.delete(name);
    const plan = await files.read(file);
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
    const { folder, readOnly, files } = this.#options;
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
    const aside = await files.setAside(folder, name).catch(() => undefined);
    this.#read.forget(name);
    this.#tell(
      file,
      `${what}; it is ${aside === undefined ? "ignored" : `set aside as ${aside}`}.`,
    );
  }

  #cantRead(file: string, error: unknown): void {
    this.#tell(
      file,
      `Expected learned plans that can be read, got ${reasonOf(error)} for ${file}: engines start as ` +
        "if nothing had been learned.",
    );
  }

  /** Once for each file, until it works again: a full disk is no reason to fill a log as well. */
  #tell(about: string, sentence: string): void {
    const isMany = about !== this.#options.folder && this.#told.size >= PROBLEMS_MAX;
    if (this.#told.has(about) || isMany) return;
    this.#told.add(about);
    this.#options.onProblem(sentence);
  }
}

function reasonOf(error: unknown): string {
  return codeOf(error) ?? messageOf(error);
}

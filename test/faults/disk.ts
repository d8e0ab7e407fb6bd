/** A disk for learned plans, which may be full, or not answer. */

import { basename } from "node:path";
import { formatPlan, PlanFault, parsePlan } from "../../src/plan/check.ts";
import type { PlanFiles } from "../../src/plan/files.ts";

const FILES_MAX = 64;

interface File {
  readonly text: string;
  readonly version: number;
  readonly atUnixMs: number;
}

export class SimDisk implements PlanFiles {
  readonly files = new Map<string, File>();
  readonly #locks = new Map<string, number>();
  #version = 0;
  /** Nothing can be written. */
  full = false;

  readonly names = async (): Promise<string[]> =>
    [...this.files.keys()].filter((name) => name.endsWith(".json")).sort();

  readonly read = async (file: string) => parsePlan(this.#file(file).text);

  readonly write: PlanFiles["write"] = async (_folder, name, plan) => {
    this.#needsRoom();
    const text = formatPlan(plan);
    this.files.set(name, { text, version: ++this.#version, atUnixMs: Date.now() });
    if (this.files.size > FILES_MAX) throw new Error(`more than ${FILES_MAX} files of plans`);
  };

  readonly setAside: PlanFiles["setAside"] = async (_folder, name) => {
    const aside = `${name}.corrupt-1`;
    this.files.set(aside, this.#file(name));
    this.files.delete(name);
    return aside;
  };

  readonly version: PlanFiles["version"] = async (file) => {
    const { version, text, atUnixMs } = this.#file(file);
    return { key: String(version), bytes: text.length, atUnixMs };
  };

  readonly remove = async (file: string): Promise<void> => {
    this.files.delete(basename(file));
  };

  readonly lock: PlanFiles["lock"] = async (_folder, name) => {
    this.#needsRoom();
    const since = this.#locks.get(name);
    if (since !== undefined && Math.abs(Date.now() - since) <= 30_000) return undefined;
    this.#locks.set(name, Date.now());
    return async () => void this.#locks.delete(name);
  };

  /** @throws PlanFault where a file is no plan */
  check(): void {
    for (const [name, { text }] of this.files) {
      if (!name.endsWith(".json")) throw new PlanFault("sound plans alone", name);
      parsePlan(text);
    }
  }

  #file(file: string): File {
    const found = this.files.get(basename(file));
    if (found === undefined) throw Object.assign(new Error("no such file"), { code: "ENOENT" });
    return found;
  }

  #needsRoom(): void {
    if (this.full) throw Object.assign(new Error("no space left"), { code: "ENOSPC" });
  }
}

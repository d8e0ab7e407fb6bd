/** Reading and writing one plan file. Nothing here decides what a plan is worth. */

import { randomBytes } from "node:crypto";
import { access, constants, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { codeOf } from "../base/errors.ts";
import { LOCK_MS_MAX, lockAgeMs } from "../base/lock-age.ts";
import { makeFolder } from "../base/make-folder.ts";
import { formatPlan, PLAN_BYTES_MAX, PlanFault, parsePlan } from "./check.ts";
import type { Plan } from "./plan.ts";

const CORRUPT_MAX = 9;
/** Files looked at in one folder, whoever's they are. */
const NAMES_MAX = 4096;

export interface FileVersion {
  /** What tells one version of a file from the next. */
  readonly key: string;
  readonly bytes: number;
  readonly atUnixMs: number;
}

/** The files of a folder of plans. A simulation brings its own. */
export interface PlanFiles {
  readonly names: typeof planNames;
  readonly read: typeof readPlan;
  readonly write: typeof writePlan;
  readonly setAside: typeof setAside;
  readonly version: typeof versionOf;
  readonly remove: typeof removePlan;
  readonly lock: typeof lockPlan;
}

/** @throws PlanFault when it is no plan; the system's error when it can't be read. */
export async function readPlan(file: string): Promise<Plan> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const about = await handle.stat();
    // A pipe would never end, and a device never be one.
    if (!about.isFile()) throw new PlanFault("a file", "something else of that name");
    if (about.size > PLAN_BYTES_MAX) {
      throw new PlanFault(`at most ${PLAN_BYTES_MAX} bytes`, String(about.size));
    }
    return parsePlan(await handle.readFile("utf8"));
  } finally {
    await handle.close();
  }
}

/** Replaces the file as a whole: neither a reader nor a crash ever finds half of it. */
export async function writePlan(folder: string, name: string, plan: Plan): Promise<void> {
  const text = formatPlan(plan);
  const bytes = Buffer.byteLength(text);
  if (bytes > PLAN_BYTES_MAX) {
    throw new PlanFault(`a plan of at most ${PLAN_BYTES_MAX} bytes`, String(bytes));
  }
  await makeFolder(folder);
  const temporary = join(folder, `.${name}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`);
  try {
    const handle = await open(temporary, "wx", 0o644);
    try {
      await handle.writeFile(text);
      // Renamed before its content is on the disk, a power cut could leave an empty plan.
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, join(folder, name));
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
}

/** Names of the plan files of a folder, at most 4,096; none when there is no such folder. */
export async function planNames(folder: string): Promise<string[]> {
  try {
    const names = await readdir(folder);
    const plans = names.filter((name) => name.endsWith(".json") && !name.startsWith("."));
    return plans.sort().slice(0, NAMES_MAX);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

/**
 * Renames a file that is no plan, so that the next one finds its place free and somebody can look
 * at what it was. After nine of them the last is replaced.
 *
 * @returns its new name
 */
export async function setAside(folder: string, name: string): Promise<string> {
  for (let count = 1; ; count++) {
    const aside = `${name}.corrupt-${count}`;
    const taken = count < CORRUPT_MAX && (await exists(join(folder, aside)));
    if (taken) continue;
    await rename(join(folder, name), join(folder, aside));
    return aside;
  }
}

export async function versionOf(file: string): Promise<FileVersion> {
  const { mtimeMs, size, ino } = await stat(file);
  return { key: `${mtimeMs}/${size}/${ino}`, bytes: size, atUnixMs: mtimeMs };
}

async function removePlan(file: string): Promise<void> {
  await rm(file, { force: true });
}

/**
 * Keeps other controllers from writing one plan, between reading it and replacing it. Who ends in
 * the middle of that leaves a lock, which is void after half a minute, and perhaps half a plan.
 *
 * @returns what ends it; undefined while another process has it
 */
async function lockPlan(folder: string, name: string): Promise<(() => Promise<void>) | undefined> {
  await makeFolder(folder);
  const file = join(folder, `.${name}.lock`);
  for (const again of [true, false]) {
    try {
      await (await open(file, "wx", 0o644)).close();
      return () => removePlan(file);
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
      const ageMs = await lockAgeMs(file);
      if (!again || (ageMs !== undefined && ageMs <= LOCK_MS_MAX)) return undefined;
      // Half a plan is left only together with its lock.
      for (const part of await readdir(folder)) {
        if (part.startsWith(`.${name}.`) && part.endsWith(".tmp")) {
          await removePlan(join(folder, part));
        }
      }
      await removePlan(file);
    }
  }
  return undefined;
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

export const planFiles: PlanFiles = {
  names: planNames,
  read: readPlan,
  write: writePlan,
  setAside,
  version: versionOf,
  remove: removePlan,
  lock: lockPlan,
};

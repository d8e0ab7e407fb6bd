/**
 * Keeps two benchmarks from running the same cells of one folder at once.
 *
 * Not the folder as a whole is taken: lanes on several GPUs, or hosts that share a disk, each run
 * cells of their own in it. Who comes says in a file of its own which cells it runs, and only then
 * reads what others have said: of two that come at once, one or both see the other. A file whose
 * process is gone is removed by whoever finds it, which takes nothing from anybody.
 */

import { randomBytes } from "node:crypto";
import { readdir, readFile, readlink, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { codeOf, LazygraphError } from "../base/errors.ts";
import { jsonObject } from "../base/parse-json.ts";
import type { CellName } from "./spec.ts";
import { runName, writeWhole } from "./store.ts";

const SUFFIX = ".lock";
const TOUCH_MS = 5000;
/** Of a process that can't be looked at, on another host. */
const SILENT_MS_MAX = 30_000;
const CELLS_NAMED_MAX = 3;

interface Reservation {
  readonly cells: readonly string[];
  readonly host: string;
  readonly pid: number;
  /** Where its number means this process: undefined where the system doesn't tell. */
  readonly place?: string | undefined;
  /** When the process began, in the system's own count: numbers are used again. */
  readonly began?: string | undefined;
}

/**
 * @returns what gives the cells back
 * @throws LazygraphError `ERR_LAZYGRAPH_BENCH` while another process runs one of them
 */
export async function reserveCells(
  folder: string,
  cells: readonly CellName[],
): Promise<() => Promise<void>> {
  return reserve(join(folder, "runs"), cells.map(runName), (both, { pid, host }) => {
    const named = both.slice(0, CELLS_NAMED_MAX).map((cell) => cell.replaceAll("~", "/"));
    if (both.length > CELLS_NAMED_MAX) named.push("…");
    return new LazygraphError(
      "ERR_LAZYGRAPH_BENCH",
      `Expected no other benchmark to run ${named.join(", ")} in ${JSON.stringify(folder)}, got ` +
        `process ${pid} on ${host}, which does: wait for it, or give another --out.`,
    );
  });
}

type Taken = (both: readonly string[], other: Reservation) => LazygraphError;

/**
 * Takes names in a folder that other processes may write into as well.
 *
 * @param taken what is thrown while another process has some of them
 * @returns what gives them back
 */
export async function reserve(
  folder: string,
  cells: readonly string[],
  taken: Taken,
): Promise<() => Promise<void>> {
  const { pid } = process;
  const own: Reservation = {
    cells,
    host: hostname(),
    pid,
    place: await processPlace(),
    began: await processBegan(pid),
  };
  const name = `.${pid}-${randomBytes(6).toString("hex")}${SUFFIX}`;
  const file = join(folder, name);
  await writeWhole(file, JSON.stringify(own));
  const touch = setInterval(() => {
    const now = new Date();
    // Where it is gone somebody removed it by hand.
    utimes(file, now, now).catch(() => undefined);
  }, TOUCH_MS);
  touch.unref();
  const release = async (): Promise<void> => {
    clearInterval(touch);
    await rm(file, { force: true });
  };
  try {
    await requireNobody(folder, name, own, taken);
  } catch (error) {
    await release();
    throw error;
  }
  return release;
}

async function requireNobody(
  folder: string,
  name: string,
  own: Reservation,
  taken: Taken,
): Promise<void> {
  for (const entry of await readdir(folder)) {
    if (entry === name || !entry.startsWith(".") || !entry.endsWith(SUFFIX)) continue;
    const file = join(folder, entry);
    const other = await readReservation(file);
    if (other === undefined) continue;
    const began = await processBegan(other.pid);
    if (!isHeld(other, { place: own.place, began })) {
      await rm(file, { force: true });
      continue;
    }
    const both = other.cells.filter((cell) => own.cells.includes(cell));
    if (both.length > 0) throw taken(both, other);
  }
}

type Found = Reservation & { readonly silentMs: number };

/** @returns undefined for one that was given back meanwhile */
async function readReservation(file: string): Promise<Found | undefined> {
  try {
    const silentMs = Date.now() - (await stat(file)).mtimeMs;
    return { ...reservationOf(await readFile(file, "utf8")), silentMs };
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** What is none is half of one: its process may be writing it, and reads this one's then. */
function reservationOf(text: string): Reservation {
  const { cells, host, pid, place, began } = (jsonObject(text) ?? {}) as Partial<Reservation>;
  const isWhole = Array.isArray(cells) && typeof host === "string" && typeof pid === "number";
  return isWhole ? { cells, host, pid, place, began } : { cells: [], host: "", pid: 0 };
}

/**
 * Whether the process that wrote it still runs.
 *
 * @param here this process's place, and when the process of that number began here, if there is one
 */
export function isHeld(
  { place, began, silentMs }: Pick<Found, "place" | "began" | "silentMs">,
  here: { readonly place: string | undefined; readonly began: string | undefined },
): boolean {
  if (place !== undefined && place === here.place) return began === here.began;
  return silentMs <= SILENT_MS_MAX;
}

/** One start of one system, and its numbering of processes, which a container has its own of. */
async function processPlace(): Promise<string | undefined> {
  try {
    const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    return `${boot} ${await readlink("/proc/self/ns/pid")}`;
  } catch {
    return undefined;
  }
}

async function processBegan(pid: number): Promise<string | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, "utf8");
    // The name before them may hold anything; `starttime` is the 20th field behind it.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    // One that ended, and whose parent hasn't asked how.
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** The cells of a specification, one after the other, into a folder; what is there is left out. */

import { join } from "node:path";
import { SkipCounts } from "../trace/skips.ts";
import { type RunProgress, runCell } from "./cell.ts";
import { type OnSkip, type ScheduledRequest, scheduleCsv, scheduleOf } from "./load.ts";
import { reserveCells } from "./reserve.ts";
import { askedOf } from "./run-head.ts";
import type { RunHead } from "./samples.ts";
import { type BenchSpec, type CellName, isVirtual } from "./spec.ts";
import {
  type BenchFacts,
  folderError,
  openFolder,
  readHead,
  readSchedule,
  scheduleFile,
  writeDocument,
  writeWhole,
} from "./store.ts";
import { storedMode } from "./stored-mode.ts";
import { runVirtualCell } from "./virtual-cell.ts";

export interface MatrixProgress extends RunProgress {
  cell(name: CellName, place: number, total: number): void;
  cellDone(head: RunHead): void;
}

export interface MatrixOptions {
  readonly spec: BenchSpec;
  readonly folder: string;
  /** Only these cells; the rest is for another day. @default all */
  readonly only?: (cell: CellName) => boolean;
  /** At most this many cells now. @default all */
  readonly cellsMax?: number;
  /** Is asked before anything is started, with the cells to run now; what it throws ends the call. */
  readonly check?: (cells: readonly CellName[]) => Promise<void>;
  /** Is told what of a load's files is not used. */
  readonly onNote?: (sentence: string) => void;
  readonly progress: MatrixProgress;
  readonly signal: AbortSignal;
}

export interface MatrixResult {
  /** Heads of the runs of this call. */
  readonly ran: readonly RunHead[];
  /** Cells that were complete before. */
  readonly skipped: number;
  /** Whether a request of a run that was complete before had failed. */
  readonly failedBefore: boolean;
  /** Cells that are still to be run. */
  readonly left: number;
}

/**
 * @throws OptionError for a folder that can't be written or a load that makes no request
 * @throws LazygraphError `ERR_LAZYGRAPH_BENCH` when the folder holds another mode or load of the
 *   same name, or another process runs one of the cells; `ERR_LAZYGRAPH_TRACE` for a load's file
 */
export async function runMatrix(options: MatrixOptions): Promise<MatrixResult> {
  const { spec, folder } = options;
  await openFolder(folder);
  const wanted = spec.cells.filter((cell) => options.only?.(cell) ?? true);
  const release = await reserveCells(folder, wanted);
  try {
    return await runWanted(options, wanted);
  } finally {
    await release();
  }
}

async function runWanted(
  options: MatrixOptions,
  wanted: readonly CellName[],
): Promise<MatrixResult> {
  const { spec, folder, progress, signal } = options;
  const schedules = new Map<string, readonly ScheduledRequest[]>();
  const open: CellName[] = [];
  let failedBefore = false;
  for (const cell of wanted) {
    const head = await readHead(folder, cell);
    if (head !== undefined) requireSame(spec, head, folder);
    // Who mends what made a run partial asks in another way.
    if (head?.status === "complete") {
      requireSameRequests({ endpoint: spec.endpoint, asked: askedOf(spec) }, head, folder);
      failedBefore ||= (head.requestsFailed ?? 0) > 0;
    } else open.push(cell);
  }
  const now = open.slice(0, options.cellsMax);
  await options.check?.(now);
  for (const name of new Set(open.map(({ load }) => load))) {
    const load = spec.loads[name] as BenchSpec["loads"][string];
    const skipped = new SkipCounts();
    const onSkip: OnSkip = (skip) => skipped.add(skip);
    const schedule = await scheduleOf(load, { onNote: options.onNote, onSkip });
    const sentence = skipped.sentence(load.trace ?? name);
    if (sentence !== undefined) options.onNote?.(sentence);
    schedules.set(name, schedule);
    const csv = scheduleCsv(schedule);
    const others = spec.cells.filter(({ load: own }) => own === name);
    const heads = await Promise.all(others.map((cell) => readHead(folder, cell)));
    if (heads.some((head) => head?.status === "complete")) {
      requireSameSchedule(await readSchedule(folder, name), csv, name, folder);
    }
    await writeWhole(scheduleFile(folder, name), csv);
  }
  const { title, baseline, goodput } = spec;
  const modes = Object.keys(spec.modes);
  const facts: BenchFacts = { format: 1, title, baseline, goodput, modes };
  await writeDocument(join(folder, "bench.json"), facts);
  const ran: RunHead[] = [];
  for (const [index, cell] of now.entries()) {
    if (signal.aborted) break;
    progress.cell(cell, index + 1, now.length);
    const schedule = schedules.get(cell.load) ?? [];
    const run = isVirtual(spec.modes[cell.mode] ?? {}) ? runVirtualCell : runCell;
    const head = await run({ spec, cell, schedule, folder, progress, signal });
    ran.push(head);
    progress.cellDone(head);
  }
  const complete = ran.filter(({ status }) => status === "complete").length;
  return { ran, skipped: wanted.length - open.length, failedBefore, left: open.length - complete };
}

/** Runs of two different things must not be pooled under one name. */
export function requireSame(
  spec: Pick<BenchSpec, "modes" | "loads">,
  head: Pick<RunHead, "cell" | "mode" | "load">,
  folder: string,
): void {
  const { mode, load } = head.cell;
  const own = spec.modes[mode];
  for (const [what, name, there, here] of [
    ["mode", mode, head.mode, own && storedMode(own)],
    ["load", load, head.load, spec.loads[load]],
  ] as const) {
    if (JSON.stringify(there) === JSON.stringify(here)) continue;
    throw folderError(
      folder,
      `a folder whose ${what} ${JSON.stringify(name)} is the one asked for`,
      "another one: give another folder, or another name",
    );
  }
}

/** Nor must runs of one name whose requests were made in different ways. */
export function requireSameRequests(
  one: Pick<RunHead, "endpoint" | "asked">,
  other: Pick<RunHead, "endpoint" | "asked">,
  folder: string,
): void {
  const known = one.asked !== undefined && other.asked !== undefined;
  const isSame = !known || JSON.stringify(one.asked) === JSON.stringify(other.asked);
  if (isSame && one.endpoint === other.endpoint) return;
  throw folderError(
    folder,
    "a folder whose runs have the same endpoint, model, warm-ups and options of requests",
    "others: give another folder, or another name",
  );
}

/** The file behind a load may have changed under its name. @param one undefined: not known */
export function requireSameSchedule(
  one: string | undefined,
  other: string | undefined,
  load: string,
  folder: string,
): void {
  if (one === undefined || other === undefined || one === other) return;
  throw folderError(
    folder,
    `a folder whose load ${JSON.stringify(load)} comes to the same requests`,
    "others, as when a trace has changed: give another folder, or another name",
  );
}

/** Folders of several days or hosts made one; runs of the same cell are numbered on. */

import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { machineOf } from "./host.ts";
import { requireSame, requireSameRequests, requireSameSchedule } from "./matrix.ts";
import type { RunHead } from "./samples.ts";
import type { CellName } from "./spec.ts";
import {
  openFolder,
  readFacts,
  readHead,
  readHeads,
  readSchedule,
  runFile,
  samplesFile,
  scheduleFile,
  writable,
  writeDocument,
} from "./store.ts";

function pairOf({ cell: { mode, load } }: RunHead): string {
  return `${mode}~${load}`;
}

/**
 * @returns how many runs were taken over
 * @throws OptionError when `into` can't be written; LazygraphError `ERR_LAZYGRAPH_BENCH` for a folder
 *   that is none of ours, or whose mode or load of a name differs from another folder's
 */
export async function mergeFolders(folders: readonly string[], into: string): Promise<number> {
  const heads: { readonly folder: string; readonly head: RunHead }[] = [];
  for (const folder of folders) {
    for (const head of await readHeads(folder)) heads.push({ folder, head });
  }
  await openFolder(into);
  const there = await readHeads(into);
  const all = [...there, ...heads.map(({ head }) => head)];
  const modes = Object.fromEntries(all.map(({ cell, mode }) => [cell.mode, mode]));
  const loads = Object.fromEntries(all.map(({ cell, load }) => [cell.load, load]));
  for (const head of there) requireSame({ modes, loads }, head, into);
  // Once each: the runs of one load share a schedule, which may be large.
  const stored = new Map(
    [...there.map((head) => ({ folder: into, head })), ...heads].map(({ folder, head }) => {
      const { load } = head.cell;
      return [scheduleFile(folder, load), { folder, load }];
    }),
  );
  const schedules = new Map<string, string | undefined>();
  for (const { folder, load } of stored.values()) {
    const schedule = await readSchedule(folder, load);
    requireSameSchedule(schedules.get(load), schedule, load, folder);
    schedules.set(load, schedules.get(load) ?? schedule);
  }
  const firsts = new Map<string, RunHead>(there.map((head) => [pairOf(head), head]));
  for (const { folder, head } of heads) {
    requireSame({ modes, loads }, head, folder);
    const pair = pairOf(head);
    requireSameRequests(firsts.get(pair) ?? head, head, folder);
    firsts.set(pair, firsts.get(pair) ?? head);
  }
  const [first = into] = folders;
  await writeDocument(join(into, "bench.json"), await readFacts(first));
  const known = new Set(there.map(identityOf));
  let taken = 0;
  for (const { folder, head } of heads) {
    // The same run, met again: folders may have been merged before.
    if (known.has(identityOf(head))) continue;
    known.add(identityOf(head));
    await takeOver(folder, head, into);
    taken++;
  }
  return taken;
}

function identityOf({ cell, startedAt, host }: RunHead): string {
  return JSON.stringify([cell.mode, cell.load, startedAt, machineOf(host)]);
}

async function takeOver(folder: string, head: RunHead, into: string): Promise<void> {
  let cell: CellName = head.cell;
  while ((await readHead(into, cell)) !== undefined) cell = { ...cell, run: cell.run + 1 };
  const samples = await samplesFile(folder, head.cell);
  if (samples !== undefined) {
    const extension = samples.endsWith(".gz") ? "ndjson.gz" : "ndjson";
    const file = runFile(into, cell, extension);
    await writable(file, copyFile(samples, file));
  }
  const log = runFile(folder, head.cell, "log");
  await copyFile(log, runFile(into, cell, "log")).catch(() => undefined);
  const schedule = scheduleFile(folder, cell.load);
  await copyFile(schedule, scheduleFile(into, cell.load)).catch(() => undefined);
  await writeDocument(runFile(into, cell, "json"), { ...head, cell });
}

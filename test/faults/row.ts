/** A row of courses, one a seed, and what they came to together. */

import { type CourseOptions, runCourse } from "./course.ts";
import { KILL_POINTS, nameOf } from "./kill-points.ts";

/** Told with every result; more would say no more. */
const FAILURES_MAX = 10;

/** The seeds `from`, `from + step`, and so on. */
export interface RowOptions extends CourseOptions {
  readonly from: number;
  readonly step: number;
  /** How many courses; undefined: as many as simulate `hours`. */
  readonly courses?: number;
  readonly hours?: number;
}

export interface RowResult {
  readonly courses: number;
  readonly failed: number;
  readonly failures: readonly { readonly seed: number; readonly violation: string }[];
  readonly simulatedSeconds: number;
  readonly events: number;
  /** Processor seconds of the process that ran it, its start included. */
  readonly cpuSeconds: number;
  readonly kills: Readonly<Record<string, number>>;
}

export async function runRow(options: RowOptions): Promise<RowResult> {
  const { from, step, courses, hours = 0 } = options;
  const kills: Record<string, number> = noKills();
  const failures: { seed: number; violation: string }[] = [];
  const sum = { courses: 0, failed: 0, simulatedSeconds: 0, events: 0 };
  const goesOn = (): boolean =>
    courses === undefined ? sum.simulatedSeconds < hours * 3600 : sum.courses < courses;
  for (let seed = from; goesOn(); seed += step) {
    const result = await runCourse(seed, options);
    sum.courses++;
    sum.simulatedSeconds += result.simulatedSeconds;
    sum.events += result.events;
    for (const [name, count] of result.kills) kills[name] = (kills[name] ?? 0) + count;
    if (result.violation === undefined) continue;
    sum.failed++;
    if (failures.length < FAILURES_MAX) failures.push({ seed, violation: result.violation });
  }
  const { user, system } = process.cpuUsage();
  return { ...sum, failures, cpuSeconds: (user + system) / 1e6, kills };
}

export function together(rows: readonly RowResult[]): RowResult {
  const kills: Record<string, number> = noKills();
  for (const row of rows) {
    for (const [name, count] of Object.entries(row.kills)) kills[name] = (kills[name] ?? 0) + count;
  }
  const total = (key: "courses" | "failed" | "simulatedSeconds" | "events" | "cpuSeconds") =>
    rows.reduce((sum, row) => sum + row[key], 0);
  return {
    courses: total("courses"),
    failed: total("failed"),
    failures: rows.flatMap(({ failures }) => failures).sort((a, b) => a.seed - b.seed),
    simulatedSeconds: total("simulatedSeconds"),
    events: total("events"),
    cpuSeconds: total("cpuSeconds"),
    kills,
  };
}

function noKills(): Record<string, number> {
  return Object.fromEntries(KILL_POINTS.map((point) => [nameOf(point), 0]));
}

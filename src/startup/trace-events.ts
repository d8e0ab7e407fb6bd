/** A start for Perfetto (ui.perfetto.dev) and Chrome's tracing page, a row for each process. */

import type { Span } from "./spans.ts";

export interface TraceEvent {
  readonly name: string;
  readonly ph: "X" | "M";
  readonly ts: number;
  readonly pid: number;
  readonly tid: number;
  readonly [field: string]: unknown;
}

const MICROS = 1e6;

/**
 * @param label of this start; it tells several in one file apart
 * @param offset added to the processes' ids, for the same reason
 */
export function traceEvents(
  label: string,
  spans: readonly Span[],
  spawned: number,
  offset: number,
): TraceEvent[] {
  const pids = [...new Set(spans.map(({ pid }) => pid))];
  const rowOf = new Map(pids.map((pid, index) => [pid, offset + index + 1]));
  const names = pids.map(
    (pid): TraceEvent => ({
      name: "process_name",
      ph: "M",
      ts: 0,
      pid: rowOf.get(pid) ?? 0,
      tid: 0,
      args: { name: `${label}, process ${pid}` },
    }),
  );
  const events = spans.map(
    ({ name, begin, end, pid, detail }): TraceEvent => ({
      name,
      ph: "X",
      ts: (begin - spawned) * MICROS,
      dur: (end - begin) * MICROS,
      pid: rowOf.get(pid) ?? 0,
      tid: 0,
      args: detail,
    }),
  );
  return [...names, ...events];
}

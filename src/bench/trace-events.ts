/**
 * A run as a timeline for Perfetto (ui.perfetto.dev) and Chrome's tracing page: captures, batches
 * of steps, requests, and graphs and memory as counters. The Trace Event Format, in microseconds.
 */

import { MIB, micros } from "../base/units.ts";
import type { CellRun, RequestRecord } from "./samples.ts";
import { readySecondsOf } from "./windows.ts";

interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  readonly ts: number;
  readonly pid: number;
  readonly tid?: number;
  readonly [field: string]: unknown;
}

const ENGINE = 1;
const CLIENT = 2;
const CAPTURES = 1;
const STEPS = 2;
/** Rows of requests; what runs at the same time needs a row each, and is left out beyond them. */
const ROWS_MAX = 512;

export function traceEvents(run: CellRun): { readonly traceEvents: readonly TraceEvent[] } {
  const engine = run.simulated === undefined ? "engine" : `simulated engine: ${run.simulated}`;
  return {
    traceEvents: [
      named("process_name", ENGINE, undefined, `${run.cell.mode}, ${engine}`),
      named("process_name", CLIENT, undefined, "requests"),
      named("thread_name", ENGINE, CAPTURES, "captures"),
      named("thread_name", ENGINE, STEPS, "steps, by batch of telemetry"),
      {
        name: "ready",
        ph: "i",
        s: "g",
        ts: micros(readySecondsOf(run)),
        pid: ENGINE,
        tid: CAPTURES,
      },
      ...captures(run),
      ...steps(run),
      ...counters(run),
      ...requests(run.requests),
    ],
  };
}

function captures(run: CellRun): TraceEvent[] {
  let free = 0;
  return run.captures.map(({ graph, startSeconds, endSeconds, reason, whenIdle, ms, bytes }) => {
    const start = Math.min(Math.max(startSeconds, free), endSeconds);
    free = endSeconds;
    return {
      name: graph,
      cat: "capture",
      ph: "X",
      ...slice(start, endSeconds),
      pid: ENGINE,
      tid: CAPTURES,
      args: { reason, whenIdle, ms, bytes },
    };
  });
}

/** Single steps are not told: a batch's lie end to end before the moment it was told. */
function steps(run: CellRun): TraceEvent[] {
  let at = 0;
  return run.steps.flatMap(({ atSeconds, steps: batch, running, waiting }) => {
    const total = batch.reduce((sum, { seconds }) => sum + seconds, 0);
    // The one before may have been told late.
    at = Math.max(at, atSeconds - total);
    return batch.map(({ tokens, requests: inStep, served, count, seconds }) => {
      const event = {
        name: served === "" ? "ungraphed" : served,
        cat: "steps",
        ph: "X",
        ...slice(at, at + seconds),
        pid: ENGINE,
        tid: STEPS,
        args: { tokens, requests: inStep, steps: count, running, waiting },
      };
      at += seconds;
      return event;
    });
  });
}

function counters(run: CellRun): TraceEvent[] {
  return run.memory.flatMap(({ atSeconds, graphsCaptured, takenBytes }) => [
    counter("graphs captured", atSeconds, { graphs: graphsCaptured }),
    counter("graph memory, MiB", atSeconds, { MiB: takenBytes / MIB }),
  ]);
}

function counter(name: string, atSeconds: number, args: object): TraceEvent {
  return { name, ph: "C", ts: micros(atSeconds), pid: ENGINE, args };
}

function requests(all: readonly RequestRecord[]): TraceEvent[] {
  const freeAt: number[] = [];
  return all.flatMap((request) => {
    const { dueSeconds, sentSeconds, lastSeconds = sentSeconds, firstSeconds } = request;
    let row = freeAt.findIndex((seconds) => seconds <= dueSeconds);
    if (row === -1) row = freeAt.length;
    if (row === ROWS_MAX) return [];
    freeAt[row] = lastSeconds;
    const base = { ph: "X", pid: CLIENT, tid: row + 1, cat: "request" };
    const args = {
      index: request.index,
      promptTokens: request.promptTokens ?? request.promptTokensWanted,
      ...(request.failure === undefined ? {} : { failure: request.failure }),
    };
    const end = firstSeconds ?? lastSeconds;
    const waiting = {
      ...base,
      name: request.failure === undefined ? "first token" : request.failure.kind,
      ...slice(dueSeconds, end),
      args,
    };
    if (firstSeconds === undefined) return [waiting];
    const decoding = {
      ...base,
      name: "decode",
      ...slice(firstSeconds, lastSeconds),
      args: { tokens: request.outputTokens ?? request.itlMicros.length + 1 },
    };
    return [waiting, decoding];
  });
}

function named(name: string, pid: number, tid: number | undefined, text: string): TraceEvent {
  const thread = tid === undefined ? {} : { tid };
  return { name, ph: "M", ts: 0, pid, ...thread, args: { name: text } };
}

/** Ends are rounded, not lengths: Perfetto drops a slice that begins a microsecond within another. */
function slice(startSeconds: number, endSeconds: number): { ts: number; dur: number } {
  const ts = micros(startSeconds);
  return { ts, dur: micros(endSeconds) - ts };
}

/**
 * How far a start is, and how long it will take, going by past starts of the same command. Pure.
 *
 * The seconds left count from where the current phase began: how long the earlier ones took says
 * little of what is to come.
 */

import { quantile } from "../measure/statistics.ts";
import { SPAWN, UNATTRIBUTED } from "./attribute.ts";
import type { Begun, Span } from "./spans.ts";

/** What a past start tells the next one. */
export interface PastStart {
  readonly readySeconds: number;
  /** By phase, when it first began, in seconds from the spawn. */
  readonly began: Readonly<Record<string, number>>;
}

export interface Progress {
  /** What began last and hasn't ended; `unattributed` between two phases. */
  readonly phase: string;
  /** In that phase so far, at most since the spawn. */
  readonly phaseSeconds: number;
  readonly elapsedSeconds: number;
  /** Undefined where no past start tells. */
  readonly leftSeconds: number | undefined;
  readonly pastStarts: number;
}

/**
 * @param begun and `ended` on one clock with `spawned` and `now`, in seconds
 * @param past of the same command, in any order
 */
export function progressOf(
  begun: readonly Begun[],
  ended: readonly Span[],
  past: readonly PastStart[],
  { spawned, now }: { readonly spawned: number; readonly now: number },
): Progress {
  const over = new Set(ended.map(keyOf));
  const open = begun.filter((each) => !over.has(keyOf(each)) && each.begin <= now);
  // The innermost: it began last.
  const inner = latest(open, ({ begin }) => begin);
  // What ended before the spawn, as the wrapper does, is no phase of the command.
  const last = latest(
    ended.filter(({ end }) => end > spawned),
    ({ end }) => end,
  );
  const since = inner?.begin ?? last?.end ?? spawned;
  // Between two phases past starts are asked by the one that ended last.
  const known = inner ?? last;
  const first = known === undefined ? spawned : firstBegin(begun, ended, known.name);
  const left = past.flatMap(({ readySeconds, began }) => {
    const at = known === undefined ? 0 : began[known.name];
    return at === undefined ? [] : [readySeconds - at - (now - first)];
  });
  const estimate = left.length === 0 ? undefined : Math.max(0, quantile(left, 0.5));
  return {
    phase: inner?.name ?? (last === undefined ? SPAWN : UNATTRIBUTED),
    phaseSeconds: Math.max(0, now - Math.max(since, spawned)),
    elapsedSeconds: Math.max(0, now - spawned),
    leftSeconds: estimate,
    pastStarts: past.length,
  };
}

/**
 * What `?until=` may name: the phases that the plugin times, and that of a process's imports. The
 * wrapper's has ended before a start is watched.
 */
export const START_PHASES: readonly string[] = [
  "imports",
  "config",
  "engine client",
  "tokenizer",
  "engine core",
  "executor",
  "worker",
  "device",
  "distributed",
  "model runner",
  "weights",
  "memory and KV cache",
  "memory sizing",
  "profile run",
  "graph profiling",
  "compile",
  "Inductor",
  "load compiled",
  "KV cache",
  "warm-up",
  "kernel warm-up",
  "warm-up requests",
  "captures",
  "Inductor patterns",
  "JIT monitor",
  "garbage",
  "JIT",
  "API server",
];

/** Whether a phase has begun and none of it is under way, in any process. */
export function hasPassed(begun: readonly Begun[], ended: readonly Span[], phase: string): boolean {
  const over = new Set(ended.map(keyOf));
  const own = begun.filter(({ name }) => name === phase);
  const some = own.length > 0 || ended.some(({ name }) => name === phase);
  return some && own.every((each) => over.has(keyOf(each)));
}

/** What this start tells the next ones. */
export function pastStart(spans: readonly Span[], spawned: number, ready: number): PastStart {
  const began: Record<string, number> = {};
  for (const { name, begin } of spans) {
    const at = Math.max(0, begin - spawned);
    began[name] = Math.min(began[name] ?? at, at);
  }
  return { readySeconds: ready - spawned, began };
}

/** What tells one phase of one process from all others. */
export function keyOf({ pid, name, begin }: Begun): string {
  return `${pid} ${begin} ${name}`;
}

/** Of a phase of which there is some. */
function firstBegin(begun: readonly Begun[], ended: readonly Span[], phase: string): number {
  const own = [...begun, ...ended].filter(({ name }) => name === phase);
  return Math.min(...own.map(({ begin }) => begin));
}

function latest<T>(all: readonly T[], at: (each: T) => number): T | undefined {
  let found: T | undefined;
  for (const each of all) if (found === undefined || at(each) >= at(found)) found = each;
  return found;
}

/**
 * How far a start is, and how long it will take, going by past starts of the same command. Pure.
 *
 * The seconds left are counted from where the phase of the moment began: what came before may have
 * taken longer or shorter than usual, and says little of what is to come.
 */

import { quantile } from "../measure/statistics.ts";
import { SPAWN } from "./attribute.ts";
import type { Begun, Span } from "./spans.ts";

/** What a past start tells the next one. */
export interface PastStart {
  readonly readySeconds: number;
  /** By phase, when it first began, in seconds from the spawn. */
  readonly began: Readonly<Record<string, number>>;
}

export interface Progress {
  readonly phase: string;
  /** In that phase so far. */
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
  // The innermost: it began last. Between two phases the one that ended last is still the best word.
  const inner = latest(open, ({ begin }) => begin) ?? latest(ended, ({ end }) => end);
  const phase = inner?.name ?? SPAWN;
  const first = firstBegin(begun, ended, phase) ?? spawned;
  const left = past.flatMap(({ readySeconds, began }) => {
    const at = phase === SPAWN ? 0 : began[phase];
    return at === undefined ? [] : [readySeconds - at - (now - first)];
  });
  const estimate = left.length === 0 ? undefined : Math.max(0, quantile(left, 0.5));
  return {
    phase,
    phaseSeconds: Math.max(0, now - (inner?.begin ?? spawned)),
    elapsedSeconds: Math.max(0, now - spawned),
    leftSeconds: estimate,
    pastStarts: past.length,
  };
}

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

function keyOf({ pid, name, begin }: Begun): string {
  return `${pid} ${begin} ${name}`;
}

function firstBegin(
  begun: readonly Begun[],
  ended: readonly Span[],
  phase: string,
): number | undefined {
  const own = [...begun, ...ended].filter(({ name }) => name === phase);
  return own.length === 0 ? undefined : Math.min(...own.map(({ begin }) => begin));
}

function latest<T>(all: readonly T[], at: (each: T) => number): T | undefined {
  let found: T | undefined;
  for (const each of all) if (found === undefined || at(each) >= at(found)) found = each;
  return found;
}

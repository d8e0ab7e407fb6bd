/**
 * Which phase each moment of a start belongs to. Pure.
 *
 * Phases lie inside each other, also across processes: the API server waits for its engine, which
 * waits for its ranks. A moment belongs to the phase that began last, so the sum is the whole time,
 * and what no phase covers is a line of its own.
 */

import type { Span } from "./spans.ts";

export const UNATTRIBUTED = "unattributed";
export const SPAWN = "spawn";

/** A stretch of time, in seconds from the spawn. */
export interface Segment {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
}

export interface PhaseTime {
  readonly name: string;
  readonly seconds: number;
}

/**
 * Segments without gaps from the spawn to ready.
 *
 * @param spans of all processes
 * @param spawned when the command was spawned, on the spans' clock
 * @param ready when the server first answered, on the spans' clock
 */
export function segments(spans: readonly Span[], spawned: number, ready: number): Segment[] {
  const inside = spans
    .filter(({ begin, end }) => end > spawned && begin < ready)
    .map(({ name, begin, end }) => ({
      name,
      begin: Math.max(begin, spawned),
      end: Math.min(end, ready),
    }))
    .sort((a, b) => a.begin - b.begin || b.end - a.end);
  const first = inside[0];
  const all: Segment[] =
    first === undefined || first.begin === spawned
      ? inside
      : [{ name: SPAWN, begin: spawned, end: first.begin }, ...inside];
  const moments = [...new Set([spawned, ready, ...all.flatMap(({ begin, end }) => [begin, end])])];
  moments.sort((a, b) => a - b);
  const found: Segment[] = [];
  // In the order in which they began; the last one that hasn't ended is the innermost.
  let active: Segment[] = [];
  let next = 0;
  for (const [index, begin] of moments.slice(0, -1).entries()) {
    const end = moments[index + 1] as number;
    active = active.filter((span) => span.end > begin);
    for (let span = all[next]; span !== undefined && span.begin <= begin; span = all[++next]) {
      if (span.end > begin) active.push(span);
    }
    const name = active.at(-1)?.name ?? UNATTRIBUTED;
    const last = found.at(-1);
    const piece = { name, begin: begin - spawned, end: end - spawned };
    if (last?.name === name) found[found.length - 1] = { ...last, end: piece.end };
    else found.push(piece);
  }
  return found;
}

/** Seconds by phase, in the order in which they first appear; what none covers comes last. */
export function phaseTimes(pieces: readonly Segment[]): PhaseTime[] {
  const seconds = new Map<string, number>();
  for (const { name, begin, end } of pieces) {
    seconds.set(name, (seconds.get(name) ?? 0) + end - begin);
  }
  const rest = seconds.get(UNATTRIBUTED) ?? 0;
  seconds.delete(UNATTRIBUTED);
  seconds.set(UNATTRIBUTED, rest);
  return [...seconds].map(([name, sum]) => ({ name, seconds: sum }));
}

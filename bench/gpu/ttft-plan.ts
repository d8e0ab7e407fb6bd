/** Which cell of the matrix a lane takes next, and how long cells and the whole matrix take. Pure. */

import type { RunHead } from "../../src/bench/samples.ts";
import type { BenchSpec, CellName } from "../../src/bench/spec.ts";

/** Answers to their end, the last telemetry, and the engine's end. */
const TAIL_SECONDS = 12;

/**
 * Seconds that a cell will take.
 *
 * @param startSeconds from the spawn of an engine to ready
 * @param past complete runs, of which those of the same cell say it better
 */
export function cellSeconds(
  spec: Pick<BenchSpec, "loads">,
  cell: CellName,
  startSeconds: number,
  past: readonly RunHead[] = [],
): number {
  const known = past.flatMap((head) =>
    head.cell.mode === cell.mode && head.cell.load === cell.load
      ? (head.times.endSeconds ?? [])
      : [],
  );
  if (known.length > 0) return Math.max(...known) + TAIL_SECONDS;
  const { seconds = 0, start } = spec.loads[cell.load] ?? {};
  const until = start === "spawn" ? Math.max(startSeconds, seconds) : startSeconds + seconds;
  return until + TAIL_SECONDS;
}

/** Seconds after which a cell is stopped: what its own limits allow, and some for its end. */
export function cellSecondsMax(
  spec: Pick<BenchSpec, "loads" | "readySecondsMax" | "requestSecondsMax">,
  cell: CellName,
): number {
  const { seconds = 0 } = spec.loads[cell.load] ?? {};
  return spec.readySecondsMax + seconds + spec.requestSecondsMax + 60;
}

/** How far ahead of its turn a cell may come. */
const AHEAD = 4;

/**
 * Of the next few cells that are over before the time is, the first that this GPU has run least:
 * else two modes of equal length would each keep the GPU they started on, and its ways.
 *
 * @param runsHere complete runs of this mode and load on this GPU
 */
export function nextCell(
  open: readonly CellName[],
  secondsLeft: number,
  secondsOf: (cell: CellName) => number,
  runsHere: (cell: CellName) => number = () => 0,
): CellName | undefined {
  const fits = open.filter((cell) => secondsOf(cell) <= secondsLeft).slice(0, AHEAD);
  const least = Math.min(...fits.map(runsHere));
  return fits.find((cell) => runsHere(cell) === least);
}

/** Seconds until the last lane is done, each taking the next cell as soon as it is free. */
export function matrixSeconds(
  cells: readonly CellName[],
  lanes: number,
  secondsOf: (cell: CellName) => number,
): number {
  const busyUntil = Array.from({ length: lanes }, () => 0);
  for (const cell of cells) {
    const first = busyUntil.indexOf(Math.min(...busyUntil));
    busyUntil[first] = (busyUntil[first] ?? 0) + secondsOf(cell);
  }
  return Math.max(0, ...busyUntil);
}

/** `0-3,8` as numbers. */
export function coresOf(list: string): number[] {
  return list
    .trim()
    .split(",")
    .filter((part) => part !== "")
    .flatMap((part) => {
      const [from = Number.NaN, to = from] = part.split("-").map(Number);
      return Array.from({ length: to - from + 1 }, (_, index) => from + index);
    });
}

/** The cores of each lane: neighbours together, since these share caches and memory. */
export function coreShares(cores: readonly number[], lanes: number): number[][] {
  const each = Math.floor(cores.length / lanes);
  return Array.from({ length: lanes }, (_, lane) => cores.slice(lane * each, (lane + 1) * each));
}

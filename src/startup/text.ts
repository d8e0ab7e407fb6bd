/** A start as text: a line for each phase with its seconds and where they lie. */

import { counted } from "../base/counted.ts";
import { GIB } from "../base/units.ts";
import { mean } from "../measure/statistics.ts";
import type { Segment } from "./attribute.ts";
import { differences, type StartResult, unattributedSeconds } from "./start.ts";

const BAR_CHARS = 44;
const DIFFERENCES_MAX = 6;
/** Smaller ones are told in the file alone. */
const SECONDS_SHOWN_MIN = 0.005;

export function waterfall(result: StartResult): string {
  const { variant, run, readySeconds, firstTokenSeconds, phases, segments, weights } = result;
  const width = Math.max(...phases.map(({ name }) => name.length));
  const simulated = result.simulated ? " (simulated engine: no figures of a GPU)" : "";
  const lines = phases
    .filter(({ name, seconds }) => seconds >= SECONDS_SHOWN_MIN || name === "unattributed")
    .map(({ name, seconds }) => {
      const pieces = segments.filter((piece) => piece.name === name);
      return `  ${name.padEnd(width)}  ${seconds.toFixed(2).padStart(7)}  ${bar(pieces, readySeconds)}`;
    });
  const loaded =
    weights === undefined
      ? []
      : [`  weights: ${(weights.bytes / GIB).toFixed(2)} GiB by ${weights.loader}`];
  const share = (100 * unattributedSeconds(result)) / readySeconds;
  return [
    `${variant}, start ${run}: ready ${readySeconds.toFixed(2)} s after the spawn, first token ` +
      `after ${firstTokenSeconds.toFixed(2)} s${simulated}`,
    ...lines,
    ...loaded,
    `  ${counted(result.spans, "span")} of ${counted(result.processes, "process")}; ${share.toFixed(1)}% unattributed`,
  ].join("\n");
}

function bar(pieces: readonly Segment[], whole: number): string {
  const cells = Array.from({ length: BAR_CHARS }, () => "·");
  for (const { begin, end } of pieces) {
    const from = Math.min(BAR_CHARS - 1, Math.floor((begin / whole) * BAR_CHARS));
    const to = Math.max(from + 1, Math.round((end / whole) * BAR_CHARS));
    cells.fill("█", from, Math.min(BAR_CHARS, to));
  }
  return cells.join("");
}

function over(other: number, base: number): string {
  if (other === 1 && base === 1) return "one start each";
  if (other === base) return `means of ${other} starts each`;
  return `means of ${counted(other, "start")} and ${base}`;
}

/** How a variant differs from the first one, by phase. */
export function comparison(base: readonly StartResult[], other: readonly StartResult[]): string {
  const name = other[0]?.variant ?? "";
  const lines = differences(base, other)
    .slice(0, DIFFERENCES_MAX)
    .filter((each) => Math.abs(each.other - each.base) >= SECONDS_SHOWN_MIN)
    .map((each) => {
      const gained = each.other - each.base;
      const sign = gained < 0 ? "−" : "+";
      return (
        `  ${sign}${Math.abs(gained).toFixed(2)} s ${each.name}: ` +
        `${each.base.toFixed(2)} → ${each.other.toFixed(2)}`
      );
    });
  const pick = (results: readonly StartResult[]): string =>
    `${mean(results.map(({ firstTokenSeconds }) => firstTokenSeconds)).toFixed(2)} s`;
  return [
    `${name} against ${base[0]?.variant}: first token after ${pick(other)} in place of ` +
      `${pick(base)} (${over(other.length, base.length)})`,
    ...lines,
  ].join("\n");
}

/** Starts as one HTML file, in the form of the benchmark's report: what they came to, and each. */

import { counted } from "../base/counted.ts";
import { GIB } from "../base/units.ts";
import type { Estimate } from "../bench/bootstrap.ts";
import { columnHead, pageOf, table, text, wide } from "../bench/page.ts";
import { mean } from "../measure/statistics.ts";
import { UNATTRIBUTED } from "../startup/attribute.ts";
import { meanSeconds, type StartResult, unattributedSeconds } from "../startup/start.ts";
import type { StartupDocument } from "./startup-document.ts";

const PALETTE = 8;
/** More of what hardly any time goes into would make a picture nobody can read. */
const SHARE_SHOWN_MIN = 0.002;
/** Each has a picture; a comparison of many variants has its table. */
const STARTS_SHOWN = 64;
const STYLE = `
.spans { width: 100%; border-collapse: collapse; table-layout: fixed; }
.spans th:first-child { width: 12rem; }
.spans th:nth-child(2) { width: 5.5rem; }
.spans th:nth-child(3), .spans td:nth-child(3) { text-align: left; }
.wide { margin-top: 0.75rem; }
.spans svg { display: block; width: 100%; height: 1.1rem; background: var(--raised); }
.spans td { padding: 0.15rem 0.5rem; }
@media (max-width: 48rem) { .spans th:first-child { width: 7rem; white-space: normal; } }
`;

export function startupPage(document: StartupDocument, madeAt: string): string {
  const { starts, variants, simulated, failures, left } = document;
  const names = variants
    .map(({ name }) => name)
    .filter((name) => starts.some((start) => start.variant === name));
  const phases = phasesOf(starts);
  const colours = new Map(phases.map((phase, index) => [phase, index % PALETTE]));
  const cautions = [
    ...(simulated ? ["Simulated engines: no figures of a GPU."] : []),
    ...failures.map(({ variant, run, error }) => `${variant}, start ${run} failed: ${error}`),
    ...(left > 0 ? [`${counted(left, "start")} left out: there was no time.`] : []),
    ...starts
      .filter(({ spans }) => spans === 0)
      .map(({ variant, run }) => `${variant}, start ${run}: nothing was timed.`),
  ];
  return pageOf({
    title: `Where ${starts.length === 1 ? "a start goes" : `${starts.length} starts go`}`,
    cautions,
    style: STYLE,
    plots: [],
    body: [
      glance(document, names),
      meansOf(starts, names, phases, colours),
      ...starts.slice(0, STARTS_SHOWN).map((start) => startSection(start, colours)),
      how(document, madeAt),
    ].join("\n"),
  });
}

/** In the order in which they come; what no phase covers is the last. */
function phasesOf(starts: readonly StartResult[]): string[] {
  const all = new Set(starts.flatMap(({ phases }) => phases.map(({ name }) => name)));
  all.delete(UNATTRIBUTED);
  return [...all, UNATTRIBUTED];
}

function glance({ starts, summary }: StartupDocument, names: readonly string[]): string {
  const base = starts.filter(({ variant }) => variant === names[0]);
  const rows = names.map((name): string[] => {
    const own = starts.filter(({ variant }) => variant === name);
    const known = summary.find((each) => each.name === name);
    const of = (pick: (start: StartResult) => number): number => mean(own.map(pick));
    const first = of(({ firstTokenSeconds }) => firstTokenSeconds);
    const share = first / mean(base.map(({ firstTokenSeconds }) => firstTokenSeconds));
    return [
      name,
      String(own.length),
      secondsText(
        of(({ readySeconds }) => readySeconds),
        known?.readySeconds,
      ),
      secondsText(first, known?.firstTokenSeconds),
      name === names[0] ? "–" : share.toFixed(2),
      `${(100 * of((start) => unattributedSeconds(start) / start.readySeconds)).toFixed(1)}%`,
    ];
  });
  const head = ["variant", "starts", "ready, s", "first token, s", "of the first", "in no phase"];
  return `<section aria-label="At a glance"><h2>At a glance</h2>
<p class="muted">Seconds after the spawn, means of all starts; in brackets 95% intervals, from three starts on.</p>
${table({ head, rows }, "At a glance")}</section>`;
}

function secondsText(value: number, interval: Estimate | undefined): string {
  const told = `${value.toFixed(2)}`;
  if (interval === undefined) return told;
  return `${told} (${interval.low.toFixed(2)}–${interval.high.toFixed(2)})`;
}

/** One bar for each variant, all on one scale, and the seconds behind it. */
function meansOf(
  starts: readonly StartResult[],
  names: readonly string[],
  phases: readonly string[],
  colours: ReadonlyMap<string, number>,
): string {
  const own = new Map(
    names.map((name) => [name, starts.filter(({ variant }) => variant === name)]),
  );
  const whole = Math.max(
    ...[...own.values()].map((each) => mean(each.map(({ readySeconds }) => readySeconds))),
  );
  const bars = [...own].map(([name, each]) => {
    let at = 0;
    const pieces = phases.map((phase) => {
      const seconds = meanSeconds(each, phase);
      at += seconds;
      return { name: phase, begin: at - seconds, end: at };
    });
    return barRow(name, at, pieces, whole, colours);
  });
  const rows = phases.map((phase) => [
    phase,
    ...[...own.values()].map((each) => meanSeconds(each, phase).toFixed(2)),
  ]);
  const keys = phases.map(
    (phase) =>
      `<li><svg viewBox="0 0 32 12" aria-hidden="true"><rect width="32" height="12" fill="var(--c${colours.get(phase)})"/></svg>${text(phase)}</li>`,
  );
  return `<section aria-label="Phases"><h2>Phases</h2>
<ul class="keys">${keys.join("")}</ul>
${barTable(["variant", "seconds", "from the spawn to ready"], bars, "Phases of each variant")}
${table({ head: ["phase, mean seconds", ...names], rows }, "Seconds by phase")}</section>`;
}

interface Piece {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
}

function startSection(start: StartResult, colours: ReadonlyMap<string, number>): string {
  const { variant, run, readySeconds, segments, phases, weights } = start;
  const rows = phases
    .filter(({ seconds }) => seconds >= readySeconds * SHARE_SHOWN_MIN)
    .map(({ name, seconds }) => {
      const pieces = segments.filter((segment) => segment.name === name);
      return barRow(name, seconds, pieces, readySeconds, colours);
    });
  const loaded =
    weights === undefined
      ? ""
      : ` ${(weights.bytes / GIB).toFixed(2)} GiB of weights by ${weights.loader}.`;
  const title = `${variant}, start ${run}`;
  return `<section aria-label="${text(title)}"><h2>${text(title)}</h2>
<p class="muted">Ready ${readySeconds.toFixed(2)} s after the spawn, first token after ${start.firstTokenSeconds.toFixed(2)} s. ${counted(start.spans, "span")} of ${counted(start.processes, "process")}.${text(loaded)}</p>
${barTable(["phase", "seconds", "from the spawn to ready"], rows, title)}</section>`;
}

function barTable(head: readonly string[], rows: readonly string[], label: string): string {
  return wide(
    `<table class="spans"><thead><tr>${head.map(columnHead).join("")}</tr></thead><tbody>${rows.join("")}</tbody></table>`,
    label,
  );
}

function barRow(
  name: string,
  seconds: number,
  pieces: readonly Piece[],
  whole: number,
  colours: ReadonlyMap<string, number>,
): string {
  const rects = pieces
    .filter(({ begin, end }) => end > begin)
    .map(({ name: phase, begin, end }) => {
      const [x, width] = [(1000 * begin) / whole, (1000 * (end - begin)) / whole];
      const told = `${phase}: ${begin.toFixed(2)} to ${end.toFixed(2)} s`;
      return `<rect x="${x.toFixed(1)}" width="${Math.max(width, 1).toFixed(1)}" height="10" fill="var(--c${colours.get(phase) ?? 0})"><title>${text(told)}</title></rect>`;
    });
  return `<tr><th scope="row">${text(name)}</th><td>${seconds.toFixed(2)}</td><td><svg viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="${text(name)}">${rects.join("")}</svg></td></tr>`;
}

function how({ variants, lazygraph }: StartupDocument, madeAt: string): string {
  const rows = variants.map(({ name, command, prepare }) => [
    name,
    command.join(" "),
    prepare ?? "–",
  ]);
  return `<section aria-label="How it was run"><h2>How it was run</h2>
<p>By <code>lazygraph startup</code> ${text(lazygraph)}, variants in turns. A moment belongs to the phase that began last, in whichever process, so the phases of a start add up to its time until ready. Made ${text(madeAt)}.</p>
${table({ head: ["variant", "command", "prepared by"], rows }, "Commands")}</section>`;
}

/** What must stand beside every table of a report. Pure text. */

import { printable } from "../base/printable.ts";
import { isDisturbed, LATE_MS } from "./disturbed.ts";
import { failuresText, numberText, whole } from "./rows.ts";
import type { RunFigures } from "./run-figures.ts";
import type { ModeFigures, Summary } from "./summary.ts";

const NAMED_MAX = 5;
/** Of what a server said. */
const DETAIL_CHARS_MAX = 160;
/** Answers of fewer tokens than this share of what was asked for make another load. */
const OUTPUT_RATIO_LEAST = 0.99;

interface NamedRun {
  readonly run: RunFigures;
  readonly name: string;
}

export function cautions(summary: Summary): string[] {
  const runs = summary.cells.flatMap(({ mode, load, runs }) =>
    runs.map((run) => ({ run, name: `${mode}, ${load}, run ${run.run}` })),
  );
  return [
    simulatedNote(summary.cells),
    partialNote(runs),
    failedNote(summary),
    lateNote(runs),
    shortNote(runs),
    resentNote(runs),
  ].filter((note) => note !== undefined);
}

/** Which figures no GPU had a part in: one report may have modes of both kinds. */
export function simulatedNote(
  cells: readonly { readonly mode: string; readonly simulated?: string | undefined }[],
): string | undefined {
  const found = cells.filter(({ simulated }) => simulated !== undefined);
  if (found.length === 0) return undefined;
  const profiles = [...new Set(found.map(({ simulated }) => simulated))].join("; ");
  const modes = [...new Set(found.map(({ mode }) => mode))].join(", ");
  const [which, rest] =
    found.length === cells.length ? ["", ""] : [` for ${modes}`, "; the other modes are measured"];
  return `SIMULATED: no GPU was used${which}; times come from a cost profile (${profiles})${rest}.`;
}

function partialNote(runs: readonly NamedRun[]): string | undefined {
  const why = runs.flatMap(({ run, name }) =>
    run.status === "partial" ? [`${name}: ${run.reason ?? "no reason was kept."}`] : [],
  );
  return why.length === 0 ? undefined : `PARTIAL: not every run ended as planned. ${listed(why)}`;
}

function failedNote({ cells }: Summary): string | undefined {
  const why = cells.flatMap((cell) => {
    const failed = failuresText(cell);
    const asked = cell.runs.reduce((sum, { requests }) => sum + requests, 0);
    if (failed === "0") return [];
    return [`${cell.mode}, ${cell.load}: ${failed} of ${whole(asked)}.${reasonsText(cell)}`];
  });
  if (why.length === 0) return undefined;
  return `FAILED: not every request was completed; figures are of those that were. ${listed(why)}`;
}

/** What the first failure of each kind was told: without it nobody knows what to do. */
function reasonsText({ runs }: ModeFigures): string {
  const first = new Map<string, string>();
  for (const { failureDetails = {} } of runs) {
    for (const [kind, detail] of Object.entries(failureDetails)) {
      if (!first.has(kind)) first.set(kind, printable(detail.trim(), DETAIL_CHARS_MAX));
    }
  }
  return [...first]
    .map(([kind, detail]) => ` First ${kind}: ${detail.replace(/[\s.]+$/, "")}.`)
    .join("");
}

function lateNote(runs: readonly NamedRun[]): string | undefined {
  const late = runs.flatMap(({ run, name }) =>
    isDisturbed(run) ? [`${name}: ${numberText(run.generatorLateP99Ms)} ms.`] : [],
  );
  if (late.length === 0) return undefined;
  return (
    "TOO BUSY: the host was too busy: figures of these runs are not the engine's, and no ratio " +
    `is told of them. The generator sent requests more than ${LATE_MS} ms late at p99. ${listed(late)}`
  );
}

function shortNote(runs: readonly NamedRun[]): string | undefined {
  const short = runs.flatMap(({ run, name }) => {
    const ratio = run.outputTokensRatio?.mean ?? 1;
    return ratio < OUTPUT_RATIO_LEAST ? [`${name}: ${numberText(ratio * 100)}%.`] : [];
  });
  if (short.length === 0) return undefined;
  return `SHORT: answers had fewer tokens than were asked for. ${listed(short)}`;
}

function resentNote(runs: readonly NamedRun[]): string | undefined {
  const again = runs.flatMap(({ run, name }) =>
    run.resent === undefined ? [] : [`${name}: ${run.resent}.`],
  );
  if (again.length === 0) return undefined;
  const why = "requests went out twice, because the server had closed idle connections";
  return `RESENT: ${why}. ${listed(again)}`;
}

function listed(sentences: readonly string[]): string {
  const more = sentences.length - NAMED_MAX;
  const rest = more > 0 ? [`And ${more} more.`] : [];
  return [...sentences.slice(0, NAMED_MAX), ...rest].join(" ");
}

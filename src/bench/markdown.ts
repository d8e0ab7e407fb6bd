/** The report's tables as Markdown, one for each load. */

import { cautions } from "./cautions.ts";
import { conclusions } from "./conclusion.ts";
import { type GlanceLoad, glanceOf, loadsOf } from "./glance.ts";
import { explanation, rowGroups } from "./rows.ts";
import { runTable } from "./run-table.ts";
import type { Summary } from "./summary.ts";

export function markdownOf(summary: Summary): string {
  const parts = loadsOf(summary.cells).map((load) => {
    const cells = summary.cells.filter((cell) => cell.load === load);
    const header = ["", ...cells.map(({ mode }) => mode)];
    const rows = rowGroups(cells).flatMap(({ title, rows: own }) => [
      [`**${title}**`, ...cells.map(() => "")],
      ...own.map((row) => [row.title, ...row.cells]),
    ]);
    const runs = runTable(cells);
    const each = runs === undefined ? "" : `\n\nRun by run:\n\n${table(runs.head, runs.rows)}`;
    return `## ${text(load)}\n\n${table(header, rows)}${each}`;
  });
  const glance = ["## At a glance", ...glanceOf(summary).flatMap(glanceTables)];
  const said = conclusions(summary).map((sentence) => `- ${text(sentence)}`);
  const conclusion = said.length === 0 ? [] : [said.join("\n")];
  const notes = cautions(summary).map((note) => `**${text(note)}**`);
  const explained = explanation(summary);
  const head = [`# ${text(summary.title)}`, ...notes, ...conclusion];
  return `${[...head, ...glance, explained, ...parts].join("\n\n")}\n`;
}

function glanceTables({ load, tables }: GlanceLoad): string[] {
  return tables.map(({ modes, rows }) =>
    table(
      [load, ...modes],
      rows.map((row) => [row.title, ...row.cells]),
    ),
  );
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, head.map((_, index) => (index === 0 ? "---" : "--:")), ...rows];
  return lines.map((line) => `| ${line.map(text).join(" | ")} |`).join("\n");
}

function text(value: string): string {
  return value.replaceAll("|", "\\|").replaceAll(/\s*\n\s*/g, " ");
}

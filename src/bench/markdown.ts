/** The report's tables as Markdown, one for each load. */

import { type Glance, glanceOf, loadsOf } from "./glance.ts";
import { cautions, explanation, rowGroups } from "./rows.ts";
import type { Summary } from "./summary.ts";

export function markdownOf(summary: Summary): string {
  const parts = loadsOf(summary.cells).map((load) => {
    const cells = summary.cells.filter((cell) => cell.load === load);
    const header = ["", ...cells.map(({ mode }) => mode)];
    const rows = rowGroups(cells).flatMap(({ title, rows: own }) => [
      [`**${title}**`, ...cells.map(() => "")],
      ...own.map((row) => [row.title, ...row.cells]),
    ]);
    return `## ${text(load)}\n\n${table(header, rows)}`;
  });
  const glance = `## At a glance\n\n${glanceTable(glanceOf(summary))}`;
  const notes = cautions(summary).map((note) => `**${text(note)}**`);
  const explained = explanation(summary);
  return `${[`# ${text(summary.title)}`, ...notes, explained, glance, ...parts].join("\n\n")}\n`;
}

function glanceTable({ head, loads }: Glance): string {
  const rows = loads.flatMap(({ load, rows: own }) => [
    [`**${load}**`, ...head.slice(1).map(() => "")],
    ...own,
  ]);
  return table(head, rows);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, head.map((_, index) => (index === 0 ? "---" : "--:")), ...rows];
  return lines.map((line) => `| ${line.map(text).join(" | ")} |`).join("\n");
}

function text(value: string): string {
  return value.replaceAll("|", "\\|").replaceAll(/\s*\n\s*/g, " ");
}

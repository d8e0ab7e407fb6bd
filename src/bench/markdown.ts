/** The report's tables as Markdown, one for each load. */

import { cautions, rowGroups } from "./rows.ts";
import type { Summary } from "./summary.ts";

export function markdownOf(summary: Summary): string {
  const loads = [...new Set(summary.cells.map(({ load }) => load))];
  const parts = loads.map((load) => {
    const cells = summary.cells.filter((cell) => cell.load === load);
    const header = ["", ...cells.map(({ mode }) => mode)];
    const rows = rowGroups(cells).flatMap(({ title, rows: own }) => [
      [`**${title}**`, ...cells.map(() => "")],
      ...own.map((row) => [row.title, ...row.cells]),
    ]);
    const lines = [header, header.map((_, index) => (index === 0 ? "---" : "--:")), ...rows];
    return `## ${text(load)}\n\n${lines.map((line) => `| ${line.map(text).join(" | ")} |`).join("\n")}`;
  });
  const notes = cautions(summary).map((note) => `**${text(note)}**`);
  const explained =
    "In brackets: 95% bootstrap intervals, of quantiles over runs and requests, of the rest over " +
    "runs. Figures without one are pooled over all runs.";
  return `${[`# ${text(summary.title)}`, ...notes, explained, ...parts].join("\n\n")}\n`;
}

function text(value: string): string {
  return value.replaceAll("|", "\\|").replaceAll(/\s*\n\s*/g, " ");
}

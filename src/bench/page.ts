/** A page that needs no network: its style and script, and the parts that reports are made of. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { PlotTable } from "./plots.ts";

export interface Page {
  readonly title: string;
  /** What a reader has to know before anything else. */
  readonly cautions: readonly string[];
  /** HTML of the page's main part. */
  readonly body: string;
  /** What the page's script draws with uPlot, by the numbers in `body`. */
  readonly plots: readonly object[];
  /** Further style, for what this report alone has. */
  readonly style?: string;
}

const PAGE = new URL("../../report/", import.meta.url);

export function pageOf({ title, cautions, body, plots, style: more = "" }: Page): string {
  const { script, style, licence } = library();
  return `<!doctype html>
<html lang="en" data-scheme="light">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>${text(title)}</title>
<style>
/*! uPlot
${licence}
*/
${style}
${readPage("page.css")}${more}
</style>
</head>
<body>
<header><h1>${text(title)}</h1><button id="scheme" type="button" hidden>Colours</button></header>
${cautions.map((note) => `<p class="caution">${text(note)}</p>`).join("\n")}
<main>
${body}
</main>
<script type="application/json" id="plots">${json(plots)}</script>
<script>
/*! uPlot
${licence}
*/
${script}
</script>
<script>
${readPage("page.js")}
</script>
</body>
</html>
`;
}

export function table({ head, rows }: PlotTable, label: string): string {
  const first = head.map(columnHead).join("");
  const body = rows.map(bodyRow).join("");
  return wide(`<table><thead><tr>${first}</tr></thead><tbody>${body}</tbody></table>`, label);
}

export function columnHead(title: string): string {
  return `<th scope="col">${text(title)}</th>`;
}

/** The first cell names the row. */
export function bodyRow([name = "", ...cells]: readonly string[]): string {
  return `<tr><th scope="row">${text(name)}</th>${cells.map((c) => `<td>${text(c)}</td>`).join("")}</tr>`;
}

/** Scrolls by itself; with a tab stop, so that a keyboard can scroll it too. */
export function wide(content: string, label: string): string {
  return `<div class="wide" tabindex="0" role="region" aria-label="${text(label)}">${content}</div>`;
}

export function text(value: string): string {
  const entities: Readonly<Record<string, string>> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return value.replaceAll(/[&<>"']/g, (char) => entities[char] ?? char);
}

/** No text in it can end the script element. */
function json(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}

function readPage(name: string): string {
  return readFileSync(new URL(name, PAGE), "utf8");
}

function library(): { readonly script: string; readonly style: string; readonly licence: string } {
  const script = createRequire(import.meta.url).resolve("uplot/dist/uPlot.iife.min.js");
  const folder = dirname(script);
  return {
    script: readFileSync(script, "utf8"),
    style: readFileSync(join(folder, "uPlot.min.css"), "utf8"),
    licence: readFileSync(join(folder, "..", "LICENSE"), "utf8").trim(),
  };
}

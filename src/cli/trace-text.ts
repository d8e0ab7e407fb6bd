/** What `lazygraph trace inspect` says of a trace, as text and as a document. */

import { counted } from "../base/counted.ts";
import type { SkipCounts } from "../trace/skips.ts";
import type { LengthSummary, TraceSummary } from "../trace/summary.ts";
import type { TraceAbout } from "../trace/trace.ts";

export function summaryText(file: string, about: TraceAbout, summary: TraceSummary): string {
  const { requests, seconds, requestsPerSecond, busiestMinute, prefixes } = summary;
  const rate = requestsPerSecond === undefined ? "" : `, ${requestsPerSecond.toFixed(2)} a second`;
  const lines = [
    `${file}: ${about.format}, ${counted(requests, "request", whole(requests))} in ${seconds.toFixed(1)} s${rate}; ` +
      `${whole(busiestMinute)} in the busiest minute`,
    row("", ["total", "mean", "p50", "p90", "p99", "max"]),
    row("prompt tokens", figures(summary.promptTokens)),
    row("output tokens", figures(summary.outputTokens)),
  ];
  if (prefixes !== undefined) {
    lines.push(
      `${counted(prefixes.blocks, "block", whole(prefixes.blocks))} of ${about.blockTokens} tokens, ` +
        `${whole(prefixes.distinctBlocks)} of them distinct; an endless prefix cache would hold ` +
        `${(prefixes.reusedShare * 100).toFixed(1)}% when they come`,
    );
  }
  return lines.join("\n");
}

export function summaryDocument(
  file: string,
  about: TraceAbout,
  summary: TraceSummary,
  skipped: SkipCounts,
): object {
  return { file, ...about, ...summary, skipped: skipped.counts() };
}

function figures({ total, mean, p50, p90, p99, max }: LengthSummary): readonly string[] {
  return [whole(total), ...[mean, p50, p90, p99, max].map((tokens) => whole(Math.round(tokens)))];
}

function row(name: string, cells: readonly string[]): string {
  const [total = "", ...rest] = cells;
  return `  ${name.padEnd(14)}${total.padStart(14)}${rest.map((cell) => cell.padStart(9)).join("")}`;
}

function whole(value: number): string {
  return value.toLocaleString("en-US");
}

/** The tables of `run` and `status`. Pure: a snapshot in, text out. */

import Table from "cli-table3";
import { printable } from "../base/printable.ts";
import { MIB } from "../base/units.ts";
import type { EngineSnapshot, GraphSnapshot } from "../engine/snapshot.ts";
import { LIMITS } from "../wire/protocol.ts";

/** A sentence of the engine's or the policy's is shown whole: no other place on a terminal has it. */
const SENTENCE_CHARS_MAX = LIMITS.textChars;

/** What capturing cost one engine. */
export function settledTable(engine: EngineSnapshot): string {
  const table = plainTable([]);
  const notCaptured = engine.graphsPlanned - engine.graphsCaptured;
  table.push(
    ["engine", `${printable(engine.engine)}${simulatedMark(engine)}`],
    ["model, mode", `${printable(engine.model)}, ${engine.mode}`],
    ["capture before ready", secondsText(engine.captureBeforeReadySeconds)],
    ["ready to settled", secondsText(engine.readyToSettledSeconds)],
    ["longest capture", millisecondsText(engine.longestCaptureMs)],
    ["graphs captured", graphsText(engine)],
    ["graph memory", mebibytesText(engine.takenBytes)],
    ["steps so far", stepsText(engine)],
  );
  if (notCaptured > 0) table.push(["not captured", notCapturedText(engine, notCaptured)]);
  return table.toString();
}

/**
 * The same on one line, for logs; without a reason of an engine that didn't settle here. A controller
 * that came after ready didn't see what was before, and leaves it out.
 */
export function settledText(engine: EngineSnapshot, reason: string | undefined): string {
  const notCaptured = engine.graphsPlanned - engine.graphsCaptured;
  const { captureBeforeReadySeconds: before, readyToSettledSeconds: after } = engine;
  const facts = [
    `${graphsText(engine)} graphs`,
    ...(notCaptured > 0 ? [notCapturedText(engine, notCaptured)] : []),
    mebibytesText(engine.takenBytes),
    ...(before === undefined ? [] : [`${secondsText(before)} before ready`]),
    ...(reason === undefined || after === undefined
      ? []
      : [`first settled ${secondsText(after)} after`]),
    `longest capture ${millisecondsText(engine.longestCaptureMs)}`,
    `mode ${engine.mode}`,
  ];
  const unsaid = engine.settled ? "is settled" : "is not settled";
  const what = reason === undefined ? unsaid : `is settled: ${printable(reason)}`;
  return `${printable(engine.engine)} ${what} (${facts.join(", ")})${simulatedMark(engine)}`;
}

/** One row per engine, or on a terminal too narrow for it one block: `lazygraph status`. */
export function enginesTable(
  engines: readonly EngineSnapshot[],
  columns: number = Number.POSITIVE_INFINITY,
): string {
  const rows = engineRows(engines);
  const wide = rows.toString();
  const width = Math.max(...wide.split("\n").map((line) => line.length));
  return width <= columns ? wide : stacked(rows, columns);
}

/** The same cells, each with its name in front. */
function stacked(table: Table.Table, columns: number): string {
  const head = table.options.head;
  const indent = Math.max(...head.map((name) => name.length)) + 2;
  const blocks = table.map((row) =>
    (row as string[])
      .flatMap((cell, index) => {
        if (cell === "") return [];
        const [first = "", ...more] = wrapped(cell, columns - indent);
        const line = `${(head[index] ?? "").padEnd(indent)}${first}`;
        return [line, ...more.map((rest) => `${" ".repeat(indent)}${rest}`)];
      })
      .join("\n"),
  );
  return blocks.join("\n\n");
}

function engineRows(engines: readonly EngineSnapshot[]): Table.Table {
  const head = ["engine", "mode", "phase", "graphs", "memory", "steps"];
  const noted = engines.some((engine) => noteText(engine) !== "");
  const adapted = engines.some(({ adapter }) => adapter !== undefined);
  const table = plainTable([
    ...head,
    ...(adapted ? ["vLLM, adapter"] : []),
    ...(noted ? ["note"] : []),
  ]);
  for (const engine of engines) {
    table.push([
      `${printable(engine.engine)}${simulatedMark(engine)}`,
      modeText(engine),
      phaseText(engine),
      graphsText(engine),
      mebibytesText(engine.takenBytes),
      stepsText(engine),
      ...(adapted ? [adapterText(engine)] : []),
      ...(noted ? [noteText(engine)] : []),
    ]);
  }
  return table;
}

function adapterText({ vllmVersion, adapter }: EngineSnapshot): string {
  const version = printable(vllmVersion, 40);
  return adapter === undefined ? version : `${version}, ${printable(adapter, 40)}`;
}

/** Why an engine is not there, or not as it should be. */
function noteText(engine: EngineSnapshot): string {
  const notes: string[] = [];
  const { connected, lostReason, unsupported, problems } = engine;
  if (!connected && lostReason !== undefined) {
    notes.push(printable(lostReason, SENTENCE_CHARS_MAX));
  }
  if (unsupported !== undefined) {
    notes.push(`runs as stock: ${printable(unsupported, SENTENCE_CHARS_MAX)}`);
  }
  if (problems.replaced > 0) {
    // Ever: that one may have ended since, as it does where a new process takes over from an old.
    const advice = "if that still runs, give each its own LAZYGRAPH_ENGINE";
    notes.push(`took its name from another engine: ${advice}`);
  }
  return notes.join("; ");
}

/** One row per graph, and why it is where it is; on a terminal too narrow for it one line each. */
export function graphsTable(
  graphs: readonly GraphSnapshot[],
  columns: number = Number.POSITIVE_INFINITY,
): string {
  const rows = graphRows(graphs);
  const wide = rows.toString();
  const width = Math.max(...wide.split("\n").map((line) => line.length));
  return width <= columns ? wide : narrow(rows, columns);
}

/** Columns without borders, and the last, a sentence, on lines of its own where it has to be. */
function narrow(table: Table.Table, columns: number): string {
  const rows = [table.options.head, ...table.map((row) => row as string[])];
  const last = table.options.head.length - 1;
  const widths = table.options.head.map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  return rows
    .flatMap((row) => {
      const cells = row.slice(0, last).map((cell, column) => cell.padEnd(widths[column] ?? 0));
      const line = cells.join("  ");
      const sentence = row[last] ?? "";
      if (line.length + 2 + sentence.length <= columns) return `${line}  ${sentence}`.trimEnd();
      return [line.trimEnd(), ...wrapped(sentence, columns - 2).map((rest) => `  ${rest}`)];
    })
    .join("\n");
}

/** In lines of so many characters, where its words are no longer than that. */
function wrapped(text: string, columns: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + 1 + word.length <= columns) {
      lines[lines.length - 1] = `${line} ${word}`;
    } else lines.push(word);
  }
  return lines;
}

function graphRows(graphs: readonly GraphSnapshot[]): Table.Table {
  // Few engines have adapters, and a controller of an older version tells nothing of them.
  const withLoras = graphs.some(({ loras }) => (loras ?? 0) > 0);
  const table = plainTable([
    "graph",
    ...(withLoras ? ["adapters"] : []),
    ...["status", "ms", "MiB", "replays", "wanted", "why"],
  ]);
  for (const graph of graphs) {
    table.push([
      printable(graph.id),
      ...(withLoras ? [String(graph.loras ?? 0)] : []),
      graph.status,
      graph.ms === undefined ? "" : graph.ms.toFixed(1),
      graph.bytes === undefined ? "" : (graph.bytes / MIB).toFixed(1),
      String(graph.replays),
      String(graph.wanted),
      printable(whyText(graph), SENTENCE_CHARS_MAX),
    ]);
  }
  return table;
}

/** A policy's reason names its graph, as the first column does. */
function whyText({ id, reason = "" }: GraphSnapshot): string {
  return reason.startsWith(`${id}: `) ? reason.slice(id.length + 2) : reason;
}

export function secondsText(seconds: number | undefined): string {
  return seconds === undefined ? "not yet" : `${seconds.toFixed(seconds < 10 ? 3 : 1)} s`;
}

export function millisecondsText(ms: number): string {
  return ms === 0 ? "none" : `${ms.toFixed(1)} ms`;
}

function mebibytesText(bytes: number): string {
  return `${(bytes / MIB).toFixed(0)} MiB`;
}

function stepsText(engine: EngineSnapshot): string {
  return `${engine.stepsExact} exact, ${engine.stepsPadded} padded, ${engine.stepsUngraphed} ungraphed`;
}

function simulatedMark(engine: EngineSnapshot): string {
  return engine.simulated === undefined ? "" : ` (simulated: ${printable(engine.simulated)})`;
}

function graphsText(engine: EngineSnapshot): string {
  return `${engine.graphsCaptured} of ${engine.graphsPlanned}`;
}

/** Another policy than the mode's own is named with it. */
function modeText({ mode, policy }: EngineSnapshot): string {
  return policy === undefined || policy === mode ? mode : `${mode} (${printable(policy, 40)})`;
}

function phaseText(engine: EngineSnapshot): string {
  // Who said goodbye was stopping when the connection ended.
  if (!engine.connected) return engine.phase === "stopping" ? "left" : "lost";
  const parts = [engine.phase, engine.asleep?.length ? "asleep" : "", engine.settled && "settled"];
  return parts.filter(Boolean).join(", ");
}

function notCapturedText(engine: EngineSnapshot, count: number): string {
  const left = count - engine.graphsRefused - engine.graphsFailed;
  return `${left} left, ${engine.graphsRefused} refused, ${engine.graphsFailed} failed`;
}

/** No colours: the text goes into logs as often as onto a terminal. */
export function plainTable(head: string[]): Table.Table {
  return new Table({ head, style: { head: [], border: [], compact: true } });
}

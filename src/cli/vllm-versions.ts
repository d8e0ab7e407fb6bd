/**
 * Which vLLM versions are captured lazily, what is left to them, and why.
 *
 * The plugin's lists decide; docs/vllm-versions.json is their copy, which a test of the plugin
 * holds to them. It is read and not asked for, because no plugin need be installed here.
 */

import { readFileSync } from "node:fs";

const FILE = new URL("../../docs/vllm-versions.json", import.meta.url);

export interface VllmVersions {
  /** Oldest first. */
  readonly versions: readonly VllmVersion[];
  /** Why any other version runs as stock. */
  readonly otherVersions: string;
  /** What runs as stock on every version. */
  readonly always: readonly string[];
}

export interface VllmVersion {
  readonly vllm: string;
  /** What was tried on a GPU; empty: nothing. */
  readonly lazily: readonly string[];
  /** Names of these GPUs. */
  readonly gpus: readonly string[];
  readonly asStock: readonly { readonly what: readonly string[]; readonly why: string }[];
}

export function vllmVersions(): VllmVersions {
  return JSON.parse(readFileSync(FILE, "utf8")) as VllmVersions;
}

/** Versions on which something was tried, oldest first. */
export function triedVersions(table: VllmVersions): readonly string[] {
  return table.versions.filter(({ lazily }) => lazily.length > 0).map(({ vllm }) => vllm);
}

/** For a terminal, one version after the other. */
export function versionsText(table: VllmVersions): string {
  const lines = table.versions.flatMap((version) => {
    const rows = [...lazilyRows(version), ...stockCells(version).map((cell) => `stock   ${cell}`)];
    return rows.map((row, at) => `${(at === 0 ? version.vllm : "").padEnd(8)}${row}`);
  });
  lines.push(`other   stock   everything: ${table.otherVersions}`);
  lines.push(`all     stock   ${table.always.join(", ")}`);
  return lines.join("\n");
}

/** Of a list in short, so that a line fits a terminal. */
const SHORT_CHARS = 64;

/** The same with the first names of each list, and how many more it has. */
export function versionsInShort(table: VllmVersions): string {
  const versions = table.versions.map((version) => ({
    ...version,
    lazily: inShort(version.lazily),
    asStock: version.asStock.map(({ what, why }) => ({ what: inShort(what), why })),
  }));
  return versionsText({ ...table, versions, always: inShort(table.always) });
}

function inShort(names: readonly string[]): readonly string[] {
  const fitting = names.filter(
    (_, at) => at === 0 || names.slice(0, at + 1).join(", ").length <= SHORT_CHARS,
  );
  const left = names.length - fitting.length;
  if (left === 0) return names;
  return [...fitting.slice(0, -1), `${fitting.at(-1)} and ${left} more`];
}

/** For docs/vllm-versions.md: a test holds that to it. */
export function versionsMarkdown(table: VllmVersions): string {
  const rows = table.versions.map((version) => {
    const lazily = version.lazily.length === 0 ? "–" : lazilyCell(version);
    return `| ${version.vllm} | ${lazily} | ${stockCells(version).join("; ")} |`;
  });
  return [
    "| vLLM | captured lazily: tried on a GPU | runs as stock, and why |",
    "|---|---|---|",
    ...rows,
    `| other | – | everything: ${table.otherVersions} |`,
    `| all | – | ${table.always.join(", ")} |`,
  ].join("\n");
}

function lazilyRows(version: VllmVersion): readonly string[] {
  return version.lazily.length === 0 ? [] : [`lazily  ${lazilyCell(version)}`];
}

function lazilyCell({ lazily, gpus }: VllmVersion): string {
  return `${lazily.join(", ")} (${gpus.join(", ")})`;
}

function stockCells({ asStock }: VllmVersion): readonly string[] {
  return asStock.map(({ what, why }) => `${what.join(", ")}: ${why}`);
}

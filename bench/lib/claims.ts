/** Claims: a measured value against its limit, and whether it holds. Pure. */

import type { Interval } from "../../src/measure/statistics.ts";

export type Sense = "atMost" | "atLeast";

/** What a result says, before it is judged. */
export interface Finding {
  /** Stable, in lower case, with dots from the general to the special. */
  readonly id: string;
  readonly value: number;
  /** Ends of the 95% interval; absent where one run told it. */
  readonly interval?: readonly [low: number, high: number];
  readonly unit: string;
  readonly limit: number;
  readonly sense: Sense;
  /** The raw result, under bench/results. */
  readonly source: string;
  /** What makes that result again. */
  readonly command: string;
}

/** What made a finding's raw result. */
export type Origin = Pick<Finding, "source" | "command">;

type Limited = (id: string, value: number, unit: string, limit: number) => Finding;

/** Makers of findings whose ids begin alike, each with a limit above or below it. */
export interface Limits {
  readonly atLeast: Limited;
  readonly atMost: Limited;
}

export function withLimits(prefix: string, origin: Origin): Limits {
  const of =
    (sense: Sense): Limited =>
    (id, value, unit, limit) => ({ id: `${prefix}.${id}`, value, unit, limit, sense, ...origin });
  return { atLeast: of("atLeast"), atMost: of("atMost") };
}

export interface Claim extends Finding {
  /** Of the value itself; the interval says how sure that is. Why not: claims-unmet.json. */
  readonly holds: boolean;
}

/**
 * claims.json: by raw result what makes it, and what is claimed from it, a claim a line, which is
 * how they change, each with its limit as `atMost` or `atLeast`.
 */
export function listOf(
  claims: readonly Claim[],
  replacer?: (key: string, value: unknown) => unknown,
): string {
  const bySource = new Map<string, { command: string; lines: string[] }>();
  for (const { id, value, interval, unit, limit, sense, holds, source, command } of claims) {
    const told = { id, value, interval, unit, [sense]: limit, holds };
    const known = bySource.get(source) ?? { command, lines: [] };
    if (known.command !== command) {
      throw new Error(
        `Expected one command for ${source}, got "${known.command}" and "${command}".`,
      );
    }
    known.lines.push(JSON.stringify(told, replacer));
    bySource.set(source, known);
  }
  const parts = [...bySource]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([source, { command, lines }]) => {
      const told = `"command": ${JSON.stringify(command)},\n"claims": [\n${lines.join(",\n")}\n]`;
      return `${JSON.stringify(source)}: {\n${told}\n}`;
    });
  return `{\n${parts.join(",\n")}\n}\n`;
}

/** What `listOf` wrote. */
export function readList(text: string): Claim[] {
  type Listed = Omit<Claim, "limit" | "sense" | "source" | "command"> & Record<string, number>;
  const list = JSON.parse(text) as Record<string, { command: string; claims: Listed[] }>;
  return Object.entries(list).flatMap(([source, { command, claims }]) =>
    claims.map(({ atMost, atLeast, ...claim }) => {
      const sense = atMost === undefined ? "atLeast" : "atMost";
      return { ...claim, limit: atMost ?? atLeast ?? Number.NaN, sense, source, command };
    }),
  );
}

/** Of findings with one id the last: what was measured again, in a later state, stands. */
export function latest(findings: readonly Finding[]): Finding[] {
  return [...new Map(findings.map((finding) => [finding.id, finding])).values()];
}

/**
 * In order of their ids. A claim that went against us stays, and says why.
 *
 * @param unmet the reasons, by id
 * @throws Error for a value that is none, an id that comes twice, a miss without its reason, and a
 *   reason of something that holds or is not there
 */
export function judge(
  findings: readonly Finding[],
  unmet: Readonly<Record<string, string>>,
): Claim[] {
  const claims = findings.map((finding) => claimOf(finding, unmet[finding.id]));
  const ids = new Set<string>();
  for (const { id } of claims) {
    if (ids.has(id)) throw new Error(`Expected each claim once, got ${id} twice.`);
    ids.add(id);
  }
  const left = Object.keys(unmet).find((id) => !ids.has(id));
  if (left !== undefined) {
    throw new Error(`Expected reasons of claims that there are, got one for ${left}: remove it.`);
  }
  return claims.sort((a, b) => (a.id < b.id ? -1 : 1));
}

function claimOf(finding: Finding, reason: string | undefined): Claim {
  const { id, value, limit, sense } = finding;
  if (!Number.isFinite(value)) throw new Error(`Expected a number for ${id}, got ${value}.`);
  const holds = sense === "atMost" ? value <= limit : value >= limit;
  if (!holds && reason === undefined) {
    throw new Error(
      `Expected a reason why ${id} is ${value} and not ${sense === "atMost" ? "at most" : "at least"} ` +
        `${limit}, got none: write one into claims-unmet.json.`,
    );
  }
  if (holds && reason !== undefined) {
    throw new Error(`Expected no reason for ${id}, which holds, got one: remove it.`);
  }
  const { source, command, ...found } = finding;
  return { ...found, holds, source, command };
}

/** Value and interval of a finding; none of a single run. */
export function measured({
  mean,
  low,
  high,
  n,
}: Interval): Pick<Finding, "value"> & Partial<Pick<Finding, "interval">> {
  return n < 2 ? { value: mean } : { value: mean, interval: [low, high] };
}

/** A figure of a document that names its claim: `0.020 (0.019–0.021)<!-- claim ID -->`. */
export interface Marked {
  readonly id: string;
  readonly text: string;
  /** The value, and where it is told the ends of the interval, as written. */
  readonly figures: readonly string[];
}

const MARKER = /<!-- claim (\S+) -->/g;
const FIGURES =
  /([−-]?[\d,]*\.?\d+)(?: \(([−-]?[\d,]*\.?\d+)(?:–| to )([−-]?[\d,]*\.?\d+)\))?[^\d|]*$/;

/** @throws Error for a marker with no figure before it */
export function markedFigures(document: string): Marked[] {
  return [...document.matchAll(MARKER)].map((match) => {
    const id = match[1] as string;
    const before = document.slice(0, match.index).split("\n").at(-1) ?? "";
    const found = FIGURES.exec(before);
    if (found === null) throw new Error(`Expected a figure before the marker of ${id}, got none.`);
    const [text, ...figures] = found;
    return { id, text: text.trim(), figures: figures.filter((figure) => figure !== undefined) };
  });
}

/** Undefined where the document says what the claim does, rounded as it rounds; else a sentence. */
export function mismatch(marked: Marked, claims: readonly Claim[]): string | undefined {
  const claim = claims.find(({ id }) => id === marked.id);
  if (claim === undefined) return `Expected a claim ${marked.id}, there is none.`;
  const wanted = [claim.value, ...(claim.interval ?? [])];
  const wrong = marked.figures.find((figure, at) => {
    const digits = /\.(\d+)$/.exec(figure)?.[1]?.length ?? 0;
    const written = Number(figure.replaceAll(",", "").replace("−", "-"));
    const value = wanted[at];
    return value === undefined || Number(value.toFixed(digits)) !== written;
  });
  if (wrong === undefined) return undefined;
  return `Expected ${wanted.join(", ")} for ${marked.id}, the text says ${marked.text}.`;
}

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
  /** Of the value itself; the interval says how sure that is. */
  readonly holds: boolean;
  /** Why not, and what was tried, written by hand; "" until then, absent where it holds. */
  readonly unmet?: string;
}

/** claims.json: a claim a line, which is how they change. */
export function listOf(
  claims: readonly Claim[],
  replacer?: (key: string, value: unknown) => unknown,
): string {
  const lines = claims.map(
    ({ id, value, interval, unit, limit, sense, holds, unmet, source, command }) => {
      const told = { id, value, interval, unit, limit, sense, holds, unmet, source, command };
      return JSON.stringify(told, replacer);
    },
  );
  return `[\n${lines.join(",\n")}\n]\n`;
}

/** What `listOf` wrote, where reasons were filled in by hand. */
export function readList(text: string): Claim[] {
  try {
    return [...JSON.parse(text)];
  } catch (cause) {
    throw new Error("Expected a JSON list in claims.json, got something else: mend it.", { cause });
  }
}

/** Of findings with one id the last: what was measured again, in a later state, stands. */
export function latest(findings: readonly Finding[]): Finding[] {
  return [...new Map(findings.map((finding) => [finding.id, finding])).values()];
}

/**
 * In order of their ids. A claim that went against us stays, with its reason of before.
 *
 * @throws Error for a value that is none, and an id that comes twice
 */
export function judge(findings: readonly Finding[], before: readonly Claim[]): Claim[] {
  const reasons = new Map(before.map(({ id, unmet }) => [id, unmet]));
  const claims = new Map<string, Claim>();
  for (const finding of findings) {
    const { id, value, limit, sense } = finding;
    if (!Number.isFinite(value)) throw new Error(`Expected a number for ${id}, got ${value}.`);
    if (claims.has(id)) throw new Error(`Expected each claim once, got ${id} twice.`);
    const holds = sense === "atMost" ? value <= limit : value >= limit;
    claims.set(id, { ...finding, holds, ...(holds ? {} : { unmet: reasons.get(id) ?? "" }) });
  }
  return [...claims.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
}

/** The misses whose reason is still to be written, and those of before that need none any more. */
export function reasonsOf(
  claims: readonly Claim[],
  before: readonly Claim[],
): { missing: Claim[]; dropped: Claim[] } {
  const missed = new Set(claims.filter(({ holds }) => !holds).map(({ id }) => id));
  return {
    missing: claims.filter(({ unmet }) => unmet?.trim() === ""),
    dropped: before.filter(({ id, unmet }) => unmet && !missed.has(id)),
  };
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

/** Claims of starts from a launcher, beside stock's on the same host. Pure. */

import { bootstrapMean } from "../../src/measure/statistics.ts";
import type { Comparison, LauncherChecks, LauncherResult, Start } from "../gpu/lib/start-result.ts";
import { type Finding, measured, type Origin } from "./claims.ts";

/** Spawn to first token, forked and lazy, of stock's warm start. */
const SHARE_MAX = 1 / 5;
/** The same in seconds and without loading weights, where promised. */
const SECONDS_WITHOUT_WEIGHTS_MAX: Readonly<Record<string, number>> = { "dense-8b": 6 };
const UNATTRIBUTED_SHARE_MAX = 0.03;
const TIMING_SHARE_MAX = 0.005;
/** A forked start whose caches were empty but for an unpacked pack, of one without. */
const PACK_SHARE_MAX = 0.4;
const STOCK = "stock";
const FORKED_LAZY = "forked-lazy";

export function startupFindings(result: LauncherResult, told: Origin): Finding[] {
  const { family, comparison, checks, caches, spanMicroseconds } = result;
  const id = `startup.${family}`;
  const compared = comparison === undefined ? [] : [comparison];
  const all = [...compared, ...(caches === undefined ? [] : [caches])];
  return [
    ...compared.flatMap((each) => firstTokenFindings(id, family, each, told)),
    ...all.flatMap((each) => phaseFindings(id, each.starts, spanMicroseconds, told)),
    ...(checks === undefined ? [] : checkFindings(id, checks, told)),
    ...(caches === undefined ? [] : cacheFindings(id, caches, told)),
  ];
}

interface Pair {
  readonly ours: Start;
  readonly other: Start;
}

/** Starts of the same turn. */
function pairs(starts: readonly Start[], variant: string, against: string): Pair[] {
  return starts.flatMap((ours) => {
    const other = starts.find((start) => start.variant === against && start.run === ours.run);
    return ours.variant !== variant || other === undefined ? [] : [{ ours, other }];
  });
}

function firstTokenFindings(
  id: string,
  family: string,
  { starts }: Comparison,
  told: Origin,
): Finding[] {
  const shares = pairs(starts, FORKED_LAZY, STOCK).map(({ ours, other }) => {
    return ours.firstTokenSeconds / other.firstTokenSeconds;
  });
  const found: Finding[] = [];
  if (shares.length > 0) {
    found.push({
      ...{ ...told, id: `${id}.forked-lazy.first-token-share`, limit: SHARE_MAX, sense: "atMost" },
      ...{ ...measured(bootstrapMean(shares)), unit: "of stock's, spawn to first token" },
    });
  }
  const limit = SECONDS_WITHOUT_WEIGHTS_MAX[family];
  const seconds = starts
    .filter(({ variant }) => variant === FORKED_LAZY)
    .map((start) => start.firstTokenSeconds - phaseSeconds(start, "weights"));
  if (limit !== undefined && seconds.length > 0) {
    found.push({
      ...{ ...told, id: `${id}.forked-lazy.first-token-without-weights`, limit, sense: "atMost" },
      ...{ ...measured(bootstrapMean(seconds)), unit: "s, spawn to first token less weights" },
    });
  }
  return found;
}

function phaseSeconds({ phases }: Start, name: string): number {
  return phases.find((phase) => phase.name === name)?.seconds ?? 0;
}

/** Of each variant's worst start: what no phase covers, and what timing cost. */
function phaseFindings(
  id: string,
  starts: readonly Start[],
  spanMicroseconds: number,
  told: Origin,
): Finding[] {
  const variants = [...new Set(starts.map(({ variant }) => variant))];
  return variants.flatMap((variant): Finding[] => {
    const own = starts.filter((start) => start.variant === variant);
    const worst = (share: (start: Start) => number): number => Math.max(...own.map(share));
    const unknown = (start: Start): number =>
      // Nothing timed is nothing known, whatever phases there are.
      start.spans === 0 ? 1 : phaseSeconds(start, "unattributed") / start.readySeconds;
    const cost = ({ spans, readySeconds }: Start): number =>
      (spans * spanMicroseconds) / 1e6 / readySeconds;
    const base = { ...told, sense: "atMost" } as const;
    return [
      {
        ...{ ...base, id: `${id}.${variant}.unattributed-share`, limit: UNATTRIBUTED_SHARE_MAX },
        ...{ value: worst(unknown), unit: "of spawn to ready is in no phase, worst start" },
      },
      {
        ...{ ...base, id: `${id}.${variant}.timing-share`, limit: TIMING_SHARE_MAX },
        ...{ value: worst(cost), unit: "of spawn to ready, spans by their price, worst start" },
      },
    ];
  });
}

/** A check that was not made is no claim: its part's failure is told. */
function checkFindings(id: string, checks: LauncherChecks, told: Origin): Finding[] {
  const { tokens, leaks, growth, killed, orphan } = checks;
  const none = { ...told, limit: 0, sense: "atMost" } as const;
  const all = { ...told, limit: 1, sense: "atLeast" } as const;
  const found: Finding[] = [];
  if (tokens !== undefined) {
    found.push({
      ...{ ...all, id: `${id}.forked-tokens-equal`, value: tokens.equal / tokens.starts },
      unit: `of ${tokens.starts} forked servers with a spawned one's tokens`,
    });
  }
  if (leaks !== undefined) {
    const { files, children } = leaks;
    found.push(
      {
        ...{ ...none, id: `${id}.leaked-descriptors`, value: Math.max(0, files[1] - files[0]) },
        unit: `descriptors after ${tokens?.starts} forks`,
      },
      {
        ...{ ...none, id: `${id}.zombies`, value: children.length },
        unit: `children left after ${tokens?.starts} forks`,
      },
    );
  }
  if (growth !== undefined) {
    found.push({
      ...{ ...told, id: `${id}.growth`, value: growth.bytes, limit: growth.bytesMax },
      ...{ unit: "resident bytes more of the launcher", sense: "atMost" },
    });
  }
  const cases = killed?.cases ?? [];
  if (cases.length > 0) {
    found.push({
      ...{ ...all, id: `${id}.killed`, value: shareHeld(cases) },
      unit: `of ${cases.length} killed servers that left nothing behind`,
    });
  }
  if (orphan !== undefined && orphan.error === undefined) {
    found.push({
      ...{ ...all, id: `${id}.orphan`, value: Number(orphan.holds) },
      unit: "of servers whose launcher was killed went on",
    });
  }
  return found;
}

function shareHeld(cases: readonly { readonly holds: boolean }[]): number {
  return cases.filter(({ holds }) => holds).length / cases.length;
}

function cacheFindings(id: string, { starts }: Comparison, told: Origin): Finding[] {
  const forked = pairs(starts, "forked-pack", "forked-empty");
  const spawned = pairs(starts, "spawned-pack", "spawned-empty");
  const share = forked.map(({ ours, other }) => ours.firstTokenSeconds / other.firstTokenSeconds);
  const saved = spawned.map(({ ours, other }) => other.firstTokenSeconds - ours.firstTokenSeconds);
  const found: Finding[] = [];
  if (share.length > 0) {
    found.push({
      ...{ ...told, id: `${id}.pack.forked-share`, limit: PACK_SHARE_MAX, sense: "atMost" },
      ...{ ...measured(bootstrapMean(share)), unit: "of a forked start with empty caches" },
    });
  }
  if (saved.length > 0) {
    found.push({
      ...{ ...told, id: `${id}.pack.spawned-saved`, limit: 0, sense: "atLeast" },
      ...{ ...measured(bootstrapMean(saved)), unit: "s less than with empty caches, spawned" },
    });
  }
  return found;
}

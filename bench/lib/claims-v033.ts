/** What the cells of families.sh claim about families on vLLM 0.33. Pure. */

import { MIB } from "../../src/base/units.ts";
import { bootstrapMean, mean } from "../../src/measure/statistics.ts";
import {
  type CellSummary,
  isParitySummary,
  isStart,
  isTokens,
  isVerify,
  type ParitySummary,
  type StartResult,
} from "../gpu/lib/family-result.ts";
import { type Parity, parityOf } from "../gpu/lib/parity.ts";
import { type Finding, measured, type Origin } from "./claims.ts";

const CAPTURE_SHARE_MAX = 1 / 30;
/** Where steps with and without adapters have graphs of their own. */
const LORA_SHARE_MAX = 1 / 50;
/** Eager mode's, of dense models and of others. */
const EAGER_SHARE_MAX = { dense: 0.35, other: 0.45 } as const;
const SAVED_SHARE_MIN = 0.9;
const DECODE_RATIO_MAX = 1.01;
const FORECAST_SHARE_MAX = 0.1;
const FORECAST_MIB_MAX = 64;
/** Families of a feature are told together: `v033.lora.8b-4`. */
export const FEATURE = /^(lora|spec|sleep|offload|breakable)-/;
/** By family: seconds to parity, and the mean wait as a share of stock's. */
const PARITY_LIMITS: Readonly<Record<string, { seconds: number; waitShare: number }>> = {
  "dense-8b": { seconds: 2, waitShare: 1 },
  "moe-30b": { seconds: 4, waitShare: 0.5 },
};

export function familyFindings(cells: readonly CellSummary[], told: Origin): Finding[] {
  const families = [...new Set(cells.map(({ family }) => family))];
  return families.flatMap((family) => {
    const own = cells.filter((cell) => cell.family === family && cell.round >= 0);
    return [
      ...startFindings(family, own.filter(isStart), told),
      ...parityFindings(family, own.filter(isParitySummary), told),
      ...tokenFindings(family, own, told),
    ];
  });
}

interface Pair {
  readonly ours: StartResult;
  readonly stock: StartResult;
}

function startFindings(family: string, starts: readonly StartResult[], told: Origin): Finding[] {
  const pairs = (arm: string, against = "stock"): Pair[] =>
    starts.flatMap((ours) => {
      const stock = starts.find((start) => start.arm === against && start.round === ours.round);
      return ours.arm !== arm || stock === undefined ? [] : [{ ours, stock }];
    });
  return (["eager", "lazy", "idle", "idle-costed"] as const).flatMap((arm) => {
    const own = pairs(arm);
    if (own.length === 0) return [];
    // Of a feature's families nobody asks for eager mode.
    if (arm === "eager" && FEATURE.test(family)) return [];
    const id = `v033.${family.replace(FEATURE, "$1.")}.${arm}`;
    return [
      ...captureFindings(id, own, told, captureLimit(family, arm)),
      ...(arm === "lazy" ? [] : settledFindings(id, own, told)),
      ...(arm === "idle"
        ? (["stock-plan", "stock-ten"] as const).flatMap((by) =>
            byHand(id, by, pairs(arm, by), told),
          )
        : []),
    ];
  });
}

function captureLimit(family: string, arm: string): number {
  if (family.startsWith("lora-")) return LORA_SHARE_MAX;
  if (arm !== "eager") return CAPTURE_SHARE_MAX;
  return EAGER_SHARE_MAX[/^(dense|marlin|fp8)-/.test(family) ? "dense" : "other"];
}

function shareOfCapture({ ours, stock }: Pair): number {
  return ours.timing.allCaptureSeconds / stock.timing.allCaptureSeconds;
}

function captureFindings(
  id: string,
  pairs: readonly Pair[],
  told: Origin,
  limit: number,
): Finding[] {
  const over = (some: readonly Pair[], pick: (pair: Pair) => number) =>
    some.length === 0 ? { value: Number.NaN } : measured(bootstrapMean(some.map(pick)));
  const of = (pick: (pair: Pair) => number) => over(pairs, pick);
  // A start that compiles is no start to hold another's seconds against; captures come after it.
  const warm = pairs.filter(({ ours, stock }) => !(ours.cold || stock.cold));
  const eager = id.endsWith(".eager");
  const saved = ({ ours, stock }: Pair): number => {
    const since = ({ deviceToFirstTokenSeconds }: StartResult) =>
      deviceToFirstTokenSeconds ?? Number.NaN;
    return (since(stock) - since(ours)) / stock.timing.allCaptureSeconds;
  };
  const share: Finding = {
    ...{ ...told, id: `${id}.capture-share`, ...of(shareOfCapture), unit: "of stock's" },
    ...{ limit, sense: "atMost" },
  };
  const first: Finding = {
    ...{ ...told, id: `${id}.spawn-to-first-token-saved`, unit: "s", limit: 0, sense: "atLeast" },
    ...over(
      warm,
      ({ ours, stock }) => stock.spawnToFirstTokenSeconds - ours.spawnToFirstTokenSeconds,
    ),
  };
  const kept: Finding = {
    ...{ ...told, id: `${id}.kv-tokens-more`, unit: "tokens", limit: 0, sense: "atLeast" },
    ...of(({ ours, stock }) => (ours.kvTokens ?? Number.NaN) - (stock.kvTokens ?? Number.NaN)),
  };
  // What a log or the test plugin did not tell is not claimed.
  const known = (...found: Finding[]) => found.filter(({ value }) => !Number.isNaN(value));
  if (eager) return known(share, first, kept);
  const savedShare: Finding = {
    ...{ ...told, id: `${id}.saved-share`, unit: "of stock's capture seconds" },
    ...over(warm, saved),
    ...{ limit: SAVED_SHARE_MIN, sense: "atLeast" },
  };
  return known(share, savedShare, first, kept);
}

/** With all graphs: decoding, and what was forecast against what was taken. */
function settledFindings(id: string, pairs: readonly Pair[], told: Origin): Finding[] {
  // Not every start decodes.
  const decoding = pairs.filter(
    ({ ours, stock }) => ours.decode.length > 0 && stock.decode.length > 0,
  );
  const levels = decoding[0]?.stock.decode.map(({ concurrent }) => concurrent) ?? [];
  const ofLevel = (what: "tpotMs" | "stepMs", { decode }: StartResult, level: number): number =>
    mean(decode.find(({ concurrent }) => concurrent === level)?.[what] ?? [Number.NaN]);
  // By the client's clock, and where the engine told its own steps, by its own.
  const decode = (["tpotMs", "stepMs"] as const).flatMap((what) =>
    levels.flatMap((level): Finding[] => {
      const name = `${what === "tpotMs" ? "decode" : "engine-step"}-${level}`;
      const ratios = decoding
        .map(({ ours, stock }) => ofLevel(what, ours, level) / ofLevel(what, stock, level))
        .filter((ratio) => !Number.isNaN(ratio));
      if (ratios.length === 0) return [];
      return [
        {
          ...{ ...told, id: `${id}.${name}`, ...measured(bootstrapMean(ratios)) },
          ...{ unit: "of stock's", limit: DECODE_RATIO_MAX, sense: "atMost" },
        },
      ];
    }),
  );
  const errors = pairs.flatMap(({ ours }) => {
    const { forecastBytes, takenBytes, graphsPlanned, graphsAfterDecode } = ours.ours ?? {};
    if (forecastBytes === undefined || takenBytes === undefined) return [];
    if (graphsPlanned !== graphsAfterDecode) return [];
    const limitMiB = Math.max(FORECAST_MIB_MAX, (takenBytes / MIB) * FORECAST_SHARE_MAX);
    return [{ errorMiB: Math.abs(forecastBytes - takenBytes) / MIB, limitMiB }];
  });
  if (errors.length === 0) return decode;
  return [
    ...decode,
    {
      ...{ ...told, id: `${id}.forecast-error`, unit: "MiB, worst start", sense: "atMost" },
      value: Math.max(...errors.map(({ errorMiB }) => errorMiB)),
      limit: Math.min(...errors.map(({ limitMiB }) => limitMiB)),
    },
  ];
}

/** Against what stock can be told by its own settings. */
function byHand(id: string, by: string, pairs: readonly Pair[], told: Origin): Finding[] {
  if (pairs.length === 0) return [];
  const shares = bootstrapMean(pairs.map(shareOfCapture));
  return [
    {
      ...{ ...told, id: `${id}.capture-share-of-${by}`, ...measured(shares) },
      ...{ unit: `of ${by}'s`, limit: 1, sense: "atMost" },
    },
  ];
}

function parityFindings(family: string, cells: readonly ParitySummary[], told: Origin): Finding[] {
  const limits = PARITY_LIMITS[family];
  if (limits === undefined) return [];
  return (["idle", "idle-simple", "idle-costed", "lazy"] as const).flatMap((arm) => {
    const pairs = cells.flatMap((ours) => {
      const stock = cells.find((cell) => cell.arm === "stock" && cell.round === ours.round);
      return ours.arm !== arm || stock === undefined ? [] : [{ ours, stock }];
    });
    if (pairs.length === 0) return [];
    const id = `v033.${family}.${arm}`;
    const shares = bootstrapMean(pairs.map(({ ours, stock }) => waitShare(ours, stock)));
    const reached = (what: string, seconds: readonly number[]): Finding => ({
      ...{ ...told, id: `${id}.${what}-seconds`, ...measured(bootstrapMean(seconds)) },
      ...{ unit: "s after ready", limit: limits.seconds, sense: "atMost" },
    });
    const alike = pairs.flatMap(({ ours: { figures, seconds } }) =>
      figures.alike === undefined ? [] : [reachedAfter(figures.alike, seconds)],
    );
    const parity = [
      reached(
        "parity",
        pairs.map(({ ours, stock }) => secondsToParity(ours, stock)),
      ),
      ...(alike.length === 0 ? [] : [reached("parity-alike", alike)]),
    ];
    const failed: Finding = {
      ...{ ...told, id: `${id}.requests-failed`, unit: "requests", limit: 0, sense: "atMost" },
      value: pairs.reduce((sum, { ours }) => sum + ours.figures.failed, 0),
    };
    // Stock's load begins when idle mode was ready, so only that one has the same clock.
    if (arm !== "idle") return [...parity, failed];
    return [
      ...parity,
      failed,
      {
        ...{ ...told, id: `${id}.wait-share`, ...measured(shares), unit: "of stock's mean wait" },
        ...{ limit: limits.waitShare, sense: "atMost" },
      },
    ];
  });
}

function secondsToParity(ours: ParitySummary, stock: ParitySummary): number {
  const { steadyMs } = stock.figures;
  if (steadyMs === undefined) return Number.NaN;
  return reachedAfter(parityOf(ours.figures.windowMs, steadyMs), ours.seconds);
}

/** A load that ends without parity counts in full. */
function reachedAfter({ reached, seconds }: Parity, loadSeconds: number): number {
  return reached ? seconds : loadSeconds;
}

/** Of requests that arrive while the load lasts, counted from the same second after spawn. */
function waitShare(ours: ParitySummary, stock: ParitySummary): number {
  const waits = ({ figures }: ParitySummary) => figures.meanWaitSeconds ?? Number.NaN;
  return waits(ours) / waits(stock);
}

function tokenFindings(family: string, cells: readonly CellSummary[], told: Origin): Finding[] {
  const base = { ...told, limit: 0, sense: "atMost" as const };
  return [
    ...cells.filter(isVerify).map(({ graphsPlanned, report }): Finding => {
      const value = graphsPlanned - report.graphs + (report.checks - report.bitForBit);
      return { ...base, id: `v033.${family}.not-bit-for-bit`, value, unit: "graphs" };
    }),
    ...cells.filter(isTokens).flatMap(({ comparison }): Finding[] => {
      const value = comparison?.ours[0]?.sequencesDifferMax;
      if (value === undefined) return [];
      return [{ ...base, id: `v033.${family}.sequences-differ`, value, unit: "of a pass" }];
    }),
  ];
}

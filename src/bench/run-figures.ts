/** What one run came to, besides the distributions of its latencies. */

import type { GraphSnapshot } from "../engine/snapshot.ts";
import { type Distribution, distributionOf, mean } from "../measure/statistics.ts";
import type { FailureKind } from "./failure.ts";
import { type Gap, longestTokenGap } from "./gap.ts";
import type { CellRun, EngineFacts, RequestRecord } from "./samples.ts";
import { type StallFigures, stallFigures } from "./stalls.ts";
import {
  completedOf,
  fillOf,
  isDelayed,
  isMet,
  readySecondsOf,
  tpotMs,
  ttftMs,
} from "./windows.ts";

export interface RunFigures extends StallFigures {
  readonly run: number;
  readonly status: "complete" | "partial";
  readonly reason?: string;
  readonly startedAt: string;
  readonly requests: number;
  readonly completed: number;
  readonly failures: Readonly<Partial<Record<FailureKind, number>>>;
  /** Of each kind what the first one was told; absent without failures. */
  readonly failureDetails?: Readonly<Partial<Record<FailureKind, string>>>;
  /** How late this process sent requests, from when they were due and the engine was ready. */
  readonly latenessMs?: Distribution;
  /** The same at p99, without the requests that were due before the first one could be sent. */
  readonly generatorLateP99Ms?: number;
  /** Tokens the server counted in prompts, over those wanted; 1 is exact. */
  readonly promptTokensRatio?: Distribution;
  /** Tokens of completions over those asked for; 1 is exact, below it answers ended early. */
  readonly outputTokensRatio?: Distribution;
  /** Requests that went out twice, because an idle connection had been closed; absent for none. */
  readonly resent?: number;
  /** Of its own completed requests, in milliseconds. */
  readonly ttft?: Distribution;
  readonly tpot?: Distribution;
  readonly spawnToReadySeconds?: number;
  readonly spawnToFirstTokenSeconds?: number;
  readonly spawnToSettledSeconds?: number;
  /** 0 of an engine that was settled before; absent of one that never was. */
  readonly readyToSettledSeconds?: number;
  readonly captureBeforeReadySeconds?: number;
  /** From ready to the end of the last capture; absent without captures after ready. */
  readonly readyToLastCaptureSeconds?: number;
  readonly longestTokenGap?: Gap;
  /** Longest capture after ready that held up requests, and longest of all. */
  readonly longestDelayingCaptureMs?: number;
  readonly longestCaptureMs?: number;
  readonly capturesAfterReady: number;
  readonly capturesDelaying: number;
  /** Share of the requests whose first token waited for a capture. */
  readonly shareDelayed?: number;
  /** Share of the requests that met a capture, from being sent to their last token. */
  readonly shareMet?: number;
  readonly graphsPlanned?: number;
  readonly graphsCaptured?: number;
  readonly graphBytes?: number;
  /** Seconds after ready until four fifths of the plan were captured. */
  readonly readyToFourFifthsSeconds?: number;
  /** Share of the plan captured two minutes after ready, or at the end of a shorter run. */
  readonly capturedShareAt120?: number;
  readonly firstMinute?: FirstMinute;
  readonly graphs?: GraphFigures;
}

/** Requests due in the first minute from spawn, when the schedule starts there. */
export interface FirstMinute {
  readonly requests: number;
  /** Sum over them of first token − due; those without one are not in it. */
  readonly waitSeconds: number;
  readonly unanswered: number;
}

export interface GraphFigures {
  readonly byReplays: readonly Pick<
    GraphSnapshot,
    "id" | "kind" | "tokens" | "status" | "replays" | "wanted" | "ms" | "bytes"
  >[];
  readonly neverReplayed: {
    readonly graphs: number;
    readonly seconds: number;
    readonly bytes: number;
  };
  readonly atInit?: PerGraph;
  readonly betweenSteps?: PerGraph;
  /** Of those between steps. */
  readonly fullBetweenSteps?: PerGraph;
}

export interface PerGraph {
  readonly graphs: number;
  readonly ms: number;
  readonly bytes: number;
}

const MINUTE_SECONDS = 60;
const FOUR_FIFTHS = 0.8;
/** What has waited for an engine goes out at once, and holds up what is due just then. */
const BACKLOG_SECONDS = 0.5;

export function runFigures(run: CellRun): RunFigures {
  const counted = run.requests.filter(({ warmUp }) => !warmUp);
  const completed = completedOf(run);
  const { readySeconds, firstTokenSeconds, settledSeconds } = run.times;
  const owned = run.mode.url === undefined;
  return {
    run: run.cell.run,
    status: run.status === "complete" ? "complete" : "partial",
    ...(run.reason === undefined ? {} : { reason: run.reason }),
    startedAt: run.startedAt,
    requests: counted.length,
    completed: completed.length,
    failures: failuresOf(counted),
    ...optional("failureDetails", failureDetails(counted)),
    ...optional("latenessMs", distributionOf(counted.map((request) => latenessMs(run, request)))),
    ...optional("generatorLateP99Ms", generatorLateP99Ms(run, counted)),
    ...optional("promptTokensRatio", promptTokensRatio(completed)),
    ...optional("outputTokensRatio", outputTokensRatio(completed)),
    ...optional("resent", counted.filter(({ resent }) => resent === true).length || undefined),
    ...optional("ttft", distributionOf(completed.map(ttftMs))),
    ...optional("tpot", distributionOf(completed.flatMap((request) => tpotMs(request) ?? []))),
    ...(owned ? optional("spawnToReadySeconds", readySeconds) : {}),
    ...(owned ? optional("spawnToFirstTokenSeconds", firstTokenSeconds) : {}),
    ...optional("spawnToSettledSeconds", settledSeconds),
    ...optional("readyToSettledSeconds", readyToSettledSeconds(run)),
    ...optional("captureBeforeReadySeconds", run.captureBeforeReadySeconds),
    ...optional("longestTokenGap", longestTokenGap(completed)),
    ...captureFigures(run, completed),
    ...stallFigures(run, completed),
    ...optional("firstMinute", firstMinute(run, counted)),
    ...optional("graphs", run.engine === undefined ? undefined : graphFigures(run, run.engine)),
  };
}

function readyToSettledSeconds({ times }: CellRun): number | undefined {
  const { readySeconds, settledSeconds } = times;
  if (readySeconds === undefined || settledSeconds === undefined) return undefined;
  return Math.max(0, settledSeconds - readySeconds);
}

/** A field that is left out where it has no value. */
function optional<K extends string, V>(name: K, value: V | undefined): { readonly [P in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { readonly [P in K]?: V });
}

function failuresOf(requests: readonly RequestRecord[]): Partial<Record<FailureKind, number>> {
  const counts: Partial<Record<FailureKind, number>> = {};
  for (const { failure } of requests) {
    if (failure !== undefined) counts[failure.kind] = (counts[failure.kind] ?? 0) + 1;
  }
  return counts;
}

function failureDetails(
  requests: readonly RequestRecord[],
): Partial<Record<FailureKind, string>> | undefined {
  const details: Partial<Record<FailureKind, string>> = {};
  for (const { failure } of requests) if (failure) details[failure.kind] ??= failure.detail;
  return Object.keys(details).length === 0 ? undefined : details;
}

function latenessMs(run: CellRun, { dueSeconds, sentSeconds }: RequestRecord): number {
  return (sentSeconds - Math.max(dueSeconds, readySecondsOf(run))) * 1000;
}

/** A schedule that starts at the spawn has requests that wait for the engine and its questions. */
function generatorLateP99Ms(run: CellRun, requests: readonly RequestRecord[]): number | undefined {
  const begin =
    run.start === "spawn"
      ? requests.reduce((min, { sentSeconds }) => Math.min(min, sentSeconds), Infinity) +
        BACKLOG_SECONDS
      : Number.NEGATIVE_INFINITY;
  const due = requests.filter(({ dueSeconds }) => dueSeconds >= begin);
  return distributionOf(due.map((request) => latenessMs(run, request)))?.p99;
}

function promptTokensRatio(requests: readonly RequestRecord[]): Distribution | undefined {
  return distributionOf(
    requests.flatMap(({ promptTokens, promptTokensWanted }) =>
      promptTokens === undefined ? [] : [promptTokens / promptTokensWanted],
    ),
  );
}

function outputTokensRatio(requests: readonly RequestRecord[]): Distribution | undefined {
  return distributionOf(
    // Events alone don't say: one may carry several tokens.
    requests.flatMap(({ outputTokens, outputTokensWanted }) =>
      outputTokens === undefined ? [] : [outputTokens / outputTokensWanted],
    ),
  );
}

function captureFigures(
  run: CellRun,
  completed: readonly RequestRecord[],
): Partial<RunFigures> & Pick<RunFigures, "capturesAfterReady" | "capturesDelaying"> {
  const { captures, engine } = run;
  const ready = readySecondsOf(run);
  const fill = fillOf(run);
  const held = captures.filter((capture) => completed.some((request) => isMet(request, [capture])));
  const shareOf = (isSo: typeof isMet): number =>
    completed.filter((request) => isSo(request, captures)).length / completed.length;
  const longest = (list: typeof captures): number | undefined =>
    list.length === 0
      ? undefined
      : Math.max(...list.map((c) => (c.endSeconds - c.startSeconds) * 1000));
  const planned = engine?.graphsPlanned ?? 0;
  const reached = (share: number): number | undefined =>
    captures.find(({ graphsCaptured }) => graphsCaptured >= share * planned)?.endSeconds;
  const before = run.graphsAtReady?.length ?? 0;
  const fourFifths = before >= FOUR_FIFTHS * planned ? ready : reached(FOUR_FIFTHS);
  const at120 = captures.findLast(({ endSeconds }) => endSeconds <= ready + 2 * MINUTE_SECONDS);
  return {
    capturesAfterReady: captures.length,
    capturesDelaying: held.length,
    ...optional("longestCaptureMs", longest(captures)),
    ...optional("longestDelayingCaptureMs", longest(held)),
    ...(fill === undefined ? {} : { readyToLastCaptureSeconds: fill.to - ready }),
    ...(captures.length === 0 || completed.length === 0
      ? {}
      : { shareDelayed: shareOf(isDelayed), shareMet: shareOf(isMet) }),
    ...(engine === undefined || planned === 0
      ? {}
      : {
          graphsPlanned: planned,
          graphsCaptured: engine.graphsCaptured,
          graphBytes: engine.takenBytes,
          capturedShareAt120: (at120?.graphsCaptured ?? before) / planned,
          ...(fourFifths === undefined ? {} : { readyToFourFifthsSeconds: fourFifths - ready }),
        }),
  };
}

function firstMinute(
  { start }: CellRun,
  requests: readonly RequestRecord[],
): FirstMinute | undefined {
  if (start !== "spawn") return undefined;
  const early = requests.filter(({ dueSeconds }) => dueSeconds < MINUTE_SECONDS);
  const answered = early.filter(({ firstSeconds }) => firstSeconds !== undefined);
  return {
    requests: early.length,
    waitSeconds: answered.reduce(
      (sum, { dueSeconds, firstSeconds = dueSeconds }) => sum + firstSeconds - dueSeconds,
      0,
    ),
    unanswered: early.length - answered.length,
  };
}

function graphFigures(run: CellRun, engine: EngineFacts): GraphFigures {
  const captured = engine.graphs.filter(({ status }) => status === "captured");
  const atInit = new Set(run.graphsAtReady);
  const never = captured.filter(({ replays }) => replays === 0);
  const later = captured.filter(({ id }) => !atInit.has(id));
  return {
    byReplays: [...engine.graphs]
      .sort((a, b) => b.replays - a.replays || b.tokens - a.tokens)
      .map(({ id, kind, tokens, status, replays, wanted, ms, bytes }) => {
        return { id, kind, tokens, status, replays, wanted, ms, bytes };
      }),
    neverReplayed: {
      graphs: never.length,
      seconds: never.reduce((sum, { ms = 0 }) => sum + ms, 0) / 1000,
      bytes: never.reduce((sum, { bytes = 0 }) => sum + bytes, 0),
    },
    ...optional("atInit", perGraph(captured.filter(({ id }) => atInit.has(id)))),
    ...optional("betweenSteps", perGraph(later)),
    ...optional("fullBetweenSteps", perGraph(later.filter(({ kind }) => kind === "FULL"))),
  };
}

function perGraph(graphs: readonly GraphSnapshot[]): PerGraph | undefined {
  if (graphs.length === 0) return undefined;
  return {
    graphs: graphs.length,
    ms: mean(graphs.map(({ ms = 0 }) => ms)),
    bytes: mean(graphs.map(({ bytes = 0 }) => bytes)),
  };
}

/** Which requests of a run fall into which part of it, and what one request came to. */

import type { CaptureRecord, CellRun, RequestRecord } from "./samples.ts";

/**
 * Parts of a run, by when a request was due. The fill goes from the first capture that came after
 * the engine's start, about a second before its HTTP server is ready, to the last one; without such
 * captures everything is `after`. `first120` and `later` count two minutes from ready; `delayed` are
 * those that waited for their first token while a capture held the engine up. What nobody told has
 * no window: captures are known from our controller alone, so not of stock or a live endpoint, and
 * of an endpoint not even when it got ready.
 */
export const WINDOWS = [
  "all",
  "before",
  "during",
  "after",
  "first120",
  "later",
  "delayed",
  "undelayed",
] as const;

export type WindowName = (typeof WINDOWS)[number];

const FIRST_SECONDS = 120;
const BY_CAPTURES: readonly WindowName[] = ["before", "during", "after", "delayed", "undelayed"];
const BY_READY: readonly WindowName[] = ["first120", "later"];

export function readySecondsOf(run: CellRun): number {
  // A live endpoint was ready before anything counted.
  return run.times.readySeconds ?? 0;
}

/** Requests that count: no warm-up, and a first token came. */
export function completedOf(run: CellRun): RequestRecord[] {
  return run.requests.filter(
    ({ warmUp, failure, firstSeconds }) =>
      !warmUp && failure === undefined && firstSeconds !== undefined,
  );
}

export function fillOf(run: CellRun): { readonly from: number; readonly to: number } | undefined {
  const [first] = run.captures;
  const last = run.captures.at(-1);
  if (first === undefined || last === undefined) return undefined;
  return { from: first.startSeconds, to: last.endSeconds };
}

export function inWindow(
  run: CellRun,
  name: WindowName,
  requests: readonly RequestRecord[],
): RequestRecord[] {
  if (!isKnown(run, name)) return [];
  const ready = readySecondsOf(run);
  const fill = fillOf(run) ?? { from: Number.NEGATIVE_INFINITY, to: Number.NEGATIVE_INFINITY };
  const rules: Readonly<Record<WindowName, (request: RequestRecord) => boolean>> = {
    all: () => true,
    before: ({ dueSeconds }) => dueSeconds < fill.from,
    during: ({ dueSeconds }) => dueSeconds >= fill.from && dueSeconds <= fill.to,
    after: ({ dueSeconds }) => dueSeconds > fill.to,
    first120: ({ dueSeconds }) => dueSeconds >= ready && dueSeconds < ready + FIRST_SECONDS,
    later: ({ dueSeconds }) => dueSeconds >= ready + FIRST_SECONDS,
    delayed: (request) => isDelayed(request, run.captures),
    undelayed: (request) => !isDelayed(request, run.captures),
  };
  return requests.filter(rules[name]);
}

function isKnown({ mode, captures, times }: CellRun, name: WindowName): boolean {
  if (BY_CAPTURES.includes(name)) return mode.mode !== undefined || captures.length > 0;
  return !BY_READY.includes(name) || mode.url === undefined || times.readySeconds !== undefined;
}

/** What holds an engine up, a capture or a compilation, in seconds of the run. */
export type Hold = Pick<CaptureRecord, "startSeconds" | "endSeconds">;

/** Whether a capture held the engine up while this request waited for its first token. */
export function isDelayed(request: RequestRecord, captures: readonly Hold[]): boolean {
  const { sentSeconds, firstSeconds = sentSeconds } = request;
  return hasCapture(captures, sentSeconds, firstSeconds);
}

/** The same from its being sent to its last token. */
export function isMet(request: RequestRecord, captures: readonly CaptureRecord[]): boolean {
  const { sentSeconds, lastSeconds = sentSeconds } = request;
  return hasCapture(captures, sentSeconds, lastSeconds);
}

/** Milliseconds for which a capture held up the engine: its own, and what came with it. */
export function holdMs({ startSeconds, endSeconds }: CaptureRecord): number {
  return (endSeconds - startSeconds) * 1000;
}

/**
 * Whether a capture held the engine up at some time from `from` to `to`.
 *
 * @param captures in order of time, so that the search can halve
 */
export function hasCapture(captures: readonly Hold[], from: number, to: number): boolean {
  let low = 0;
  let high = captures.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((captures[middle] as Hold).endSeconds < from) low = middle + 1;
    else high = middle;
  }
  const next = captures[low];
  return next !== undefined && next.startSeconds <= to;
}

/** Milliseconds from when it was due to its first token: what an open-loop client waits. */
export function ttftMs({ dueSeconds, firstSeconds = Number.NaN }: RequestRecord): number {
  return (firstSeconds - dueSeconds) * 1000;
}

/** Milliseconds from when it was due to its last token. */
export function e2eMs({ dueSeconds, lastSeconds = Number.NaN }: RequestRecord): number {
  return (lastSeconds - dueSeconds) * 1000;
}

export function outputTokensOf({ outputTokens, itlMicros }: RequestRecord): number {
  return outputTokens ?? itlMicros.length + 1;
}

/** Undefined for an answer of one token. */
export function tpotMs(request: RequestRecord): number | undefined {
  const { firstSeconds = Number.NaN, lastSeconds = Number.NaN } = request;
  const tokens = outputTokensOf(request);
  return tokens < 2 ? undefined : ((lastSeconds - firstSeconds) * 1000) / (tokens - 1);
}

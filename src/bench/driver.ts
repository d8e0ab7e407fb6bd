/**
 * The open loop: each request goes out when it is due, whatever became of those before. How late
 * this process itself was is measured, because it would look like the engine's doing.
 */

import type { RequestRecord } from "./samples.ts";
import type { StreamOutcome } from "./stream.ts";

export interface Due {
  /** Milliseconds of `performance.now()`. */
  readonly atMs: number;
  readonly index: number;
}

export interface OpenLoop {
  /** In order of time. */
  readonly dues: readonly Due[];
  /** Sends one request; must not throw and not reject. */
  readonly send: (due: Due) => Promise<void>;
  readonly signal: AbortSignal;
}

/** A timer may be a millisecond late; the last stretch is waited out between other events. */
const TIMER_SLACK_MS = 1.5;

/** Resolves when every request has ended; an abort sends no more of them. */
export async function runOpenLoop({ dues, send, signal }: OpenLoop): Promise<void> {
  const underWay: Promise<void>[] = [];
  for (const due of dues) {
    await waitUntil(due.atMs, signal);
    if (signal.aborted) break;
    underWay.push(send(due));
  }
  await Promise.all(underWay);
}

async function waitUntil(atMs: number, signal: AbortSignal): Promise<void> {
  for (;;) {
    const left = atMs - performance.now();
    if (left <= 0 || signal.aborted) return;
    await (left > TIMER_SLACK_MS ? sleep(left - TIMER_SLACK_MS, signal) : soon());
  }
}

function soon(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Resolves early when aborted. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, Math.min(ms, 2 ** 31 - 1));
    signal.addEventListener("abort", end, { once: true });
  });
}

/** What is known of a request besides what came back. */
export interface Sent {
  readonly index: number;
  readonly warmUp: boolean;
  readonly dueAtMs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
}

/** @param originMs the moment that seconds count from */
export function recordOf(sent: Sent, outcome: StreamOutcome, originMs: number): RequestRecord {
  const { tokensAtMs, promptTokens, outputTokens, failure } = outcome;
  const seconds = (ms: number): number => Math.round((ms - originMs) * 1000) / 1e6;
  const [first] = tokensAtMs;
  const last = tokensAtMs.at(-1);
  const itlMicros = tokensAtMs.slice(1).map((atMs, index) => {
    return Math.round((atMs - (tokensAtMs[index] as number)) * 1000);
  });
  return {
    index: sent.index,
    warmUp: sent.warmUp,
    dueSeconds: seconds(sent.dueAtMs),
    sentSeconds: seconds(outcome.sentAtMs),
    ...(first === undefined ? {} : { firstSeconds: seconds(first) }),
    ...(last === undefined ? {} : { lastSeconds: seconds(last) }),
    itlMicros,
    promptTokensWanted: sent.promptTokens,
    outputTokensWanted: sent.outputTokens,
    ...(promptTokens === undefined ? {} : { promptTokens }),
    ...(outputTokens === undefined ? {} : { outputTokens }),
    ...(outcome.resent ? { resent: true } : {}),
    ...(failure === undefined ? {} : { failure }),
  };
}

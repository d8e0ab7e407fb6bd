/** Time per output token at fixed numbers of concurrent requests. */

import { type StreamRequest, streamRequest } from "../../../src/bench/stream.ts";
import { ServerAddress } from "../../../src/measure/server-address.ts";
import { quantile } from "../../../src/measure/statistics.ts";

export interface DecodeResult {
  readonly concurrent: number;
  /** Time per output token, median over requests, in each repetition. */
  readonly tpotMs: readonly number[];
  /** From one step's beginning to the next in the engine, median over each repetition's steps. */
  readonly stepMs?: readonly number[];
}

/** What the engine's own steps took between two moments of `performance.now()`, if it is known. */
export type StepClock = (concurrent: number, fromMs: number, toMs: number) => number | undefined;

export const LEVELS = [1, 8, 64, 256] as const;
const OUTPUT_TOKENS = 128;
const WARM_UP_TOKENS = 16;
const PROMPT_TOKENS = 32;
const REQUEST_MS_MAX = 120_000;
/** Ids below 1000 are bytes and special tokens; all our vocabularies reach beyond the sum. */
const FIRST_ID = 1000;
const IDS = 90_000;

/**
 * Milliseconds of the first and the last token.
 *
 * @throws Error when the request failed
 */
export async function streamed(
  request: StreamRequest,
): Promise<{ readonly firstAtMs: number; readonly lastAtMs: number }> {
  const { tokensAtMs, failure } = await streamRequest(request);
  if (failure !== undefined) throw new Error(`${failure.kind}: ${failure.detail}`);
  return { firstAtMs: tokensAtMs[0] as number, lastAtMs: tokensAtMs.at(-1) as number };
}

/** Token ids that no other seed's prompt begins with. */
export function promptIds(length: number, seed: number): number[] {
  return Array.from({ length }, (_, i) => FIRST_ID + ((seed * 7919 + i * 104_729) % IDS));
}

export function completion(
  url: URL,
  model: string,
  maxTokens: number,
  seed: number,
): StreamRequest {
  return {
    server: new ServerAddress(url),
    endpoint: "completions",
    model,
    prompt: promptIds(PROMPT_TOKENS, seed),
    maxTokens,
    ignoreEos: true,
    timeoutMs: REQUEST_MS_MAX,
  };
}

export async function decodeLevel(
  url: URL,
  model: string,
  concurrent: number,
  repetitions: number,
  stepClock?: StepClock,
): Promise<DecodeResult> {
  const round = (maxTokens: number) =>
    Promise.all(
      Array.from({ length: concurrent }, (_, i) => streamed(completion(url, model, maxTokens, i))),
    );
  await round(WARM_UP_TOKENS); // First use of a size; in lazy mode the time to earn its graph.
  const tpotMs: number[] = [];
  const stepMs: number[] = [];
  for (let repetition = 0; repetition < repetitions; repetition += 1) {
    const times = await round(OUTPUT_TOKENS);
    const [firstMs, lastMs] = [
      Math.min(...times.map(({ firstAtMs }) => firstAtMs)),
      Math.max(...times.map(({ lastAtMs }) => lastAtMs)),
    ];
    const own = stepClock?.(concurrent, firstMs, lastMs);
    if (own !== undefined) stepMs.push(own);
    tpotMs.push(
      quantile(
        times.map((t) => (t.lastAtMs - t.firstAtMs) / (OUTPUT_TOKENS - 1)),
        0.5,
      ),
    );
  }
  return { concurrent, tpotMs, ...(stepMs.length === repetitions ? { stepMs } : {}) };
}

/** Which requests a calibration sends, phase by phase. Pure. */

import type { CalibrationTable } from "./control.ts";

/** So many requests at once, each with a prompt and an answer of these lengths. */
export interface Wave {
  readonly table: CalibrationTable;
  readonly requests: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** How often, one after the other. */
  readonly rounds: number;
  /** A wave that the engine may refuse: its prompt may be longer than the model takes. */
  readonly optional: boolean;
}

/** What a client saw of a wave: every round, from the first request sent to the last answer. */
export interface TimedWave {
  readonly wave: Wave;
  readonly seconds: readonly number[];
}

export interface WaveInput {
  /** Planned sizes to measure, rising. */
  readonly sizes: readonly number[];
  readonly maxRequests: number;
  readonly maxBatchedTokens: number;
  readonly kvCacheTokens: number;
}

const PROMPT_TOKENS = 32;
/** A prompt that takes the context term far from that of a short one. */
const LONG_PROMPT_TOKENS = 2048;
/** Decode steps that a wave runs together for, besides the time that its requests take to arrive. */
const DECODE_STEPS = 48;
const PROMPT_ROUNDS = 12;
const LONG_ROUNDS = 6;
/** With more requests long contexts would fill the cache. */
const LONG_REQUESTS_MAX = 64;

/** The order matters: `tops` needs the tops only, `exact` comes after every capture. */
export function wavesOf(input: WaveInput): Wave[] {
  const { sizes, maxBatchedTokens } = input;
  const tables = ["none", "tops", "exact"] as const;
  return tables.flatMap((table) => [
    ...sizes.flatMap((size) => decodeWaves(table, size, input)),
    // Padded prompts tell nothing that exact ones don't.
    ...(table === "tops" ? [] : promptWaves(table, sizes)),
    ...(table === "none" ? longPromptWaves(sizes.at(-1) ?? 1, maxBatchedTokens, input) : []),
  ]);
}

function decodeWaves(table: CalibrationTable, size: number, input: WaveInput): Wave[] {
  const { maxRequests, kvCacheTokens } = input;
  // Requests arrive one by one: whoever came first must still be there when the last one joins.
  const outputTokens = DECODE_STEPS + size;
  const fits = size <= maxRequests && size * (PROMPT_TOKENS + outputTokens) <= kvCacheTokens;
  if (!fits) return [];
  const wave = { table, requests: size, outputTokens, rounds: 1 };
  const short = { ...wave, promptTokens: PROMPT_TOKENS, optional: false };
  const room = Math.floor(kvCacheTokens / size) - outputTokens;
  const promptTokens = Math.min(LONG_PROMPT_TOKENS, room);
  if (size > LONG_REQUESTS_MAX || promptTokens < 4 * PROMPT_TOKENS) return [short];
  return [short, { ...wave, promptTokens, optional: true }];
}

/** One prompt after the other: alone in their steps, what they attend to is known. */
function promptWaves(table: CalibrationTable, sizes: readonly number[]): Wave[] {
  return sizes
    .filter((size) => size > 1)
    .map((size) => ({
      table,
      requests: 1,
      promptTokens: size,
      outputTokens: 1,
      rounds: PROMPT_ROUNDS,
      optional: false,
    }));
}

/** Beyond the largest graph, and twice as long as a step may be: the second half sees the first. */
function longPromptWaves(top: number, maxBatchedTokens: number, input: WaveInput): Wave[] {
  const lengths = [2 * top, 4 * top, 8 * top, maxBatchedTokens / 2, maxBatchedTokens]
    .map(Math.floor)
    .filter((tokens) => tokens > top && tokens <= maxBatchedTokens);
  return [...new Set([...lengths, 2 * maxBatchedTokens])]
    .filter((tokens) => tokens + 1 <= input.kvCacheTokens)
    .sort((a, b) => a - b)
    .map((promptTokens) => ({
      table: "none",
      requests: 1,
      promptTokens,
      outputTokens: 1,
      rounds: LONG_ROUNDS,
      optional: true,
    }));
}

/** A dozen or so of the planned sizes, evenly in octaves, both ends among them. */
export function defaultSizes(planned: readonly number[]): number[] {
  const sorted = [...new Set(planned)].sort((a, b) => a - b);
  const largest = sorted.at(-1) ?? 1;
  const wanted: number[] = [];
  for (let size = 1; size <= largest; size *= 2) wanted.push(size, 1.5 * size);
  wanted.push(largest);
  const nearest = (tokens: number): number =>
    sorted.reduce((best, size) =>
      Math.abs(size - tokens) < Math.abs(best - tokens) ? size : best,
    );
  return [...new Set([sorted[0] ?? 1, ...wanted.map(nearest)])].sort((a, b) => a - b);
}

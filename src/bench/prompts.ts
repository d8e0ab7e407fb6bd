/**
 * Prompts of a wanted number of tokens for a server whose tokenizer we don't have: token ids where
 * it tells some, else words, as many as its own counts say.
 */

import PQueue from "p-queue";
import { createRandom } from "../base/random.ts";
import type { ScheduledRequest } from "./load.ts";
import { type PromptPart, partsOf } from "./prompt-parts.ts";
import type { Endpoint } from "./stream.ts";

/** Asks a server how many tokens something has. */
export interface TokenCounter {
  /** Ids and count of a text; undefined when the server has no `/tokenize`. */
  tokenize(text: string): Promise<readonly number[] | undefined>;
  /** `usage.prompt_tokens` of a request with this text; undefined when it doesn't tell. */
  promptTokens(text: string): Promise<number | undefined>;
}

export type Prompt = string | readonly number[];

export interface PromptMaker {
  /** How lengths are met, for the report. */
  readonly how: string;
  prompt(request: ScheduledRequest, index: number): Prompt;
}

/** Short, common, and one token each in most vocabularies. */
const WORDS =
  "the of and to in is that for it as was with be by on not he his but at are this have from or " +
  "had an they which one you were her all she there would their we him been has when who will " +
  "more no if out so said what up its about into than them can only other new some could time " +
  "these two may then do first any my now such like our over man me even most made after also " +
  "did many before must through back years where much your way well down should because each " +
  "just those people how too little state good very make world still own see men work long get " +
  "here between both life being under never day same another know while last might us great old " +
  "year off come since against go came right used take three";

const VOCABULARY = WORDS.split(" ");
const PROBE_WORDS = [16, 144] as const;
/** Even a tokenizer of single bytes has more; fewer would make prompts that share prefixes. */
const IDS_MIN = 16;

export interface PromptOptions {
  readonly endpoint: Endpoint;
  readonly counter: TokenCounter;
  /** @default 0 */
  readonly seed?: number | undefined;
  /** Text also where ids would do: the server's tokenizer is then part of what is measured. */
  readonly text?: boolean;
}

/** Asks the server for a few counts first; with `text` for that of every word. */
export async function createPromptMaker(options: PromptOptions): Promise<PromptMaker> {
  const { endpoint, counter, seed = 0, text: asText = false } = options;
  if (asText) {
    const counted = await createWordCounts(counter);
    if (counted !== undefined) return fromCounts(counted, seed);
  } else if (endpoint === "completions") {
    const ids = await counter.tokenize(VOCABULARY.join(" "));
    const distinct = [...new Set(ids ?? [])];
    if (distinct.length >= IDS_MIN) {
      return {
        how: "token ids",
        prompt: (request, index) =>
          request.text ??
          partsOf(request, index, seed).flatMap(({ tokens, random }) => {
            return idsOf(distinct, tokens, random);
          }),
      };
    }
  }
  const [few, many] = await Promise.all(
    PROBE_WORDS.map((count) => counter.promptTokens(probeOf(count, seed))),
  );
  const fit = fitOf(few, many);
  const text = (request: ScheduledRequest, index: number): string => {
    return request.text ?? fittedText(partsOf(request, index, seed), fit);
  };
  return { how: fit.how, prompt: text };
}

interface WordCounts {
  /** Tokens of each word with the blank before it. */
  readonly tokens: ReadonlyMap<string, number>;
  /** What a prompt costs besides: a start token, a chat template. */
  readonly overhead: number;
}

const ASKED_AT_ONCE = 16;

/** Undefined where the server doesn't tell, or its tokens don't add up word by word. */
async function createWordCounts(counter: TokenCounter): Promise<WordCounts | undefined> {
  const words = [...new Set(VOCABULARY)];
  const all = (await counter.tokenize(textOf(words)))?.length;
  if (all === undefined) return undefined;
  const queue = new PQueue({ concurrency: ASKED_AT_ONCE });
  const counts = await queue.addAll(
    words.map((word) => async () => (await counter.tokenize(textOf([word])))?.length ?? 0),
  );
  const tokens = new Map(words.map((word, index) => [word, counts[index] ?? 0]));
  if (counts.some((count) => count < 1) || all !== sumOf(words, tokens)) return undefined;
  const probe = words.slice(0, PROBE_WORDS[0]);
  const told = await counter.promptTokens(textOf(probe));
  return { tokens, overhead: Math.max(0, (told ?? 0) - sumOf(probe, tokens)) };
}

function fromCounts({ tokens, overhead }: WordCounts, seed: number): PromptMaker {
  // Of those that fit, the first: the longest, so that little is left over.
  const byLength = [...tokens].sort(([, a], [, b]) => b - a);
  const prompt = (request: ScheduledRequest, index: number): string => {
    if (request.text !== undefined) return request.text;
    const words: string[] = [];
    let left = -overhead;
    for (const part of partsOf(request, index, seed)) {
      left += part.tokens;
      while (left > 0 || words.length === 0) {
        const drawn = VOCABULARY[Math.floor(part.random() * VOCABULARY.length)] as string;
        const fits = (tokens.get(drawn) as number) <= left;
        const [word] = fits ? [drawn] : (byLength.find(([, count]) => count <= left) ?? []);
        // A prompt has a word, however short it was wanted.
        if (word === undefined && words.length > 0) break;
        words.push(word ?? drawn);
        left -= tokens.get(word ?? drawn) as number;
      }
    }
    return textOf(words);
  };
  return { how: "words, each counted by the server's tokenizer", prompt };
}

/** With a blank before each, so that every word costs the same wherever it stands. */
function textOf(words: readonly string[]): string {
  return words.map((word) => ` ${word}`).join("");
}

function sumOf(words: readonly string[], tokens: ReadonlyMap<string, number>): number {
  return words.reduce((total, word) => total + (tokens.get(word) as number), 0);
}

function probeOf(count: number, seed: number): string {
  return drawWords(count, createRandom((Math.imul(1 - count, 0x9e3779b1) ^ seed) >>> 0)).join(" ");
}

interface Fit {
  readonly perWord: number;
  readonly overhead: number;
  readonly how: string;
}

/** A chat template and a start token cost the same whatever the length. */
function fitOf(few: number | undefined, many: number | undefined): Fit {
  const [wordsFew, wordsMany] = PROBE_WORDS;
  if (few === undefined || many === undefined || many <= few) {
    return { perWord: 1, overhead: 0, how: "words, one a token; the server tells no counts" };
  }
  const perWord = (many - few) / (wordsMany - wordsFew);
  const overhead = Math.max(0, few - perWord * wordsFew);
  const rounded = `${perWord.toFixed(3)} tokens a word and ${overhead.toFixed(0)} besides`;
  return { perWord, overhead, how: `words, by the server's usage: ${rounded}` };
}

/** Words by how many fit up to the end of each part, so that what parts share stays shared. */
function fittedText(parts: readonly PromptPart[], { overhead, perWord }: Fit): string {
  const words: string[] = [];
  let end = 0;
  for (const { tokens, random } of parts) {
    end += tokens;
    const count = Math.round((end - overhead) / perWord) - words.length;
    // One by one: as arguments of one call, over a hundred thousand words are too many.
    for (const word of drawWords(Math.max(0, count), random)) words.push(word);
  }
  const [first] = parts;
  return (words.length === 0 && first ? drawWords(1, first.random) : words).join(" ");
}

function idsOf(ids: readonly number[], count: number, random: () => number): number[] {
  return Array.from({ length: count }, () => ids[Math.floor(random() * ids.length)] as number);
}

function drawWords(count: number, random: () => number): string[] {
  const pick = (): string => VOCABULARY[Math.floor(random() * VOCABULARY.length)] as string;
  return Array.from({ length: count }, pick);
}

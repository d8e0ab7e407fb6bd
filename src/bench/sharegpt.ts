/** ShareGPT-format files: `[{"conversations": [{"from": "human", "value": …}, …]}, …]`. */

import { codeOf, LazygraphError } from "../base/errors.ts";
import { parseJsonFile } from "../base/parse-json.ts";
import { readRegularFile, unreadable } from "../base/read-file.ts";

/** The first question of a conversation and the length of its answer. */
export interface Conversation {
  readonly prompt: string;
  /** By o200k's tokens: files carry no counts. What the server counted is in the results. */
  readonly inputLen: number;
  readonly outputLen: number;
}

const FILE_BYTES_MAX = 1 << 30;
/** As `vllm bench serve` filters: shorter ones say nothing, longer ones swamp the rest. */
const TOKENS_MIN = 4;
const INPUT_TOKENS_MAX = 1024;
const TOKENS_MAX = 2048;
/** Blanks apart, nothing has so many characters a token. */
const CHARS_MAX = 128 * TOKENS_MAX;

/** Why a conversation is left out. */
const REASONS = ["without two turns of text", "too short", "too long"] as const;
type Reason = (typeof REASONS)[number];
type CountTokens = (text: string) => number;

export interface ShareGpt {
  readonly conversations: readonly Conversation[];
  /** One sentence where conversations were left out, and why. */
  readonly note: string | undefined;
}

/** @throws LazygraphError `ERR_LAZYGRAPH_TRACE` that names the file and what was expected */
export async function readShareGpt(file: string): Promise<ShareGpt> {
  let entries: unknown;
  try {
    entries = parseJsonFile(readRegularFile(file, FILE_BYTES_MAX).toString());
  } catch (error) {
    throw fileError(file, "a readable JSON file in ShareGPT's format", unreadable(error));
  }
  if (!Array.isArray(entries)) throw fileError(file, "a JSON list of conversations", "none");
  const countTokens = await loadTokenizer();
  const conversations: Conversation[] = [];
  const left = new Map<Reason, number>();
  for (const entry of entries as readonly unknown[]) {
    const found = conversationOf(entry, countTokens);
    if (typeof found === "string") left.set(found, (left.get(found) ?? 0) + 1);
    else conversations.push(found);
  }
  if (conversations.length > 0) {
    return { conversations, note: noteOf(file, conversations.length, entries.length, left) };
  }
  throw fileError(
    file,
    `a conversation of at least two turns and ${TOKENS_MIN} to ${TOKENS_MAX} tokens`,
    `none among ${entries.length}`,
  );
}

/** Words are no measure: some languages write none. It takes half a second, so only when needed. */
async function loadTokenizer(): Promise<CountTokens> {
  const { countTokens } = await import("gpt-tokenizer/encoding/o200k_base").catch(notInstalled);
  // Text that looks like a special token is text.
  return (text) => countTokens(text, { disallowedSpecial: new Set() });
}

/** 30 MB of tables for one kind of file: who doesn't read it should not have to install them. */
function notInstalled(error: unknown): never {
  if (codeOf(error) !== "ERR_MODULE_NOT_FOUND") throw error;
  throw new LazygraphError(
    "ERR_LAZYGRAPH_BENCH",
    "Expected the package gpt-tokenizer beside lazygraph, to count the tokens of ShareGPT's text, " +
      "got none: run `npm install gpt-tokenizer@4`.",
  );
}

function noteOf(
  file: string,
  used: number,
  all: number,
  left: ReadonlyMap<Reason, number>,
): string | undefined {
  if (left.size === 0) return undefined;
  const why = [...left].map(([reason, count]) => `${count} ${reason}`).join(", ");
  return `${used} of ${all} conversations of ${file} are used; left out: ${why}.`;
}

function conversationOf(entry: unknown, countTokens: CountTokens): Conversation | Reason {
  const turns = (entry as { conversations?: unknown } | null)?.conversations;
  const [question, answer] = Array.isArray(turns) ? turns : [];
  const prompt = turnText(question);
  const reply = turnText(answer);
  if (prompt === undefined || reply === undefined) return "without two turns of text";
  // What is far too long need not be counted.
  if (prompt.length > CHARS_MAX || reply.length > CHARS_MAX) return "too long";
  const inputLen = countTokens(prompt);
  const outputLen = countTokens(reply);
  if (inputLen < TOKENS_MIN || outputLen < TOKENS_MIN) return "too short";
  if (inputLen > INPUT_TOKENS_MAX || inputLen + outputLen > TOKENS_MAX) return "too long";
  return { prompt, inputLen, outputLen };
}

function turnText(turn: unknown): string | undefined {
  if (typeof turn !== "object" || turn === null || !("value" in turn)) return undefined;
  return typeof turn.value === "string" ? turn.value : undefined;
}

function fileError(file: string, expected: string, got: string): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_TRACE",
    `Expected ${file} to be ${expected}, got ${got}.`,
  );
}

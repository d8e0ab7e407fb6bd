/** ShareGPT-format files: `[{"conversations": [{"from": "human", "value": …}, …]}, …]`. */

import { readFile, stat } from "node:fs/promises";
import { codeOf, LazygraphError, messageOf } from "../errors.ts";
import { parseJsonFile } from "../parse-json.ts";

/** The first question of a conversation and the length of its answer. */
export interface Conversation {
  readonly prompt: string;
  /** Estimated from words: files carry no token counts. The server's own are in the results. */
  readonly inputLen: number;
  readonly outputLen: number;
}

const FILE_BYTES_MAX = 1 << 30;
/** English text has about four tokens in three words. */
const TOKENS_PER_WORD = 4 / 3;
/** As `vllm bench serve` filters: shorter ones say nothing, longer ones swamp the rest. */
const TOKENS_MIN = 4;
const INPUT_TOKENS_MAX = 1024;
const TOKENS_MAX = 2048;

/** @throws LazygraphError `ERR_LAZYGRAPH_TRACE` that names the file and what was expected */
export async function readShareGpt(file: string): Promise<Conversation[]> {
  let entries: unknown;
  try {
    const { size } = await stat(file);
    if (size > FILE_BYTES_MAX) throw new Error(`${size} bytes, over the limit of 1 GiB`);
    entries = parseJsonFile(await readFile(file, "utf8"));
  } catch (error) {
    const got = codeOf(error) ?? messageOf(error);
    throw fileError(file, "a readable JSON file in ShareGPT's format", got);
  }
  if (!Array.isArray(entries)) throw fileError(file, "a JSON list of conversations", "none");
  const conversations = entries.flatMap((entry: unknown) => conversationOf(entry) ?? []);
  if (conversations.length > 0) return conversations;
  throw fileError(
    file,
    `a conversation of at least two turns and ${TOKENS_MIN} to ${TOKENS_MAX} tokens`,
    `none among ${entries.length}`,
  );
}

function conversationOf(entry: unknown): Conversation | undefined {
  if (typeof entry !== "object" || entry === null || !("conversations" in entry)) return undefined;
  const [question, answer] = Array.isArray(entry.conversations) ? entry.conversations : [];
  const prompt = turnText(question);
  const reply = turnText(answer);
  if (prompt === undefined || reply === undefined) return undefined;
  const inputLen = tokensOf(prompt);
  const outputLen = tokensOf(reply);
  if (inputLen < TOKENS_MIN || outputLen < TOKENS_MIN) return undefined;
  if (inputLen > INPUT_TOKENS_MAX || inputLen + outputLen > TOKENS_MAX) return undefined;
  return { prompt, inputLen, outputLen };
}

function turnText(turn: unknown): string | undefined {
  if (typeof turn !== "object" || turn === null || !("value" in turn)) return undefined;
  return typeof turn.value === "string" ? turn.value : undefined;
}

function tokensOf(text: string): number {
  return Math.round(text.split(/\s+/).filter((word) => word !== "").length * TOKENS_PER_WORD);
}

function fileError(file: string, expected: string, got: string): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_TRACE",
    `Expected ${file} to be ${expected}, got ${got}.`,
  );
}

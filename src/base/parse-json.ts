import { messageOf } from "./errors.ts";

/**
 * JSON of a file that a person wrote: a byte order mark in front, as editors on Windows leave it,
 * is no part of it.
 *
 * @throws SyntaxError
 */
export function parseJsonFile(text: string): unknown {
  return JSON.parse(text.startsWith("\uFEFF") ? text.slice(1) : text);
}

/** What is wrong with a text that is no JSON, as the end of a sentence: `it has no colon …`. */
export function jsonFault(error: unknown): string {
  return `it can't be parsed (${messageOf(error).replace(/\.$/, "")})`;
}

/** The object or array that a text is; undefined for any other JSON, and for what is none. */
export function jsonObject(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/**
 * JSON of a file that a person wrote: a byte order mark in front, as editors on Windows leave it,
 * is no part of it.
 *
 * @throws SyntaxError
 */
export function parseJsonFile(text: string): unknown {
  return JSON.parse(text.startsWith("\uFEFF") ? text.slice(1) : text);
}

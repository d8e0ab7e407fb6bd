/** What a request can carry of a key and of headers, checked before anything is sent. Pure. */

import { OptionError } from "../base/errors.ts";

const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Of the connection or of the body: whoever sends them says these. */
const NOT_GIVEN: ReadonlySet<string> = new Set([
  "connection",
  "content-length",
  "expect",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/**
 * @returns the key without blanks and line ends around it, which files of secrets often have;
 *   undefined for nothing else
 * @throws OptionError, without the key, for one that no header can carry
 */
export function checkApiKey(option: string, key: string | undefined): string | undefined {
  const trimmed = key?.trim() ?? "";
  if (trimmed === "") return undefined;
  if (HEADER_VALUE.test(trimmed) && !/\s/.test(trimmed)) return trimmed;
  throw new OptionError(
    option,
    `Expected ${option} to be a key in one word of Latin characters, got one with others in it.`,
  );
}

/** @throws OptionError, without the value, for a header that no request can carry or that is not for the caller to say */
export function checkHeaders(
  option: string,
  headers: Readonly<Record<string, string>> | undefined,
): Readonly<Record<string, string>> | undefined {
  for (const [name, value] of Object.entries(headers ?? {})) {
    const shown = JSON.stringify(name.slice(0, 80));
    if (!HEADER_NAME.test(name) || !HEADER_VALUE.test(value)) {
      const expected = "names of headers, each with a value of one line";
      throw new OptionError(option, `Expected ${option} to be ${expected}, got ${shown}.`);
    }
    if (!NOT_GIVEN.has(name.toLowerCase())) continue;
    const expected = "no header of the connection or of the body's length";
    throw new OptionError(option, `Expected ${option} to be ${expected}, got ${shown}.`);
  }
  return headers;
}

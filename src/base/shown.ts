/** Values from outside, as they stand in an error's sentence. Pure. */

const CHARS_MAX = 80;

/** What a list, an object and nothing are called, by who tells of them. */
export interface Nouns {
  readonly list: string;
  readonly object: string;
  readonly null: string;
}

const NOUNS: Nouns = {
  list: "a list that breaks this rule",
  object: "an object that breaks this rule",
  null: "null",
};

/** With what is inside it: of files and bodies, which are the user's own. */
export function shownWhole(value: unknown, charsMax: number = CHARS_MAX): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > charsMax ? `${text.slice(0, charsMax - 3)}...` : text;
}

/**
 * Without what is inside an object, which may be a secret: an error ends up in logs. Control
 * characters are escaped, and an object need not have a text form.
 */
export function shown(value: unknown, { list, object, null: none }: Nouns = NOUNS): string {
  if (value === undefined) return "nothing";
  if (value === null) return none;
  if (typeof value === "string") {
    return JSON.stringify(value.length > CHARS_MAX ? `${value.slice(0, CHARS_MAX)}…` : value);
  }
  if (typeof value === "function") return "a function";
  if (typeof value === "object") return Array.isArray(value) ? list : object;
  return `${String(value)} (${typeof value})`;
}

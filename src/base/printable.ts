/**
 * Text from elsewhere (a model's name, an engine's reason) for a terminal: without control
 * characters, which could move the cursor or set colours, and bounded.
 */
export function printable(text: string, charsMax = 300): string {
  const clean = text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ");
  return clean.length > charsMax ? `${clean.slice(0, charsMax - 3)}...` : clean;
}

/** A number of things, in the right number: `1 start`, `2 starts`, `1 process`, `3 processes`. */
export function counted(count: number, noun: string, shown: string = String(count)): string {
  if (count === 1) return `${shown} ${noun}`;
  return `${shown} ${noun}${/(s|x|ch|sh)$/.test(noun) ? "es" : "s"}`;
}

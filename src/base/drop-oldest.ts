/** Keeps at most `max` names, called after each that is added: what was added first goes first. */
export function dropOldest(
  names: Pick<Map<string, unknown> | Set<string>, "size" | "keys" | "delete">,
  max: number,
): void {
  if (names.size <= max) return;
  for (const oldest of names.keys()) {
    names.delete(oldest);
    break;
  }
}

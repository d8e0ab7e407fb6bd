import { createHash } from "node:crypto";
import { dropOldest } from "../base/drop-oldest.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { ENGINES_MAX } from "./options.ts";

/** Hexadecimal digits. */
const DIGITS = 16;
/** The oldest first: a thousand digests take tens of milliseconds. */
const digests = new Map<string, string>();

/**
 * What others are told of a session: who knows one can say `hello` as its engine come back.
 */
export function toldSession(session: string): string {
  const known = digests.get(session);
  if (known !== undefined) return known;
  const all = createHash("sha256").update(`lazygraph session ${session}`).digest("hex");
  const digest = all.slice(0, DIGITS);
  digests.set(session, digest);
  dropOldest(digests, ENGINES_MAX);
  return digest;
}

/** A picture for whoever may read it, over HTTP or in a file. */
export function toldSnapshot(snapshot: EngineSnapshot): EngineSnapshot {
  return { ...snapshot, session: toldSession(snapshot.session) };
}

/**
 * The places of the protocol at which a side may die: at each message, right after it was sent or
 * taken in, the one or the other.
 */

import { FROM_ENGINE, TO_ENGINE } from "../../src/wire/validate.ts";

export type Victim = "controller" | "engine";
export type Moment = "sent" | "received";

export interface KillPoint {
  readonly message: string;
  readonly moment: Moment;
  readonly victim: Victim;
}

const MESSAGES = [...new Set([...Object.keys(FROM_ENGINE), ...Object.keys(TO_ENGINE)])];

export const KILL_POINTS: readonly KillPoint[] = MESSAGES.flatMap((message) =>
  (["sent", "received"] as const).flatMap((moment) =>
    (["controller", "engine"] as const).map((victim) => ({ message, moment, victim })),
  ),
);

export function nameOf({ message, moment, victim }: KillPoint): string {
  return `${victim} dies when ${message} is ${moment}`;
}

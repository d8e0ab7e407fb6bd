/** What every decision has in common: it is asked for, remembered, and told with its reason. */

import { LIMITS } from "../../wire/protocol.ts";
import type { DecisionEvent } from "../events.ts";
import type { EngineRecord } from "../record.ts";
import { noteDecision } from "./booking.ts";
import type { Happening, Inner, StepTools } from "./effects.ts";
import { announceDecision } from "./tell.ts";

export function ask(happening: Happening): Inner {
  return { type: "ask", happening };
}

/** What was decided is remembered too, for whoever asks later. */
export function* decided(
  record: EngineRecord,
  decision: Pick<DecisionEvent, "decision" | "graph" | "reason">,
  tools: StepTools,
): Generator<Inner, void, undefined> {
  noteDecision(record, { atUnixMs: tools.unixMs(), ...decision });
  if (tools.hears("lazygraph:decision")) yield announceDecision(decision);
}

/** Text of the user's or of a policy's as the protocol takes it: bounded, and well-formed. */
export function sentence(text: string): string {
  return Buffer.from(String(text).slice(0, LIMITS.textChars)).toString();
}

/** `GET /v1/engines`: of many engines pictures take long, and each follower asks twice a second. */

import type { Controller } from "../controller/controller.ts";
import { toldSnapshot } from "../controller/told-session.ts";
import { jsonAnswer, type TextAnswer } from "./answer.ts";

/** A list that takes less is made anew each time: of some fifty engines. */
const KEPT_FROM_MS = 20;
/** Lists take a tenth of this process's time at most, however many ask. */
const KEPT_PER_MS = 9;
const KEPT_MS_MAX = 10_000;

interface Kept {
  readonly answer: TextAnswer;
  readonly untilMs: number;
}

const lists = new WeakMap<Controller, Kept>();

/** @param nowMs a monotonic clock */
export function listOf(
  controller: Controller,
  nowMs: () => number = () => performance.now(),
): TextAnswer {
  const began = nowMs();
  const last = lists.get(controller);
  if (last !== undefined && began < last.untilMs) return last.answer;
  const answer = jsonAnswer({ engines: controller.engines().map(toldSnapshot) });
  const ended = nowMs();
  const tookMs = ended - began;
  if (tookMs < KEPT_FROM_MS) lists.delete(controller);
  else {
    const untilMs = ended + Math.min(KEPT_MS_MAX, KEPT_PER_MS * tookMs);
    lists.set(controller, { answer, untilMs });
  }
  return answer;
}

/** Whoever changes an engine over HTTP finds that in the next list. */
export function forgetList(controller: Controller): void {
  lists.delete(controller);
}

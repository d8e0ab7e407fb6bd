/**
 * `GET /v1/engines` and `GET /metrics`: of many engines pictures take long, each follower asks twice
 * a second, and anybody may ask all the time.
 */

import type { Controller } from "../controller/controller.ts";
import { toldSnapshot } from "../controller/told-session.ts";
import { jsonAnswer, TextAnswer } from "./answer.ts";
import type { MetricsSource } from "./route.ts";

/** What takes less is made anew each time: a list of some fifty engines. */
const KEPT_FROM_MS = 20;
/** Each takes a tenth of this process's time at most, however many ask. */
const KEPT_PER_MS = 9;
const KEPT_MS_MAX = 10_000;

interface Kept<A> {
  readonly answer: A;
  readonly untilMs: number;
}

const lists = new WeakMap<Controller, Kept<TextAnswer>>();
const scrapes = new WeakMap<MetricsSource, Kept<Promise<TextAnswer>>>();

/** @param nowMs a monotonic clock */
export function listOf(
  controller: Controller,
  nowMs: () => number = () => performance.now(),
): TextAnswer {
  const began = nowMs();
  const last = lists.get(controller);
  if (last !== undefined && began < last.untilMs) return last.answer;
  const answer = jsonAnswer({ engines: controller.engines().map(toldSnapshot) });
  lists.set(controller, { answer, untilMs: keptUntil(began, nowMs()) });
  return answer;
}

/** Who asks while an answer is made gets the same one. */
export async function scrapeOf(
  metrics: MetricsSource,
  nowMs: () => number = () => performance.now(),
): Promise<TextAnswer> {
  const began = nowMs();
  const last = scrapes.get(metrics);
  if (last !== undefined && began < last.untilMs) return last.answer;
  const answer = metrics.metrics().then((text) => new TextAnswer(metrics.contentType, text));
  scrapes.set(metrics, { answer, untilMs: Number.POSITIVE_INFINITY });
  let untilMs = Number.NEGATIVE_INFINITY;
  try {
    const made = await answer;
    untilMs = keptUntil(began, nowMs());
    return made;
  } finally {
    scrapes.set(metrics, { answer, untilMs });
  }
}

function keptUntil(began: number, ended: number): number {
  const tookMs = ended - began;
  if (tookMs < KEPT_FROM_MS) return Number.NEGATIVE_INFINITY;
  return ended + Math.min(KEPT_MS_MAX, KEPT_PER_MS * tookMs);
}

/** Whoever changes an engine over HTTP finds that in the next list. */
export function forgetList(controller: Controller): void {
  lists.delete(controller);
}

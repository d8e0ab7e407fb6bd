/** Sleep and wake of an engine as somebody asks for them, and what an answer says. */

import { LazygraphError } from "../base/errors.ts";
import type { Hello, Slept } from "../wire/protocol.ts";

/** How an engine is to sleep. */
export interface SleepOptions {
  /** 1: the weights are kept on the host; 2: they are given up, and loaded again. @default 1 */
  readonly level?: 1 | 2;
  /** Drops the graphs as well; they come back by plan and traffic after waking. @default false */
  readonly dropGraphs?: boolean;
}

/** How an engine is to wake up. */
export interface WakeOptions {
  /** Loads the weights again. @default where a sleep of level 2 by this engine's command gave them up */
  readonly reloadWeights?: boolean;
}

/** An engine may take ten minutes for one, and who gave up on an answer asks again. */
const WAITING_MAX = 64;

/**
 * @param waiting commands that wait for their turn
 * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_SLEEP unless the engine takes such commands, …_BUSY
 *   where too many wait
 */
export function requireSleeps({ engine, sleeps }: Hello, waiting: number): void {
  if (sleeps !== true) {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_ENGINE_SLEEP",
      `Expected an engine that can sleep, got ${engine}, which doesn't say so: start vLLM 0.31 or ` +
        "newer with --enable-sleep-mode, and with this version of the plugin.",
    );
  }
  if (waiting < WAITING_MAX) return;
  throw new LazygraphError(
    "ERR_LAZYGRAPH_BUSY",
    `Expected at most ${WAITING_MAX} commands to wait for ${engine}, got one more: wait for answers.`,
  );
}

const OUTCOMES: Readonly<Record<Slept["outcome"], string>> = {
  asleep: "is asleep",
  awake: "is awake",
  refused: "refused",
  failed: "failed",
};

/** @throws LazygraphError ERR_LAZYGRAPH_ENGINE_SLEEP, with the engine's own reason */
export function requireOutcome(engine: string, answer: Slept, wanted: "asleep" | "awake"): void {
  if (answer.outcome === wanted) return;
  const reason = answer.reason ?? "the engine gave no reason";
  throw new LazygraphError(
    "ERR_LAZYGRAPH_ENGINE_SLEEP",
    `Expected ${engine} to ${wanted === "awake" ? "wake up" : "go to sleep"}, but it ${OUTCOMES[answer.outcome]}: ${reason.replace(/\.$/, "")}.`,
  );
}

import { topGraphs } from "../../base/graph.ts";
import { largestMissing, mostWanted, nextRung } from "../order.ts";
import type { EngineEvent, Policy } from "../policy.ts";
import { StallAccount } from "../stall-budget.ts";
import type { EngineState } from "../state.ts";
import { createModePolicy } from "./base.ts";
import { EARNED_STEPS_MIN } from "./lazy.ts";

interface FillOptions {
  /**
   * Share of the time by which fill may hold up an engine that has work, 0 to 1.
   * @default 0: fill only while the engine has nothing to do
   */
  readonly fillShare?: number;
}

/** Saved up while the engine is spared: a few captures, so that no long row of them follows. */
const BURST_SECONDS = 0.1;
/** Expected of a capture before any was timed. */
const FIRST_STALL_SECONDS = 0.05;

/**
 * As lazy, and while the engine has nothing to do the rest of the plan: what any step wanted, then
 * a sparse ladder, then the largest first. With a `fillShare` also between the steps of an engine
 * that has work, at most so much of the time.
 */
export function createIdlePolicy({ fillShare = 0 }: FillOptions = {}): Policy {
  const busyFill = new BusyFill(fillShare);
  return createModePolicy({
    name: "idle-simple",
    endsAtReady: false,
    first: (planned) => ({ graphs: topGraphs(planned), reason: "the top graph of each kind" }),
    next(state, event) {
      busyFill.learn(state, event);
      const earned = mostWanted(state, EARNED_STEPS_MIN);
      if (earned !== undefined) return { ...earned, whenIdle: false };
      if (!state.idle && !busyFill.allows(state, event)) return undefined;
      const fill = mostWanted(state, 1) ?? nextRung(state) ?? largestMissing(state);
      if (fill === undefined || state.idle) return fill && { ...fill, whenIdle: true };
      busyFill.start(fill.graph.id);
      return { ...fill, whenIdle: false };
    },
  });
}

/** The stall that fill costs an engine with work: a share of the time, and what it took so far. */
class BusyFill {
  readonly #share: number;
  readonly #budget: StallAccount;
  #underWay: string | undefined;

  constructor(share: number) {
    this.#share = share;
    this.#budget = new StallAccount({ burstSeconds: BURST_SECONDS, share });
  }

  /** Whether another capture fits now. The next report of steps asks again. */
  allows(state: EngineState, { atSeconds }: EngineEvent): boolean {
    if (this.#share === 0) return false;
    return this.#budget.objection(atSeconds, expectedStallSeconds(state)) === undefined;
  }

  start(graph: string): void {
    this.#underWay = graph;
  }

  learn(state: EngineState, event: EngineEvent): void {
    if (event.type !== "captured" || event.graph !== this.#underWay) return;
    this.#underWay = undefined;
    const { captureMs } = state.graphs.get(event.graph) ?? {};
    this.#budget.spend(event.atSeconds, (captureMs ?? FIRST_STALL_SECONDS * 1000) / 1000);
  }
}

/** The mean capture so far. */
function expectedStallSeconds(state: EngineState): number {
  const timed = [...state.graphs.values()].flatMap(({ captureMs }) => captureMs ?? []);
  if (timed.length === 0) return FIRST_STALL_SECONDS;
  return timed.reduce((sum, ms) => sum + ms, 0) / timed.length / 1000;
}

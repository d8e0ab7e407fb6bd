/**
 * Who decides for one engine: one policy at a time, made when it is first asked. It may be the
 * user's: what it throws is told as a problem, and takes neither gateway nor snapshot down.
 */

import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { ExplainingPolicy, PolicyContext, PolicyMaker } from "../schedule/choice.ts";
import type { Decision, EngineEvent } from "../schedule/policy.ts";
import type { EngineState } from "../schedule/state.ts";
import { announceProblem } from "./announce.ts";
import type { EngineRecord } from "./record.ts";

/** An event of the policy's, without its time. */
export type Happening = EngineEvent extends infer E
  ? E extends EngineEvent
    ? Omit<E, "atSeconds">
    : never
  : never;

export interface PolicySeatOptions {
  readonly clock: Clock;
  readonly policy: PolicyMaker;
  /** What earlier starts learned, of the plan that the engine has now. */
  readonly context: () => PolicyContext | undefined;
}

export class PolicySeat {
  readonly #record: EngineRecord;
  readonly #options: PolicySeatOptions;
  #policy: ExplainingPolicy | undefined;

  constructor(record: EngineRecord, options: PolicySeatOptions) {
    this.#record = record;
    this.#options = options;
  }

  /** Forgets the policy and what it remembers: another mode, or another plan. */
  vacate(): void {
    this.#policy = undefined;
  }

  /** Asks the policy, and hands on its decisions one by one. */
  ask(happening: Happening, state: EngineState, carryOut: (decision: Decision) => void): void {
    const event = { ...happening, atSeconds: this.#options.clock.now() } as EngineEvent;
    try {
      this.#policy ??= this.#makePolicy(state);
      const policy = this.#policy;
      for (const decision of policy.decide(state, event)) {
        // A listener may have changed the mode, and with it who decides.
        if (this.#policy !== policy) break;
        carryOut(decision);
      }
    } catch (error) {
      // A policy may be the user's: what it throws must not take the gateway down.
      const why = messageOf(error);
      announceProblem(
        this.#record,
        "ERR_LAZYGRAPH_POLICY",
        `Expected the policy to decide on "${event.type}", but it threw: ${why}.`,
      );
    }
  }

  #makePolicy(state: EngineState): ExplainingPolicy {
    const { policy: make, context, clock } = this.#options;
    const policy = make(this.#record.mode, context());
    const { explain } = policy;
    this.#record.policy = policy.name;
    this.#record.explain =
      explain && ((id) => explained(() => explain.call(policy, state, id, clock.now())));
    return policy;
  }
}

/** A snapshot is everybody's: a policy that throws must not take that away. */
function explained(explain: () => string): string {
  try {
    return explain();
  } catch (error) {
    return `the policy threw: ${messageOf(error)}`;
  }
}

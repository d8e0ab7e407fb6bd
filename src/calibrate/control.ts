/**
 * The policy of a calibration: it captures and dispatches what it is told, and keeps every timed
 * step. It wakes itself ten times a second, so that orders don't wait for the engine to say
 * something.
 */

import { type Clock, systemClock, withinSeconds } from "../base/clock.ts";
import { LazygraphError } from "../base/errors.ts";
import { type Graph, topGraphs } from "../base/graph.ts";
import { decodeLength } from "../schedule/dispatch.ts";
import type { Decision, DispatchTable, EngineEvent, Policy } from "../schedule/policy.ts";
import { capturedGraphs, type EngineState, missingGraphs } from "../schedule/state.ts";
import { exactTable } from "../sim/virtual/comparators/exact.ts";
import { Cells } from "./cells.ts";

/** What serves steps: nothing, the tops whatever the step, or each step's own graph. */
export type CalibrationTable = "none" | "tops" | "exact";

const TICK_SECONDS = 0.1;
/** Without a request of ours an engine is idle at once, unless others use it. */
const IDLE_SECONDS_MAX = 60;

export class CalibrationControl {
  readonly cells: Cells = new Cells();
  readonly policy: Policy;
  /** The engine's, once it has told its graphs. */
  state: EngineState | undefined;
  /** `performance.now()` of that. */
  inventoryAtMs: number | undefined;
  #wanted: CalibrationTable = "none";
  #told: CalibrationTable | undefined;
  #capturing = false;
  #waiters: { readonly done: () => boolean; readonly resolve: () => void }[] = [];

  constructor() {
    this.policy = {
      name: "calibration",
      decide: (state, event) => this.#decide(state, event),
    };
  }

  /** Resolves when the engine has been told. */
  async table(table: CalibrationTable): Promise<void> {
    this.#wanted = table;
    await this.#until(() => this.#told === table);
  }

  /** Captures every graph that is missing; resolves when none is left that could be. */
  async captureAll(): Promise<void> {
    this.#capturing = true;
    await this.#until(() => {
      const { state } = this;
      return state !== undefined && state.capturing === undefined && left(state) === 0;
    });
    this.#capturing = false;
  }

  /** Resolves when the engine has nothing to do and all its steps have been reported. */
  async idle(clock: Clock = systemClock): Promise<void> {
    let ticks = 0;
    let over = false;
    const idle = this.#until(() => {
      ticks = this.state?.idle === true ? ticks + 1 : 0;
      // A batch of steps is told every 100 ms: two wakings later the last one is there.
      return ticks > 2;
    }).then(() => {
      over = true;
    });
    await withinSeconds(clock, IDLE_SECONDS_MAX, idle);
    if (over) return;
    const got = `${IDLE_SECONDS_MAX} s of others' work`;
    const message = `Expected an engine that nobody else uses, got ${got}.`;
    throw new LazygraphError("ERR_LAZYGRAPH_CALIBRATE", message);
  }

  /** Ends every wait: the engine is gone. */
  release(): void {
    for (const { resolve } of this.#waiters.splice(0)) resolve();
  }

  #until(done: () => boolean): Promise<void> {
    return new Promise((resolve) => void this.#waiters.push({ done, resolve }));
  }

  #decide(state: EngineState, event: EngineEvent): Decision[] {
    this.state = state;
    if (event.type === "inventory") {
      this.inventoryAtMs ??= performance.now();
      // Maybe another process, without any table.
      this.#told = undefined;
      if (!state.ready) {
        return [{ type: "start", graphs: topGraphs(state.planned), reason: "the tops alone" }];
      }
    }
    if (event.type === "demand") this.cells.add(event.steps ?? []);
    if (!state.ready) return [];
    const decisions: Decision[] = [];
    if (this.#told !== this.#wanted) {
      this.#told = this.#wanted;
      const table = tableOf(this.#wanted, state);
      decisions.push({ type: "dispatch", table, reason: `steps take: ${this.#wanted}` });
    }
    const [next] = missingGraphs(state);
    if (this.#capturing && state.capturing === undefined && next && event.type !== "deferred") {
      const reason = `${next.id}: to be measured`;
      decisions.push({ type: "capture", graph: next, whenIdle: true, reason });
    }
    if (event.type === "tick") this.#wake();
    decisions.push({ type: "wait", seconds: TICK_SECONDS, reason: "the next order" });
    return decisions;
  }

  /** On a tick only: what an event has decided must have been sent before somebody acts on it. */
  #wake(): void {
    const due = this.#waiters.filter(({ done }) => done());
    this.#waiters = this.#waiters.filter((waiter) => !due.includes(waiter));
    for (const { resolve } of due) resolve();
  }
}

function left(state: EngineState): number {
  return missingGraphs(state).length;
}

function tableOf(table: CalibrationTable, state: EngineState): DispatchTable {
  if (table === "none") return { uniform: [], mixed: [] };
  const captured = capturedGraphs(state);
  if (table === "exact") return exactTable(state.planned, captured);
  const decode = decodeLength(state.planned);
  const tops = topGraphs(captured);
  const row = (graph: Graph | undefined): DispatchTable["uniform"] =>
    graph === undefined ? [] : [{ upTo: graph.tokens, graphs: [graph.id] }];
  return {
    uniform: row(tops.find(({ uniform }) => uniform === decode) ?? tops.find(isAny)),
    mixed: row(tops.find(isAny)),
  };
}

function isAny({ uniform }: Graph): boolean {
  return uniform === undefined;
}

/**
 * The policy of a calibration: it captures and dispatches what it is told, and keeps every timed
 * step. It wakes itself ten times a second, so that orders don't wait for the engine.
 */

import { type Clock, systemClock } from "../base/clock.ts";
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
/** A live engine takes a table between two wakings. */
const TABLE_SECONDS_MAX = 60;
/** Without one graph more: a capture takes a fraction of a second, a lost one 60 s to be told. */
const CAPTURE_SECONDS_MAX = 120;
/** Without a request of ours an engine is idle at once, unless others use it. */
const IDLE_SECONDS_MAX = 60;

interface Waiting {
  readonly isDone: () => boolean;
  readonly end: () => void;
}

interface Wait {
  readonly seconds: number;
  /** After so many seconds. */
  readonly expected: () => string;
  /** @param goesOn begins the seconds anew */
  readonly isDone: (goesOn: () => void) => boolean;
}

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
  readonly #clock: Clock;
  readonly #waiting = new Set<Waiting>();

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
    this.policy = {
      name: "calibration",
      decide: (state, event) => this.#decide(state, event),
    };
  }

  /** Resolves when the engine is told; every wait rejects ERR_LAZYGRAPH_CALIBRATE in time. */
  async table(table: CalibrationTable): Promise<void> {
    this.#wanted = table;
    await this.#until({
      seconds: TABLE_SECONDS_MAX,
      expected: () => `an engine that takes orders, got no sign of it for ${TABLE_SECONDS_MAX} s`,
      isDone: () => this.#told === table,
    });
  }

  /** Captures every missing graph; resolves when none is left that could be. */
  async captureAll(): Promise<void> {
    let least = Number.POSITIVE_INFINITY;
    this.#capturing = true;
    try {
      await this.#until({
        seconds: CAPTURE_SECONDS_MAX,
        expected: () => this.#stuck(),
        isDone: (goesOn) => {
          const { state } = this;
          if (state === undefined) return false;
          const left = missingGraphs(state).length;
          if (left < least) goesOn();
          least = Math.min(least, left);
          return state.capturing === undefined && left === 0;
        },
      });
    } finally {
      this.#capturing = false;
    }
  }

  #stuck(): string {
    const { state } = this;
    const got = `none for ${CAPTURE_SECONDS_MAX} s`;
    if (state === undefined) return `an engine whose graphs can be captured, got ${got}`;
    const missing = missingGraphs(state);
    const why = missing[0] && state.graphs.get(missing[0].id)?.reason;
    const rest = `${missing.length} of ${state.planned.length} graphs are missing`;
    const last = why === undefined || why === "" ? "" : `, ${why.replace(/\.$/, "")}`;
    return `captures to go on while nobody else uses the engine, got ${got}: ${rest}${last}`;
  }

  /** Resolves when the engine is idle and all its steps are reported. */
  async idle(): Promise<void> {
    let ticks = 0;
    await this.#until({
      seconds: IDLE_SECONDS_MAX,
      expected: () => `an engine that nobody else uses, got ${IDLE_SECONDS_MAX} s of others' work`,
      isDone: () => {
        ticks = this.state?.idle === true ? ticks + 1 : 0;
        // Steps are told every 100 ms: two wakings later the last are there.
        return ticks > 2;
      },
    });
  }

  /** Ends every wait: the engine is gone. */
  release(): void {
    for (const { end } of [...this.#waiting]) end();
  }

  #until({ seconds, expected, isDone }: Wait): Promise<void> {
    return new Promise((resolve, reject) => {
      const late = (): void => {
        this.#waiting.delete(waiting);
        reject(new LazygraphError("ERR_LAZYGRAPH_CALIBRATE", `Expected ${expected()}.`));
      };
      let cancel = this.#clock.after(seconds, late);
      const goesOn = (): void => {
        cancel();
        cancel = this.#clock.after(seconds, late);
      };
      const end = (): void => {
        cancel();
        this.#waiting.delete(waiting);
        resolve();
      };
      const waiting: Waiting = { isDone: () => isDone(goesOn), end };
      this.#waiting.add(waiting);
    });
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

  /** On a tick only: what an event decided must be sent before somebody acts on it. */
  #wake(): void {
    const due = [...this.#waiting].filter(({ isDone }) => isDone());
    for (const { end } of due) end();
  }
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

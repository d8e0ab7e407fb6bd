/**
 * What must hold in every course: orders that somebody alive still knows, no graph captured twice,
 * nothing that grows. What only holds once faults have ended is looked at by `settledFaults`.
 */

import type { Controller } from "../../src/controller/controller.ts";
import type { LiveEvent } from "../../src/sim/live/live.ts";
import type { Mode, Orders } from "../../src/wire/protocol.ts";
import type { ControllerProcess, EngineProcess } from "./processes.ts";

/** An invariant that does not hold. */
export class Violation extends Error {
  override readonly name: string = "Violation";
}

/** A capture that was under way when it was frozen comes to its end, and is told late. */
const FREEZE_SECONDS_MAX = 3;
const TIMERS_MAX = 64;

interface Expected {
  mode: Mode | undefined;
  frozen: boolean;
  /** Whether the controller that is there was told, or has heard it from the engine. */
  controllerKnows: boolean;
}

export class Ledger {
  readonly #expected = new Map<string, Expected>();
  readonly #timeOf: () => number;

  constructor(timeOf: () => number) {
    this.#timeOf = timeOf;
  }

  // ---------------------------------------------------------------- orders

  /** The controller has taken an order. */
  ordered(name: string, order: { readonly mode: Mode } | { readonly frozen: true }): void {
    const before = this.#expected.get(name);
    const mode = "mode" in order ? order.mode : before?.mode;
    const frozen = "frozen" in order;
    this.#expected.set(name, { mode, frozen, controllerKnows: true });
  }

  /** Who has met an engine that knows the orders knows them, too. */
  met(controller: ControllerProcess | undefined, process: EngineProcess): void {
    const expected = this.#expected.get(process.name);
    if (expected === undefined || expected.controllerKnows || !process.isWith(controller)) return;
    expected.controllerKnows = matches(process.orders, expected);
  }

  /**
   * The controller is gone: what no engine knows either is forgotten by the world.
   *
   * @param lastWords what one that ends by itself has on its way to an engine
   */
  controllerGone(
    engines: Iterable<EngineProcess>,
    lastWords: (engine: EngineProcess) => Orders | undefined = () => undefined,
  ): void {
    const alive = [...engines].filter((engine) => engine.alive);
    for (const [name, expected] of this.#expected) {
      expected.controllerKnows = false;
      const its = alive.filter((one) => one.name === name);
      const known = its.some((one) => matches(lastWords(one) ?? one.orders, expected));
      if (!known) this.#expected.delete(name);
    }
  }

  engineGone({ name }: EngineProcess): void {
    if (this.#expected.get(name)?.controllerKnows === false) this.#expected.delete(name);
  }

  // ---------------------------------------------------------------- after everything that happens

  event(process: EngineProcess, event: LiveEvent): void {
    if (event.type === "ready")
      for (const id of process.engine.model.captured.keys()) process.held.add(id);
    if (event.type !== "capture") return;
    const { graph } = event;
    if (process.held.has(graph)) throw new Violation(`${process.name} captured ${graph} twice`);
    process.held.add(graph);
    const { frozenAtSeconds } = process;
    if (frozenAtSeconds === undefined) return;
    const seconds = this.#timeOf() - frozenAtSeconds;
    if (seconds > FREEZE_SECONDS_MAX) {
      throw new Violation(`${process.name} captured ${graph} ${seconds} s after it was frozen`);
    }
  }

  bounded(controller: ControllerProcess | undefined, engines: Iterable<EngineProcess>): void {
    for (const process of [controller, ...engines]) {
      if (process !== undefined && process.clock.timers > TIMERS_MAX) {
        throw new Violation(`a process has ${process.clock.timers} timers`);
      }
    }
  }

  // ---------------------------------------------------------------- once faults have ended

  /** Why the controller's picture and the engine's truth differ; undefined: they don't. */
  difference(controller: Controller, process: EngineProcess): string | undefined {
    const { name, engine } = process;
    const { model } = engine;
    const seen = controller.engines().find((one) => one.engine === name);
    if (seen === undefined) return "the controller doesn't know it";
    if (!seen.connected) return `it is not connected (${seen.lostReason})`;
    if (seen.session !== process.session) return "the controller has another process of that name";
    if (seen.phase !== model.phase) return `its phase is ${model.phase}, seen as ${seen.phase}`;
    if (seen.mode !== engine.mode) return `its mode is ${engine.mode}, seen as ${seen.mode}`;
    const captured = seen.graphs.filter(({ status }) => status === "captured").map(({ id }) => id);
    const [truth, picture] = [[...model.captured.keys()], captured].map((ids) => ids.sort().join());
    if (truth !== picture) return `it holds ${truth}, seen as ${picture}`;
    if (seen.asleep.length > 0 !== model.asleep) return `it sleeps: ${model.asleep}`;
    if (seen.capturing !== undefined) return `a capture of ${seen.capturing} is open`;
    if (seen.frozen !== (process.orders.frozen !== undefined)) {
      return `it is frozen by order: ${process.orders.frozen}, seen as ${seen.frozen}`;
    }
    if (process.requestsOpen > 0) return `${process.requestsOpen} requests are not answered`;
    return this.#broken(process);
  }

  /** An order that somebody still knew, and that does not hold. */
  #broken({ name, orders, engine }: EngineProcess): string | undefined {
    const expected = this.#expected.get(name);
    if (expected === undefined) return undefined;
    const { mode, frozen } = expected;
    if ((orders.frozen !== undefined) !== frozen) return `a freeze was ordered: ${frozen}`;
    if (mode !== undefined && engine.mode !== mode) {
      return `the mode ${mode} was ordered, it is ${engine.mode}`;
    }
    return undefined;
  }
}

function matches(orders: Orders, { mode, frozen }: Expected): boolean {
  return orders.mode === mode && (orders.frozen !== undefined) === frozen;
}

/** How a live engine sleeps and wakes, as its controller asks. */

import type { Slept } from "../../wire/protocol.ts";
import type { EngineModel } from "../model/engine.ts";
import { inventoryOf, ranksOf } from "../model/self-report.ts";
import type { EngineSession } from "./session.ts";

export class EngineSleep {
  readonly #model: EngineModel;
  readonly #talk: EngineSession;
  readonly #session: string;
  /** A sleep that waits until there is nothing to do. */
  #pending: { readonly command: number; readonly dropGraphs: boolean } | undefined;

  constructor(model: EngineModel, talk: EngineSession, session: string) {
    this.#model = model;
    this.#talk = talk;
    this.#session = session;
  }

  sleep(command: number, dropGraphs: boolean): void {
    const reason = this.#whyNotSleep();
    if (reason !== undefined) {
      this.#answer(command, "refused", { reason });
      return;
    }
    this.#pending = { command, dropGraphs };
    this.beginIfIdle();
  }

  /** As soon as it has nothing to do; what came by then is served first. */
  beginIfIdle(): void {
    const pending = this.#pending;
    if (pending === undefined || this.#model.hasWork) return;
    this.#pending = undefined;
    this.#model.asleep = true;
    const freedBytes = pending.dropGraphs ? this.#model.dropAll() : 0;
    this.#talk.tellInventory();
    this.#answer(pending.command, "asleep", { freedBytes });
  }

  wake(command: number): void {
    if (!this.#model.asleep) {
      this.#answer(command, "refused", { reason: "the engine is awake" });
      return;
    }
    this.#model.asleep = false;
    this.#talk.tellInventory();
    this.#answer(command, "awake", {});
  }

  #whyNotSleep(): string | undefined {
    if (this.#model.phase !== "serving") return "the engine doesn't serve yet";
    if (this.#model.asleep) return "the engine sleeps already: wake it first";
    return this.#pending === undefined ? undefined : "a sleep is under way already";
  }

  #answer(
    command: number,
    outcome: Slept["outcome"],
    more: { readonly reason?: string; readonly freedBytes?: number },
  ): void {
    this.#talk.answer({
      type: "slept",
      command,
      outcome,
      asleep: inventoryOf(this.#model, this.#session).asleep ?? [],
      seconds: 0,
      ...more,
      ranks: ranksOf(this.#model, this.#session),
      epoch: this.#model.epoch,
    });
  }
}

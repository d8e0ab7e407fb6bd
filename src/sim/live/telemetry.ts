/** Tells the controller of steps, in batches: what nobody takes is dropped and counted. */

import type { Clock } from "../../base/clock.ts";
import { REPORT_WEIGHT_MAX } from "../../schedule/costed/cost.ts";
import type { Telemetry } from "../../wire/protocol.ts";
import { StepCounts, type StepSeen } from "../model/step-counts.ts";

export interface StepTelemetryOptions {
  readonly clock: Clock;
  readonly load: () => Pick<Telemetry, "running" | "waiting">;
  /** Resolves to whether a controller got it. */
  readonly send: (message: Telemetry) => Promise<boolean>;
}

const BATCH_SECONDS = 0.1;

export class StepTelemetry {
  readonly #options: StepTelemetryOptions;
  /** As the plugin does: the policy takes a batch for no more measurements of one shape. */
  readonly #steps = new StepCounts(REPORT_WEIGHT_MAX);
  #sequence = 0;
  #batchesDropped = 0;
  #stopped = false;
  #cancel: () => void = () => {};

  constructor(options: StepTelemetryOptions) {
    this.#options = options;
  }

  add(step: StepSeen): void {
    this.#steps.add(step);
  }

  start(): void {
    if (this.#stopped) return;
    this.#cancel = this.#options.clock.after(BATCH_SECONDS, () => {
      void this.tell();
      this.start();
    });
  }

  /** For good; what is left can still be told. */
  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  /** What was counted so far, at once. */
  async tell(): Promise<void> {
    if (this.#steps.empty) return;
    const { load, send } = this.#options;
    const steps = this.#steps.take();
    const { running, waiting } = load();
    const dropped = this.#steps.dropped + this.#batchesDropped;
    const sequence = this.#sequence++;
    const told = await send({ type: "telemetry", sequence, dropped, steps, running, waiting });
    if (!told) this.#batchesDropped++;
  }
}

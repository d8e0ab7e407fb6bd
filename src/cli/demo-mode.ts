/** One mode of the demo: a controller, an engine process, a trace, and what came of it. */

import { LazygraphError } from "../base/errors.ts";
import { type Controller, createController } from "../controller/controller.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { startSimulatedEngine } from "../sim/live/child.ts";
import type { SimulatedEngineEvent } from "../sim/live/child-options.ts";
import { Sample, type Spread } from "../sim/virtual/figures.ts";
import type { Mode } from "../wire/protocol.ts";

export interface DemoSettings {
  readonly profile: string;
  readonly speed: number;
  readonly trace: { readonly file: string; readonly speed: number; readonly requests: number };
  /** Requests the trace really has. */
  readonly requests: number;
}

/** Seconds and milliseconds are simulated ones. */
export interface ModeFigures {
  readonly captureBeforeReadySeconds: number;
  readonly readySeconds: number;
  readonly ttftSeconds: Spread;
  readonly longestCaptureMs: number;
  /** From ready to the last capture; 0 without any. */
  readonly lastCaptureSeconds: number;
  readonly graphsCaptured: number;
  readonly graphsPlanned: number;
  readonly requests: number;
  readonly stepsExact: number;
  readonly stepsPadded: number;
  readonly stepsUngraphed: number;
}

/** Is told what happens while a mode runs. */
export interface ModeProgress {
  begin(mode: Mode): void;
  update(requests: number, graphs: string): void;
  ready(seconds: number): void;
  end(): void;
}

const ENGINE = "demo";
const JOIN_MS_MAX = 30_000;
/** An idle engine fills what is missing after the last request: seconds, not minutes. */
const SETTLE_MS_MAX = 15_000;
/** An engine that tells nothing that long hangs; a trace's gaps are shorter. */
const SILENCE_MS_MAX = 120_000;

export async function runMode(
  mode: Mode,
  settings: DemoSettings,
  progress: ModeProgress,
): Promise<ModeFigures> {
  progress.begin(mode);
  await using controller = createController({ mode, plan: false });
  await controller.start();
  const seen = new Seen(controller, progress);
  const silence = new AbortController();
  const { profile, speed, trace } = settings;
  const timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
  try {
    await using engine = await startSimulatedEngine({
      endpoint: controller.endpoint,
      engine: ENGINE,
      mode,
      profile,
      speed,
      trace,
      // On a busy host it would get ready alone, and the controller know nothing of that.
      handshakeMs: JOIN_MS_MAX,
      signal: silence.signal,
      onEvent(event) {
        timer.refresh();
        seen.happened(event);
      },
    });
    await controller.waitForEngine({ engine: ENGINE, signal: AbortSignal.timeout(JOIN_MS_MAX) });
    await engine.waitFor("drained");
    if (mode === "idle") await settled(controller);
    // Its last steps come before its goodbye.
    await engine.close();
    return seen.figures();
  } catch (error) {
    if (!silence.signal.aborted) throw error;
    throw new LazygraphError(
      "ERR_LAZYGRAPH_ENGINE_TIMEOUT",
      `Expected the simulated engine to go on, got nothing for ${SILENCE_MS_MAX / 1000} s: ` +
        "run it again where less else runs.",
      { cause: error },
    );
  } finally {
    clearTimeout(timer);
    progress.end();
  }
}

async function settled(controller: Controller): Promise<void> {
  const signal = AbortSignal.timeout(SETTLE_MS_MAX);
  try {
    await controller.waitForEngine({ engine: ENGINE, settled: true, signal });
  } catch (error) {
    // Not settled in time is a figure too: the table says how many graphs there are.
    if (!signal.aborted) throw error;
  }
}

/** Collects what the engine tells and what the controller knows. */
class Seen {
  readonly #controller: Controller;
  readonly #progress: ModeProgress;
  readonly #ttft = new Sample();
  #readySeconds = 0;
  #lastCaptureSeconds = 0;
  #longestCaptureMs = 0;

  constructor(controller: Controller, progress: ModeProgress) {
    this.#controller = controller;
    this.#progress = progress;
  }

  happened(event: SimulatedEngineEvent): void {
    if (event.type === "ready") {
      this.#readySeconds = event.atSeconds;
      this.#progress.ready(event.atSeconds);
    } else if (event.type === "capture") {
      this.#lastCaptureSeconds = event.atSeconds - this.#readySeconds;
      this.#longestCaptureMs = Math.max(this.#longestCaptureMs, event.ms);
    } else if (event.type === "request") {
      this.#ttft.add(event.firstTokenSeconds - event.arrivalSeconds);
    }
    const engine = this.#engine();
    const graphs = engine === undefined ? "" : `${engine.graphsCaptured}/${engine.graphsPlanned}`;
    this.#progress.update(this.#ttft.count, graphs);
  }

  figures(): ModeFigures {
    const engine = this.#engine();
    if (engine?.captureBeforeReadySeconds === undefined) {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_ENGINE_LOST",
        "Expected the controller to see the simulated engine get ready, but it did not: " +
          "run it again where less else runs.",
      );
    }
    return {
      captureBeforeReadySeconds: engine.captureBeforeReadySeconds,
      readySeconds: this.#readySeconds,
      ttftSeconds: this.#ttft.spread(),
      longestCaptureMs: this.#longestCaptureMs,
      lastCaptureSeconds: this.#lastCaptureSeconds,
      graphsCaptured: engine.graphsCaptured,
      graphsPlanned: engine.graphsPlanned,
      requests: this.#ttft.count,
      stepsExact: engine.stepsExact,
      stepsPadded: engine.stepsPadded,
      stepsUngraphed: engine.stepsUngraphed,
    };
  }

  #engine(): EngineSnapshot | undefined {
    return this.#controller.engines().find(({ engine }) => engine === ENGINE);
  }
}

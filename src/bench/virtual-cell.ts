/**
 * One run of a simulated engine in virtual time: the same files as of a run in real time, in a
 * fraction of its seconds, and without what HTTP and timers of this host add.
 */

import { setImmediate } from "node:timers/promises";
import { messageOf } from "../base/errors.ts";
import { resolveOptions } from "../controller/options.ts";
import { graphSnapshot } from "../engine/snapshot.ts";
import { loadProfile, withSizes } from "../profile/load.ts";
import type { Profile } from "../profile/profile.ts";
import { Drive } from "../sim/model/drive.ts";
import { EngineModel } from "../sim/model/engine.ts";
import type { CaptureOutcome, EngineObserver } from "../sim/model/engine-options.ts";
import { StepCounts } from "../sim/model/step-counts.ts";
import { createSetup, type Setup } from "../sim/virtual/setups.ts";
import { VirtualController } from "../sim/virtual/virtual-controller.ts";
import type { CellOptions } from "./cell.ts";
import { headOf, loadOf, modeOf, neverSettled, verdictOf } from "./run-head.ts";
import type { EngineFacts, RequestRecord, RunHead, RunTimes } from "./samples.ts";
import { controllerOptions, type ModeSpec } from "./spec.ts";
import { SampleWriter } from "./store.ts";
import { VirtualLoad } from "./virtual-load.ts";

/** As telemetry comes. */
const BATCH_SECONDS = 0.1;
/** Last steps are waited for. */
const AFTER_LAST_SECONDS = 0.25;
/** Turns after which this process looks at signals and writes what has come. */
const TURNS_AT_ONCE = 4_096;

const DIED = "The simulated engine died: a step found no memory.";

/** As `runCell`: only an unwritable folder is an error. */
export async function runVirtualCell(options: CellOptions): Promise<RunHead> {
  const run = new VirtualRun(options);
  const writer = await SampleWriter.open(options.folder, run.head());
  let head: RunHead;
  try {
    head = run.head(await run.execute(writer));
  } catch (error) {
    head = run.head({ status: "partial", reason: messageOf(error) });
  }
  await writer.close(head);
  return head;
}

class VirtualRun {
  readonly #options: CellOptions;
  readonly #startedAt = new Date().toISOString();
  readonly #load: VirtualLoad;
  readonly #steps = new StepCounts();
  readonly #profile: Profile;
  readonly #model: EngineModel;
  readonly #controller: VirtualController;
  /** Of captures that were ordered. */
  readonly #whenIdle = new Map<string, boolean>();
  #writer: SampleWriter | undefined;
  #times: RunTimes = {};
  #graphsAtReady: readonly string[] = [];
  #batchSeconds = 0;
  #done = 0;
  #failed = 0;

  constructor(options: CellOptions) {
    this.#options = options;
    const { spec, schedule, cell } = options;
    const mode = modeOf(options);
    this.#profile = profileOf(mode);
    this.#load = new VirtualLoad({
      schedule,
      fromSpawn: loadOf(options).start === "spawn",
      numWarmups: spec.numWarmups,
      onRecord: (record) => this.#record(record),
    });
    const setup = setupOf(mode, this.#profile);
    const { jitter = 0 } = mode.simulated ?? {};
    this.#model = new EngineModel({
      ...setup,
      profile: this.#profile,
      jitter,
      // Runs of one cell differ, and each comes out the same again.
      seed: cell.run,
      observer: this.#observer(),
    });
    this.#controller = new VirtualController({
      ...setup,
      model: this.#model,
      onEvent: ({ name, event }) => {
        if (name === "lazygraph:capture:start") this.#whenIdle.set(event.graph, event.whenIdle);
      },
    });
  }

  head(more: Partial<RunHead> = {}): RunHead {
    const simulated = `${this.#profile.title}; in virtual time`;
    const prompts = "lengths alone: nothing is sent";
    return headOf(this.#options, this.#startedAt, {
      ...{ simulated, prompts, times: this.#times },
      ...more,
    });
  }

  async execute(writer: SampleWriter): Promise<Partial<RunHead>> {
    const { schedule, signal, progress } = this.#options;
    this.#writer = writer;
    progress.phase("simulating");
    const drive = new Drive(this.#model, this.#load);
    let endSeconds = Number.POSITIVE_INFINITY;
    let now = 0;
    for (let turn = 1; ; turn++) {
      if (turn % TURNS_AT_ONCE === 0) await setImmediate();
      if (signal.aborted) return { status: "partial", reason: "The benchmark was stopped." };
      this.#beginWhenDue(now);
      if (this.#load.done) endSeconds = Math.min(endSeconds, now + AFTER_LAST_SECONDS);
      const at = this.#controller.nextSeconds(drive.nextSeconds);
      if (at === Number.POSITIVE_INFINITY || at > endSeconds) break;
      now = at;
      drive.advance(now);
      if (this.#model.phase === "stopping") return { status: "partial", reason: DIED };
      // A decision taken by the clock, not by the engine: an idle engine has to look at it.
      if (this.#controller.advance(now)) drive.poke(now);
    }
    if (!this.#load.done) throw neverSettled(this.#options.spec.readySecondsMax);
    this.#flush(now);
    this.#times = { ...this.#times, endSeconds: now };
    return { ...this.#facts(), ...verdictOf(schedule.length, this.#done, this.#failed) };
  }

  /** The schedule begins after the warm-up, or once the engine has settled. */
  #beginWhenDue(now: number): void {
    const { settledSeconds } = this.#controller;
    if (settledSeconds !== undefined) this.#times = { ...this.#times, settledSeconds };
    if (!this.#load.warm) return;
    const untilSettled =
      loadOf(this.#options).start === "settled" && modeOf(this.#options).mode !== undefined;
    const { readySecondsMax } = this.#options.spec;
    if (untilSettled && settledSeconds === undefined) {
      if (now - this.#controller.readySeconds > readySecondsMax)
        throw neverSettled(readySecondsMax);
      return;
    }
    this.#load.begin(now);
    this.#times = { ...this.#times, scheduleSeconds: now };
  }

  #observer(): EngineObserver {
    return {
      onLoaded: (at) => this.#controller.loaded(at),
      onReady: (at) => {
        this.#controller.ready(at);
        this.#graphsAtReady = [...this.#model.captured.keys()];
        this.#times = { ...this.#times, readySeconds: at };
        if (this.#load.originSeconds === 0) this.#times = { ...this.#times, scheduleSeconds: 0 };
        this.#memory(at);
        this.#load.ready(at);
      },
      onStep: (step, at) => {
        this.#controller.stepped(step, at);
        if (at - this.#batchSeconds >= BATCH_SECONDS) this.#flush(at);
        this.#steps.add(step);
      },
      onCaptureResult: (result, at) => {
        this.#captured(result, at);
        this.#controller.answered(result, at);
      },
      onDropResult: (result, at) => this.#controller.dropped(result, at),
      onEdge: (state, at) => this.#controller.edge(state, at),
      onToken: (tag, left, at) => this.#load.token(tag, left, at),
    };
  }

  #captured({ graph, outcome, ms, stallMs, bytes }: CaptureOutcome, endSeconds: number): void {
    if (outcome !== "captured") return;
    this.#writer?.keep({
      type: "capture",
      value: {
        graph,
        whenIdle: this.#whenIdle.get(graph) ?? false,
        reason: this.#controller.record.state?.graphs.get(graph)?.reason ?? "",
        startSeconds: endSeconds - Math.max(stallMs, ms) / 1000,
        ...{ endSeconds, ms, bytes, graphsCaptured: this.#model.captured.size },
      },
    });
    this.#memory(endSeconds);
  }

  #memory(atSeconds: number): void {
    const { freeBytes } = this.#model;
    const graphsCaptured = this.#model.captured.size;
    const takenBytes = this.#takenBytes();
    this.#writer?.keep({
      type: "memory",
      value: { atSeconds, graphsCaptured, takenBytes, freeBytes },
    });
  }

  #takenBytes(): number {
    let sum = 0;
    for (const { bytes } of this.#model.captured.values()) sum += bytes;
    return sum;
  }

  #flush(atSeconds: number): void {
    this.#batchSeconds = atSeconds;
    if (this.#steps.empty) return;
    const { running, waiting } = this.#model;
    const steps = this.#steps.take();
    const told = steps.map(({ tokens, requests, served, count, seconds, timed }) => {
      return { tokens, requests, served, count, seconds, timed };
    });
    this.#writer?.keep({ type: "steps", value: { atSeconds, running, waiting, steps: told } });
  }

  #record(record: RequestRecord): void {
    const { progress, schedule } = this.#options;
    const { firstSeconds, warmUp, failure } = record;
    const { firstTokenSeconds = Number.POSITIVE_INFINITY } = this.#times;
    if (firstSeconds !== undefined && firstSeconds < firstTokenSeconds) {
      this.#times = { ...this.#times, firstTokenSeconds: firstSeconds };
    }
    this.#writer?.keep({ type: "request", value: record });
    if (warmUp) return;
    this.#done++;
    if (failure !== undefined) this.#failed++;
    progress.requests(this.#done, this.#failed, schedule.length);
  }

  #facts(): Partial<RunHead> {
    const graphs = [...(this.#controller.record.state?.graphs.values() ?? [])].map(graphSnapshot);
    const engine: EngineFacts = {
      graphs,
      graphsPlanned: graphs.length,
      graphsCaptured: this.#model.captured.size,
      takenBytes: this.#takenBytes(),
    };
    return {
      ...{ engine, graphsAtReady: this.#graphsAtReady },
      captureBeforeReadySeconds: this.#model.captureSeconds,
    };
  }
}

function profileOf({ simulated = {} }: ModeSpec): Profile {
  const profile = loadProfile(simulated.profile);
  return simulated.sizes === undefined ? profile : withSizes(profile, simulated.sizes);
}

function setupOf(mode: ModeSpec, profile: Profile): Setup {
  if (mode.mode === undefined) return createSetup("stock", profile);
  const { policy } = resolveOptions(controllerOptions(mode));
  return { mode: mode.mode, policy };
}

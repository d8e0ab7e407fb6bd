/** One run of one cell: a fresh engine, a wait, a warm-up, the schedule, and its end. */

import { setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { counted } from "../base/counted.ts";
import { LazygraphError, messageOf } from "../base/errors.ts";
import { ServerAddress } from "../measure/server-address.ts";
import { type Due, recordOf, runOpenLoop, type Sent, sleep } from "./driver.ts";
import { createTokenCounter, servedModel } from "./endpoint.ts";
import { type EngineUnderTest, startEngine } from "./engine-under-test.ts";
import { defined } from "./fields.ts";
import { hostFacts } from "./host.ts";
import type { Load, ScheduledRequest } from "./load.ts";
import { createPromptMaker, type PromptMaker } from "./prompts.ts";
import { type CellPlan, headOf, loadOf, modeOf, neverSettled, verdictOf } from "./run-head.ts";
import type { RequestRecord, RunHead, RunTimes } from "./samples.ts";
import type { ModeSpec } from "./spec.ts";
import { runFile, runName, SampleWriter } from "./store.ts";
import { streamRequest } from "./stream.ts";

/** Is told how a run goes on. */
export interface RunProgress {
  phase(text: string): void;
  requests(done: number, failed: number, total: number): void;
}

export interface CellOptions extends CellPlan {
  readonly folder: string;
  readonly progress: RunProgress;
  readonly signal: AbortSignal;
}

const WARM_UPS_AT_ONCE = 8;
/** Telemetry comes ten times a second: the last steps of a run are waited for. */
const LAST_TELEMETRY_MS = 250;
const SETTLE_POLL_MS = 20;

/**
 * Runs one cell and writes its files. What goes wrong with the engine makes the run partial, with
 * its reason; only an unwritable folder is an error.
 */
export async function runCell(options: CellOptions): Promise<RunHead> {
  const run = new Run(options);
  const writer = await SampleWriter.open(options.folder, run.head());
  let head: RunHead;
  try {
    head = await run.execute(writer);
  } catch (error) {
    const reason = messageOf(error);
    head = run.head({ status: "partial", reason });
  }
  await writer.close(head);
  return head;
}

type Send = (
  request: ScheduledRequest,
  sent: Pick<Sent, "index" | "dueAtMs" | "warmUp">,
) => Promise<RequestRecord>;

class Run {
  readonly #options: CellOptions;
  readonly #mode: ModeSpec;
  readonly #load: Load;
  readonly #startedAt = new Date().toISOString();
  #times: RunTimes = {};
  #more: Partial<RunHead> = {};
  #writer: SampleWriter | undefined;
  #done = 0;
  #failed = 0;

  constructor(options: CellOptions) {
    this.#options = options;
    this.#mode = modeOf(options);
    this.#load = loadOf(options);
    // Every request under way listens, so that their number is no leak.
    setMaxListeners(0, options.signal);
  }

  head(more: Partial<RunHead> = {}): RunHead {
    const known = { times: this.#times, ...this.#more, ...more };
    return headOf(this.#options, this.#startedAt, known);
  }

  async execute(writer: SampleWriter): Promise<RunHead> {
    const { folder, cell, progress } = this.#options;
    this.#writer = writer;
    progress.phase("starting");
    const engine = await startEngine({
      mode: this.#mode,
      name: `bench/${runName(cell)}`,
      logFile: runFile(folder, cell, "log"),
      keep: (line) => writer.keep(line),
    });
    let failure: string | undefined;
    try {
      await this.#measure(engine);
    } catch (error) {
      failure = messageOf(error);
    }
    this.#more = { ...this.#more, ...this.#engineFacts(engine) };
    const { readySeconds = 0 } = this.#times;
    const compilations = await engine.compilations(readySeconds).catch(() => undefined);
    this.#more = { ...this.#more, ...defined({ compilations }) };
    // A command that has ended by now has not been asked to.
    const { end, log } = engine.command ?? {};
    const died = end && `${end}: see ${log}`;
    progress.phase("stopping");
    await engine.stop();
    return this.head(this.#verdict(failure, died));
  }

  #verdict(failure: string | undefined, died: string | undefined): Partial<RunHead> {
    const { schedule, signal } = this.#options;
    const partial = (reason: string): Partial<RunHead> => ({ status: "partial", reason });
    if (signal.aborted) return partial("The benchmark was stopped.");
    if (failure !== undefined) return partial(failure);
    if (died !== undefined) return partial(`The engine's command ended by ${died}.`);
    return verdictOf(schedule.length, this.#done, this.#failed);
  }

  async #measure(engine: EngineUnderTest): Promise<void> {
    const { spec, schedule, progress, signal } = this.#options;
    const since = (): number => (performance.now() - engine.originMs) / 1000;
    progress.phase("waiting for ready");
    await engine.command?.untilReady(engine.url, spec.readySecondsMax, signal);
    if (signal.aborted) return;
    if (engine.command !== undefined) this.#times = { ...this.#times, readySeconds: since() };
    const server = new ServerAddress(engine.url, spec.access);
    const { model, simulated } = await servedModel(server, spec.model, signal);
    if (simulated !== undefined) this.#more = { ...this.#more, simulated };
    const prompts = await createPromptMaker({
      endpoint: spec.endpoint,
      counter: createTokenCounter({ ...spec, server, model, signal }),
      seed: this.#load.seed,
      text: spec.textPrompts,
    });
    this.#more = { ...this.#more, model, prompts: prompts.how };
    const send = this.#sender(engine, server, model, prompts);
    let scheduleMs = engine.originMs;
    if (this.#load.start !== "spawn") {
      await this.#warmUp(send, engine);
      if (this.#load.start === "settled") await this.#untilSettled(engine);
      scheduleMs = performance.now();
    }
    const scheduleSeconds = (scheduleMs - engine.originMs) / 1000;
    this.#times = { ...this.#times, scheduleSeconds };
    progress.phase("measuring");
    const dues = schedule.map(({ atSeconds }, index) => {
      return { index, atMs: scheduleMs + atSeconds * 1000 };
    });
    await runOpenLoop({
      dues,
      signal,
      send: async (due: Due) => {
        const request = schedule[due.index] as ScheduledRequest;
        const record = await send(request, { index: due.index, dueAtMs: due.atMs, warmUp: false });
        this.#count(record);
      },
    });
    if (engine.watch !== undefined) await delay(LAST_TELEMETRY_MS);
    this.#times = { ...this.#times, endSeconds: since() };
  }

  #count(record: RequestRecord): void {
    const { progress, schedule } = this.#options;
    this.#done++;
    if (record.failure !== undefined) this.#failed++;
    progress.requests(this.#done, this.#failed, schedule.length);
  }

  #sender(
    engine: EngineUnderTest,
    server: ServerAddress,
    model: string,
    prompts: PromptMaker,
  ): Send {
    const { spec, signal } = this.#options;
    const { endpoint, ignoreEos, maxTokensSent, streamOptions } = spec;
    const requestFields = { endpoint, ignoreEos, ...defined({ maxTokensSent, streamOptions }) };
    return async (request, sent) => {
      const { promptTokens, outputTokens } = request;
      const outcome = await streamRequest({
        server,
        ...requestFields,
        model,
        prompt: prompts.prompt(request, sent.index),
        maxTokens: outputTokens,
        timeoutMs: spec.requestSecondsMax * 1000,
        signal,
      });
      const record = recordOf({ ...sent, promptTokens, outputTokens }, outcome, engine.originMs);
      const { firstSeconds } = record;
      const earliest = this.#times.firstTokenSeconds ?? Number.POSITIVE_INFINITY;
      if (firstSeconds !== undefined && firstSeconds < earliest) {
        this.#times = { ...this.#times, firstTokenSeconds: firstSeconds };
      }
      this.#writer?.keep({ type: "request", value: record });
      return record;
    };
  }

  /** The first request alone, for the time to the first token; then the rest, a few at once. */
  async #warmUp(send: Send, engine: EngineUnderTest): Promise<void> {
    const { spec, schedule, progress, signal } = this.#options;
    const first = { atSeconds: 0, promptTokens: 16, outputTokens: 1 };
    const sent = (index: number) => ({ index, dueAtMs: performance.now(), warmUp: true });
    const record = await send(first, sent(-1));
    if (engine.command !== undefined && record.failure?.kind === "unreachable") {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_BENCH",
        `Expected the engine to answer once it is ready, got ${record.failure.detail}: ` +
          `see ${engine.command.log}.`,
      );
    }
    if (spec.numWarmups === 0 || schedule.length === 0) return;
    progress.phase(`warming up with ${counted(spec.numWarmups, "request")}`);
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < spec.numWarmups && !signal.aborted) {
        const index = next++;
        const request = schedule[index % schedule.length] as ScheduledRequest;
        await send(request, sent(-2 - index));
      }
    };
    await Promise.all(Array.from({ length: WARM_UPS_AT_ONCE }, worker));
  }

  async #untilSettled({ watch }: EngineUnderTest): Promise<void> {
    const { spec, progress, signal } = this.#options;
    if (watch === undefined) return;
    progress.phase("waiting until settled");
    const deadline = performance.now() + spec.readySecondsMax * 1000;
    while (watch.seen.settledSeconds === undefined && !signal.aborted) {
      if (performance.now() > deadline) {
        throw neverSettled(spec.readySecondsMax);
      }
      await sleep(SETTLE_POLL_MS, signal);
    }
  }

  #engineFacts({ watch, simulated }: EngineUnderTest): Partial<RunHead> {
    const told = simulated === undefined ? {} : { simulated };
    if (watch === undefined) return told;
    const { seen } = watch;
    const { graphsAtReady, captureBeforeReadySeconds, settledSeconds } = seen;
    if (settledSeconds !== undefined) this.#times = { ...this.#times, settledSeconds };
    const engine = watch.snapshot();
    return {
      ...told,
      times: this.#times,
      ...(graphsAtReady === undefined ? {} : { graphsAtReady }),
      ...(captureBeforeReadySeconds === undefined ? {} : { captureBeforeReadySeconds }),
      ...(engine === undefined
        ? {}
        : { engine, host: hostFacts(engine.gpus.map(({ name }) => name)) }),
    };
  }
}

/**
 * Trace × policy × engine model in virtual time, in one process: an hour of traffic in seconds.
 *
 * The engine's process starts at second 0, with the first request. The step that drives real
 * engines decides, memory guard and retries included. Commands reach the engine at the next
 * boundary of two steps, without network time; demand comes in batches of 100 ms, as telemetry does.
 */

import * as v from "valibot";
import { callback, checkOption, rule } from "../../base/check-options.ts";
import { object } from "../../base/schema.ts";
import type { Profile } from "../../profile/profile.ts";
import type { PolicyMaker } from "../../schedule/choice.ts";
import type { Policy } from "../../schedule/policy.ts";
import type { TraceRequest } from "../../trace/trace.ts";
import type { RequestSample } from "../model/batcher.ts";
import { type Arrivals, Drive } from "../model/drive.ts";
import { EngineModel } from "../model/engine.ts";
import type { EngineObserver, EngineOptions } from "../model/engine-options.ts";
import { Sample, type Spread } from "./figures.ts";
import { VirtualController, type VirtualControllerOptions } from "./virtual-controller.ts";

export interface SimulateOptions
  extends Pick<EngineOptions, "warmUps" | "marginBytes" | "jitter" | "seed" | "captureInStep">,
    Pick<VirtualControllerOptions, "mode" | "guarded" | "plans" | "onEvent" | "onStep"> {
  readonly profile: Profile;
  /** Or what makes it, as for a controller: anew when captures go on after they had ended. */
  readonly policy: Policy | PolicyMaker;
  readonly requests: AsyncIterable<TraceRequest> | Iterable<TraceRequest>;
  /** Graphs that cost nothing, for comparisons. @default none */
  readonly freeGraphs?: "at start" | "when ready";
  /** Called for each request in order of completion. */
  readonly onRequest?: (sample: RequestSample) => void;
}

/** What one run came to. Seconds count from the start of the engine's process. */
export interface SimulatedRun {
  readonly policy: string;
  readonly requests: number;
  /** Requests that could never fit, or found too many waiting. */
  readonly requestsRefused: number;
  readonly ttftSeconds: Spread;
  readonly tpotSeconds: Spread;
  /** Sum over completed requests; differences of two policies' sums are added request-seconds. */
  readonly completionSecondsSum: number;
  readonly captureBeforeReadySeconds: number;
  readonly readySeconds: number;
  /** When capturing had ended, for the first time; undefined when it never did. */
  readonly settledSeconds: number | undefined;
  /** Longest capture after ready. */
  readonly stallSecondsMax: number;
  /** Before ready, and in the end. */
  readonly graphsAtReady: number;
  readonly graphsCaptured: number;
  readonly graphsPlanned: number;
  readonly graphBytes: number;
  readonly stepsExact: number;
  readonly stepsPadded: number;
  readonly stepsUngraphed: number;
  readonly preemptions: number;
  /** When a step found no memory, which ends an engine and this run; undefined: never. */
  readonly diedSeconds: number | undefined;
}

/** After the last request a policy gets this long to settle; one that never does is cut off. */
const AFTER_LAST_SECONDS_MAX = 3600;

/** @throws OptionError without a profile, a policy and requests */
export async function simulate(options: SimulateOptions): Promise<SimulatedRun> {
  checkOption("options", options, object);
  checkOption("profile", options.profile, object);
  checkOption("policy", options.policy, v.union([callback, object], "a policy, or what makes one"));
  checkOption("requests", options.requests, rule("a list or a stream of requests", areRequests));
  const figures = new Figures(options.onRequest);
  const arrivals = new BufferedArrivals(options.requests);
  let run: VirtualController | undefined;
  let graphsAtReady = 0;
  let diedSeconds: number | undefined;
  const observer: EngineObserver = {
    onLoaded: (at) => run?.loaded(at),
    onReady(at) {
      if (options.freeGraphs === "when ready") model.grantAll();
      graphsAtReady = model.captured.size;
      run?.ready(at);
    },
    onStep: (step, at) => run?.stepped(step, at),
    onCaptureResult: (result, at) => run?.answered(result, at),
    onDropResult: (result, at) => run?.dropped(result, at),
    onEdge: (state, at) => run?.edge(state, at),
    onRequest: (sample) => figures.add(sample),
    onOutOfMemory(at) {
      diedSeconds = at;
    },
  };
  const model = new EngineModel({ ...options, observer });
  if (options.freeGraphs === "at start") model.grantAll();
  const drive = new Drive(model, arrivals);
  const { policy } = options;
  run = new VirtualController({
    ...options,
    model,
    policy: typeof policy === "function" ? policy : () => policy,
  });
  let now = 0;
  let cutOffSeconds = Number.POSITIVE_INFINITY;
  for (;;) {
    if (arrivals.next === undefined && !arrivals.ended) await arrivals.refill();
    if (arrivals.ended && arrivals.next === undefined && !model.hasWork) {
      cutOffSeconds = Math.min(cutOffSeconds, now + AFTER_LAST_SECONDS_MAX);
    }
    run.skipBeats(drive.nextSeconds);
    const at = run.nextSeconds(drive.nextSeconds);
    if (at === Number.POSITIVE_INFINITY || at > cutOffSeconds) break;
    now = at;
    drive.advance(now);
    if (diedSeconds !== undefined) break;
    // A decision taken by the clock, not by the engine: an idle engine has to look at it.
    if (run.advance(now)) drive.poke(now);
  }
  return { ...figures.report(model, run), graphsAtReady, diedSeconds };
}

/** The next few thousand requests, so that a trace of any length needs the same memory. */
class BufferedArrivals implements Arrivals {
  ended = false;
  readonly #source: AsyncIterator<TraceRequest> | Iterator<TraceRequest>;
  #buffer: TraceRequest[] = [];
  #index = 0;

  constructor(requests: AsyncIterable<TraceRequest> | Iterable<TraceRequest>) {
    this.#source =
      Symbol.asyncIterator in requests
        ? requests[Symbol.asyncIterator]()
        : requests[Symbol.iterator]();
  }

  get next(): TraceRequest | undefined {
    return this.#buffer[this.#index];
  }

  shift(): void {
    this.#index++;
  }

  async refill(): Promise<void> {
    this.#buffer = [];
    this.#index = 0;
    while (this.#buffer.length < 4096) {
      const result = await this.#source.next();
      if (result.done === true) {
        this.ended = true;
        return;
      }
      this.#buffer.push(result.value);
    }
  }
}

class Figures {
  readonly #onRequest: ((sample: RequestSample) => void) | undefined;
  readonly #ttft = new Sample();
  readonly #tpot = new Sample();
  #completionSum = 0;

  constructor(onRequest: ((sample: RequestSample) => void) | undefined) {
    this.#onRequest = onRequest;
  }

  add(sample: RequestSample): void {
    this.#ttft.add(sample.firstTokenSeconds - sample.arrivalSeconds);
    if (sample.outputTokens > 1) {
      const seconds = sample.completionSeconds - sample.firstTokenSeconds;
      this.#tpot.add(seconds / (sample.outputTokens - 1));
    }
    this.#completionSum += sample.completionSeconds;
    this.#onRequest?.(sample);
  }

  report(
    model: EngineModel,
    run: VirtualController,
  ): Omit<SimulatedRun, "graphsAtReady" | "diedSeconds"> {
    const { policy = "unasked", state } = run.record;
    let graphBytes = 0;
    for (const { bytes } of model.captured.values()) graphBytes += bytes;
    return {
      policy,
      requests: this.#ttft.count,
      requestsRefused: model.requestsRefused,
      ttftSeconds: this.#ttft.spread(),
      tpotSeconds: this.#tpot.spread(),
      completionSecondsSum: this.#completionSum,
      captureBeforeReadySeconds: model.captureSeconds,
      readySeconds: run.readySeconds,
      settledSeconds: run.settledSeconds,
      stallSecondsMax: run.stallSecondsMax,
      graphsCaptured: model.captured.size,
      graphsPlanned: state?.planned.length ?? 0,
      graphBytes,
      stepsExact: state?.stepsExact ?? 0,
      stepsPadded: state?.stepsPadded ?? 0,
      stepsUngraphed: state?.stepsUngraphed ?? 0,
      preemptions: model.preemptions,
    };
  }
}

function areRequests(value: unknown): boolean {
  const its = Object(value) as { readonly [Symbol.iterator]?: unknown } & object;
  return Symbol.asyncIterator in its || (Symbol.iterator in its && typeof value !== "string");
}

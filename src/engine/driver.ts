/**
 * Drives one engine process: hands what happens to its step, and carries out what comes of it. A
 * driver outlives its connection and ends with the engine's process.
 *
 *   message, loss, order, timer, reading ─▶ step ─▶ effects ─▶ session, queue of commands, timers,
 *                                                              GPUs, listeners
 *
 * Commands that change which graphs an engine has go one at a time, however many are decided.
 */

import PQueue from "p-queue";
import type { Clock } from "../base/clock.ts";
import { type LazygraphError, messageOf } from "../base/errors.ts";
import type { Graph } from "../base/graph.ts";
import { MemoryGuard } from "../memory/guard.ts";
import type { EnginePlans } from "../plan/engine-plan.ts";
import type { PolicyMaker } from "../schedule/choice.ts";
import type { PlanRules } from "../schedule/rules.ts";
import type { Dropped, Hello, Mode, Orders } from "../wire/protocol.ts";
import type { Session } from "../wire/session.ts";
import { isHeard, publish, publishProblem } from "./events.ts";
import { BoundedProblems } from "./problems.ts";
import { createEngineRecord, type EngineRecord, type ProblemCounts } from "./record.ts";
import { type SharedMemory, sharedMemory } from "./shared-memory.ts";
import { requireOutcome, requireSleeps, type SleepOptions, type WakeOptions } from "./sleep.ts";
import type {
  CaptureEffect,
  Effect,
  EngineInput,
  EngineMessage,
  PublishEffect,
  StepTools,
  Timer,
} from "./step/effects.ts";
import { step } from "./step/step.ts";

export interface DriverOptions {
  readonly clock: Clock;
  readonly policy: PolicyMaker;
  readonly settleWithinSeconds: number | undefined;
  /** Graphs that the user pinned or excluded. @default none */
  readonly rules?: PlanRules;
  /** Where learned plans come from. @default none are */
  readonly plans?: EnginePlans;
  /** What was ordered for this engine before. @default nothing */
  readonly orders?: Orders;
  /** What engines share of memory. @default nothing: no margin, and no GPU of this host */
  readonly memory?: SharedMemory;
  /** When a capture of an idle engine may begin; undefined: at once. @default always */
  readonly pace?: () => Promise<void> | undefined;
  /** Called after every change that a snapshot shows, with whose it is. */
  readonly onChange: (record: EngineRecord) => void;
}

export class EngineDriver {
  readonly record: EngineRecord;
  readonly #clock: Clock;
  readonly #problems: BoundedProblems;
  readonly #shared: SharedMemory;
  readonly #tools: StepTools;
  readonly #onChange: (record: EngineRecord) => void;
  readonly #pace: () => Promise<void> | undefined;
  readonly #queue = new PQueue({ concurrency: 1 });
  readonly #timers = new Map<Timer, () => void>();
  #session: Session;
  /** What was reserved for the capture whose turn it is. */
  #granted: number | undefined;
  /** Resolves when the open capture is answered. */
  #answer: Promise<unknown> | undefined;

  constructor(hello: Hello, mode: Mode, session: Session, options: DriverOptions) {
    const {
      clock,
      policy,
      settleWithinSeconds,
      rules = {},
      plans,
      orders = {},
      onChange,
    } = options;
    const shared = options.memory ?? sharedMemory();
    const { ledger, gpus, marginBytes, utilization } = shared;
    const now = (): number => clock.now();
    const guard = new MemoryGuard({
      engine: hello.session,
      ledger,
      marginBytes,
      driverFree: (gpu) => gpus?.freeBytes(gpu),
      driverTotal: (gpu) => gpus?.totalBytes(gpu),
      now,
    });
    this.record = createEngineRecord(hello, mode, { guard, utilization, orders });
    this.#clock = clock;
    this.#problems = new BoundedProblems(clock);
    this.#shared = shared;
    this.#onChange = onChange;
    this.#pace = options.pace ?? (() => undefined);
    this.#session = session;
    this.#tools = {
      now,
      unixMs: () => Date.now(),
      policy,
      settleWithinSeconds,
      rules,
      plans,
      watchesGpus: gpus !== undefined,
      hears: isHeard,
    };
  }

  // ---------------------------------------------------------------- what happened

  /** Accepts the engine. Call once it can be found by its name: who hears of it may look it up. */
  join(): void {
    this.#step({ type: "join" });
  }

  /** The same engine process came back. */
  attach(hello: Hello, session: Session): void {
    this.#session = session;
    this.#step({ type: "return", hello });
  }

  /** Call when the session has ended; the record stays, and waits for the engine to come back. */
  detach(error: LazygraphError): void {
    this.#step({ type: "lost", error });
  }

  /**
   * Ends the driver: its process is gone for good, or the controller closes. Commands that still
   * wait come to nothing in their turn: who asked for a sleep is told so.
   */
  close(): void {
    this.#step({ type: "close" });
  }

  receive(message: EngineMessage): void {
    this.#step({ type: "message", message, answers: this.#isAnswer(message) });
  }

  /** Whether it settles the command that is open. */
  #isAnswer(message: EngineMessage): boolean {
    const { type } = message;
    const answers = type === "result" || type === "dropped" || type === "slept";
    return answers && this.#session.answer(message);
  }

  goodbye(reason: string): void {
    this.#step({ type: "goodbye", reason });
  }

  setMode(mode: Mode): void {
    this.#step({ type: "mode", mode });
  }

  freeze(reason: string): void {
    this.#step({ type: "freeze", reason });
  }

  /** The gateway expects so many requests in so many seconds. */
  announce(inSeconds: number, requests: number): void {
    this.#step({ type: "announce", inSeconds, requests });
  }

  /**
   * Has the engine sleep once what runs has ended, captures included.
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_SLEEP, …_LOST, …_TIMEOUT or ERR_LAZYGRAPH_BUSY
   */
  async sleep({ level = 1, dropGraphs = false }: SleepOptions): Promise<void> {
    requireSleeps(this.record.hello, this.#queue.size);
    const answer = await this.#queue.add(() => this.#session.sleep(level, dropGraphs));
    requireOutcome(this.record.hello.engine, answer, "asleep");
  }

  /** @throws LazygraphError as `sleep` */
  async wake({ reloadWeights }: WakeOptions): Promise<void> {
    requireSleeps(this.record.hello, this.#queue.size);
    const answer = await this.#queue.add(() => this.#session.wake(reloadWeights));
    requireOutcome(this.record.hello.engine, answer, "awake");
  }

  /** Free memory of this host's GPUs has crossed what is spoken for. */
  reviewMemory(): void {
    this.#step({ type: "review" });
  }

  countProblem(kind: keyof ProblemCounts, count: number): void {
    this.#step({ type: "problem", kind, count });
  }

  /** A fault of ours is told as one: it ends neither the loop that reads for all nor the process. */
  #step(input: EngineInput): void {
    try {
      for (const effect of step(this.record, input, this.#tools)) this.#carryOut(effect);
    } catch (error) {
      const { engine } = this.record.hello;
      publishProblem(
        engine,
        "ERR_LAZYGRAPH_INTERNAL",
        `Expected to carry out what "${input.type}" asks for of ${engine}, but it failed: ` +
          messageOf(error),
      );
      this.#onChange(this.record);
    }
  }

  // ---------------------------------------------------------------- what is done

  #carryOut(effect: Effect): void {
    switch (effect.type) {
      case "welcome":
        this.#session.welcome(effect.mode, effect.orders);
        break;
      case "send":
        this.#session.send(effect.message);
        break;
      case "capture":
        this.#capture(effect, this.#session);
        break;
      case "granted":
        this.#granted = effect.needBytes;
        break;
      case "command":
        this.#answer = this.#session.capture(effect.graph, effect.whenIdle, effect.needBytes);
        break;
      case "drop":
        this.#drop(effect.graphs, this.#session);
        break;
      case "read":
        this.#read(effect.gpus);
        break;
      case "follow":
        this.#follow(effect.gpus);
        break;
      case "thresholds":
        this.#thresholds(effect.gpus);
        break;
      case "wait":
        this.#wait(effect.timer, effect.seconds);
        break;
      case "cancel":
        this.#timers.get(effect.timer)?.();
        this.#timers.delete(effect.timer);
        break;
      case "publish":
        this.#publish(effect);
        break;
      case "changed":
        this.#onChange(this.record);
        break;
    }
  }

  #publish({ name, event }: PublishEffect): void {
    if (!isHeard(name)) return;
    const { engine, session } = this.record.hello;
    if (name === "lazygraph:problem") this.#problems.tell(engine, event.code, event.message);
    else publish(name, { engine, session, atUnixMs: Date.now(), ...event } as never);
  }

  #wait(timer: Timer, seconds: number): void {
    this.#timers.get(timer)?.();
    const end = (): void => {
      this.#timers.delete(timer);
      this.#step({ type: "timer", timer });
    };
    this.#timers.set(timer, this.#clock.after(seconds, end));
  }

  // ---------------------------------------------------------------- commands

  #capture(capture: CaptureEffect, session: Session): void {
    void this.#queue.add(async () => {
      // What traffic has earned waits for nobody else's fill.
      const turn = capture.whenIdle ? this.#pace() : undefined;
      if (turn !== undefined) await turn;
      const needBytes = await this.#reserve(capture);
      if (needBytes === undefined) return;
      this.#step({ type: "reserved", capture, needBytes, open: session.open });
      const answer = this.#answer;
      this.#answer = undefined;
      // The answer itself is booked where it arrives, in the order of messages.
      await answer?.catch((error: unknown) =>
        this.#step({ type: "unanswered", graph: capture.graph.id, error }),
      );
    });
  }

  async #reserve(capture: CaptureEffect): Promise<number | undefined> {
    const { gpus } = this.#shared;
    const names = this.record.ranks.map((rank) => rank.gpuUuid);
    if (gpus?.source !== undefined) await gpus.refresh(names);
    this.#granted = undefined;
    this.#step({ type: "turn", capture });
    return this.#granted;
  }

  #drop(graphs: readonly Graph[], session: Session): void {
    void this.#queue.add(async () => {
      let answer: Dropped;
      try {
        answer = await session.drop(graphs.map((graph) => graph.id));
      } catch (error) {
        // Lost in the middle of it: the next inventory tells what became of the tier.
        this.#step({ type: "kept", graphs, reason: messageOf(error) });
        return;
      }
      if (answer.outcome === "dropped") this.#step({ type: "dropped", graphs, answer });
      else {
        const reason = answer.reason ?? `the engine ${answer.outcome} the drop`;
        this.#step({ type: "kept", graphs, reason });
      }
    });
  }

  // ---------------------------------------------------------------- GPUs of this host

  #read(names: readonly string[]): void {
    const { gpus } = this.#shared;
    if (gpus?.source === undefined) this.reviewMemory();
    else void gpus.refresh(names).then(() => this.reviewMemory());
  }

  #follow(names: readonly string[]): void {
    const { gpus, ledger } = this.#shared;
    void gpus?.follow(names, (gpu) => ledger.spokenFor(gpu)).then(() => this.reviewMemory());
  }

  #thresholds(names: readonly string[]): void {
    const { gpus, ledger } = this.#shared;
    for (const gpu of names) gpus?.threshold(gpu, ledger.spokenFor(gpu));
  }
}

/**
 * One engine's session: hand-shake, heartbeats both ways, command ids and their deadlines.
 *
 * It knows time only through a Clock and the wire only through `send`, and it judges no graph: what
 * a message means for the schedule is the controller's business.
 */

import type { Clock } from "../base/clock.ts";
import { LazygraphError } from "../base/errors.ts";
import {
  type Capture,
  type CaptureResult,
  type Drop,
  type Dropped,
  type Hello,
  type Mode,
  type Orders,
  PROTOCOL_VERSION_MIN,
  type Sleep,
  type Slept,
  type ToEngine,
  type Wake,
  type Welcome,
} from "./protocol.ts";
import { spokenVersion } from "./version.ts";

/** Heartbeats that may be missing before the other side is lost. */
export const HEARTBEATS_MISSED_MAX = 5;

export interface SessionOptions {
  readonly clock: Clock;
  /** Hands a message to the engine; false when it can't be delivered. */
  readonly send: (message: ToEngine) => boolean;
  /** Seconds since all that had come was read; absent: nothing waits. */
  readonly unreadSeconds?: () => number;
  readonly heartbeatMs: number;
  readonly captureTimeoutMs: number;
  /** Start of this controller in Unix milliseconds. */
  readonly incarnation: number;
  /** Command ids rise within an incarnation, over reconnects too, so they are not counted here. */
  readonly nextCommand: () => number;
  /** What every welcome says of memory; absent: nothing. */
  readonly memory?: Pick<Welcome, "reserve" | "reserveBytes" | "marginBytes">;
  /** Called once, when the engine is silent too long or leaves a command unanswered. */
  readonly onLost: (error: LazygraphError) => void;
}

/** Where this side can't keep up for that many heartbeats, who is not heard of counts as silent. */
const UNREAD_BEATS_MAX = 30;
/** Heartbeats after which an unanswered command is sent once more. */
const BEATS_PER_REPEAT = 5;
/** A sleep waits for running requests, and a wake for weights to be reloaded. */
const SLEEP_TIMEOUT_SECONDS = 600;

type Asked = Capture | Drop | Sleep | Wake;
type Answer = CaptureResult | Dropped | Slept;

interface Command {
  readonly message: Asked;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: LazygraphError) => void;
  cancelDeadline: () => void;
  /** Heartbeats since it was sent. */
  beats: number;
}

export class Session {
  readonly hello: Hello;
  /** The protocol version spoken with this engine. */
  readonly version: number;
  readonly #options: SessionOptions;
  #command: Command | undefined;
  #heardAtSeconds: number;
  #cancelBeat: (() => void) | undefined;
  #open = true;
  /** Why it was closed, where it was not lost. */
  #closed: LazygraphError | undefined;

  /** @param hello of an engine that is not to be refused */
  constructor(hello: Hello, options: SessionOptions) {
    this.hello = hello;
    this.version = spokenVersion(hello) ?? PROTOCOL_VERSION_MIN;
    this.#options = options;
    this.#heardAtSeconds = options.clock.now();
  }

  get open(): boolean {
    return this.#open;
  }

  /**
   * Accepts the engine and starts the heartbeats. An engine that says hello again has had its
   * connection broken, maybe with the open command or its answer on the way: it is sent once more.
   */
  welcome(mode: Mode, orders: Orders = {}): void {
    const { incarnation, heartbeatMs, memory } = this.#options;
    // Without any there is nothing to tell, but to an engine that still knows of some.
    const ordered = Object.keys(orders).length > 0 || this.hello.orders !== undefined;
    this.#options.send({
      type: "welcome",
      version: this.version,
      incarnation,
      heartbeatMs,
      mode,
      ...memory,
      ...(ordered ? { orders } : {}),
    });
    if (this.#command !== undefined) this.send(this.#command.message);
    if (this.#cancelBeat === undefined) this.#beatLater();
  }

  send(message: ToEngine): boolean {
    return this.#open && this.#options.send(message);
  }

  /** Call for every frame of this engine, sound or not: it is alive. */
  heard(): void {
    this.#heardAtSeconds = this.#options.clock.now();
  }

  /**
   * Sends one capture command and waits for its answer; one command at a time.
   *
   * @param needBytes what was reserved for it on each rank, which the engine checks first
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_LOST or ERR_LAZYGRAPH_ENGINE_TIMEOUT
   */
  capture(graph: string, whenIdle: boolean, needBytes?: number): Promise<CaptureResult> {
    const need = needBytes === undefined ? {} : { needBytes };
    const answer = this.#ask((command) => ({ type: "capture", command, graph, whenIdle, ...need }));
    return answer as Promise<CaptureResult>;
  }

  /**
   * Sends one drop command and waits for its answer; one command at a time.
   *
   * @param graphs all captured graphs of one or more tiers
   * @throws LazygraphError as for `capture`
   */
  drop(graphs: readonly string[]): Promise<Dropped> {
    const answer = this.#ask((command) => ({ type: "drop", command, graphs }));
    return answer as Promise<Dropped>;
  }

  /**
   * Has the engine sleep, and waits until it does; one command at a time.
   *
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_LOST, or …_TIMEOUT where it took longer than ten
   *   minutes: the session goes on, and the engine's inventory tells what became of it
   */
  sleep(level: 1 | 2, dropGraphs: boolean): Promise<Slept> {
    const drop = dropGraphs ? { dropGraphs } : {};
    const answer = this.#ask((command) => ({ type: "sleep", command, level, ...drop }));
    return answer as Promise<Slept>;
  }

  /**
   * Wakes the engine, and waits until it serves; one command at a time.
   *
   * @param reloadWeights undefined: where a sleep of level 2 gave them up
   * @throws LazygraphError as for `sleep`
   */
  wake(reloadWeights: boolean | undefined): Promise<Slept> {
    const reload = reloadWeights === undefined ? {} : { reloadWeights };
    const answer = this.#ask((command) => ({ type: "wake", command, ...reload }));
    return answer as Promise<Slept>;
  }

  #ask(compose: (command: number) => Asked): Promise<Answer> {
    if (!this.#open) {
      return Promise.reject(this.#closed ?? this.#gone("its session has ended"));
    }
    if (this.#command !== undefined) {
      throw new Error(`a command while ${subjectOf(this.#command.message)} is under way`);
    }
    const { clock, captureTimeoutMs, heartbeatMs, nextCommand } = this.#options;
    const message = compose(nextCommand());
    return new Promise((resolve, reject) => {
      const slow = message.type === "sleep" || message.type === "wake";
      const expire = (): void => {
        if (slow) this.#giveUp(message);
        else this.#expire(`the ${message.type} of ${subjectOf(message)}`);
      };
      const command: Command = { message, resolve, reject, cancelDeadline: () => {}, beats: 0 };
      const seconds = slow ? SLEEP_TIMEOUT_SECONDS : captureTimeoutMs / 1000;
      const dueSeconds = clock.now() + seconds;
      command.cancelDeadline = clock.after(seconds, () => {
        // When this process stood still, the answer may wait unread: there is time to read it.
        if (this.#isLate(dueSeconds))
          command.cancelDeadline = clock.after(heartbeatMs / 1000, expire);
        else expire();
      });
      this.#command = command;
      if (!this.#options.send(message)) {
        this.lose(this.#gone("the command could not be delivered"));
      }
    });
  }

  /** Settles the command that this answers; false when no such command is open. */
  answer(answer: Answer): boolean {
    const command = this.#command;
    if (command === undefined || !answers(answer, command.message)) return false;
    this.#command = undefined;
    command.cancelDeadline();
    command.resolve(answer);
    return true;
  }

  /** Ends the session as lost: fails the open command, then tells `onLost`. */
  lose(error: LazygraphError): void {
    if (!this.#open) return;
    this.#end(error);
    this.#options.onLost(error);
  }

  /** Ends the session, telling only commands, the open one and those to come. */
  close(error: LazygraphError): void {
    this.#closed = error;
    this.#end(error);
  }

  #end(error: LazygraphError): void {
    this.#open = false;
    this.#cancelBeat?.();
    const command = this.#command;
    this.#command = undefined;
    command?.cancelDeadline();
    command?.reject(error);
  }

  #gone(why: string): LazygraphError {
    return new LazygraphError(
      "ERR_LAZYGRAPH_ENGINE_LOST",
      `Expected engine ${this.hello.engine} to be connected, but ${why}.`,
    );
  }

  /** Nobody waits for it any more; its engine lives and may still do it. */
  #giveUp(message: Asked): void {
    const command = this.#command;
    if (command?.message !== message) return;
    this.#command = undefined;
    command.reject(
      new LazygraphError(
        "ERR_LAZYGRAPH_ENGINE_TIMEOUT",
        `Expected engine ${this.hello.engine} to answer a ${message.type} within ` +
          `${SLEEP_TIMEOUT_SECONDS} s, got no answer: its snapshot says what it is by now.`,
      ),
    );
  }

  /** The command, or its answer, may have been lost: whoever has answered it does so once more. */
  #askAgain(): void {
    const command = this.#command;
    if (command === undefined) return;
    command.beats++;
    if (command.beats % BEATS_PER_REPEAT === 0) this.#options.send(command.message);
  }

  #expire(what: string): void {
    const { captureTimeoutMs } = this.#options;
    this.lose(
      new LazygraphError(
        "ERR_LAZYGRAPH_ENGINE_TIMEOUT",
        `Expected engine ${this.hello.engine} to answer ${what} within ` +
          `${captureTimeoutMs} ms, got no answer: see the engine's log, or raise captureTimeoutMs.`,
      ),
    );
  }

  /** Whether a timer comes so late that this process must have stood still. */
  #isLate(dueSeconds: number): boolean {
    const { clock, heartbeatMs } = this.#options;
    return (clock.now() - dueSeconds) * 1000 > heartbeatMs;
  }

  #beatLater(): void {
    // Sending may have ended the session: the peer is gone, or doesn't read.
    if (!this.#open) return;
    const { clock, heartbeatMs, unreadSeconds, send } = this.#options;
    const dueSeconds = clock.now() + heartbeatMs / 1000;
    this.#cancelBeat = clock.after(heartbeatMs / 1000, () => {
      // When this process stood still, heartbeats wait unread: its own delay is not their silence.
      const now = clock.now();
      if (this.#isLate(dueSeconds)) {
        this.#heardAtSeconds = Math.min(now, this.#heardAtSeconds + now - dueSeconds);
      }
      // Nor is what it said and nobody has read yet, as when thousands come at once.
      const unreadMs = Math.min((unreadSeconds?.() ?? 0) * 1000, UNREAD_BEATS_MAX * heartbeatMs);
      const silentMs = (now - this.#heardAtSeconds) * 1000 - unreadMs;
      if (silentMs > HEARTBEATS_MISSED_MAX * heartbeatMs) {
        this.lose(
          this.#gone(
            `it has been silent for ${HEARTBEATS_MISSED_MAX} heartbeats of ${heartbeatMs} ms`,
          ),
        );
        return;
      }
      send({ type: "heartbeat" });
      this.#askAgain();
      this.#beatLater();
    });
  }
}

function subjectOf(message: Asked): string {
  if (message.type === "capture") return message.graph;
  if (message.type === "drop") return message.graphs.join(", ").slice(0, 80);
  return "the engine";
}

function answers(answer: Answer, asked: Asked): boolean {
  if (answer.command !== asked.command) return false;
  if (answer.type === "dropped") return asked.type === "drop";
  if (answer.type === "slept") return asked.type === "sleep" || asked.type === "wake";
  return asked.type === "capture" && asked.graph === answer.graph;
}

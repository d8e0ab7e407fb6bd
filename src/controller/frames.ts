/**
 * Frames of a controller's socket. In: each is decoded and sorted by what it is. A `hello` asks for
 * admission, anything else goes to the driver of its peer, and what belongs to nobody is asked who
 * it is. Out: messages are encoded. What is wrong with either is told as a problem.
 */

import type { Clock } from "../base/clock.ts";
import { codeOf, type ErrorCode, LazygraphError, messageOf } from "../base/errors.ts";
import { publishProblem } from "../engine/events.ts";
import { prefetch } from "../engine/prefetch.ts";
import { BoundedProblems } from "../engine/problems.ts";
import type { EngineRecord } from "../engine/record.ts";
import { decode, encode } from "../wire/codec.ts";
import { type Excess, FRAMES_PER_SECOND_MAX, WORK_SHARE_MAX } from "../wire/peers.ts";
import type { FromEngine, ToEngine } from "../wire/protocol.ts";
import type { Checks } from "../wire/validate.ts";
import type { EngineAdmission } from "./admission.ts";
import type { Connection, EngineRegistry } from "./registry.ts";

/** A hello has two texts of 2,048 characters, and little else. */
const HELLO_BYTES_MAX = 32_768;

/** It says nothing, and is sent all the time. */
export const HEARTBEAT: Uint8Array = encode({ type: "heartbeat" });

export interface FramesOptions {
  readonly clock: Clock;
  /** What is taken from engines. */
  readonly checks: Checks<FromEngine>;
  readonly registry: EngineRegistry;
  readonly admission: Pick<EngineAdmission, "hello" | "askWho">;
  /** Queues a frame; false when it can't be delivered. */
  readonly send: (peer: string, frame: Uint8Array, kind?: string) => boolean;
}

export class EngineFrames {
  readonly #options: FramesOptions;
  readonly #records: EngineRecord[] = [];
  /** Once a minute of a kind from an engine. */
  readonly #problems: BoundedProblems;

  constructor(options: FramesOptions) {
    this.#options = options;
    this.#problems = new BoundedProblems(options.clock, 1);
  }

  /**
   * Reads what frames of these peers will be about, engine after engine and place after place of
   * each (engine/prefetch.ts).
   */
  prefetch(peers: readonly string[]): void {
    const { registry } = this.#options;
    const records = this.#records;
    records.length = 0;
    for (const peer of peers) {
      const connection = registry.connection(peer);
      if (connection?.session.open === true) records.push(connection.driver.record);
    }
    prefetch(records);
  }

  receive(peer: string, frame: Uint8Array): void {
    const connection = this.#options.registry.connection(peer);
    connection?.session.heard();
    // What is no hello is asked for one anyway: nothing large has to be read for that.
    if (connection === undefined && frame.byteLength > HELLO_BYTES_MAX) {
      this.#options.admission.askWho(peer);
      return;
    }
    try {
      const message = decode(frame, this.#options.checks);
      if (message === undefined) {
        if (connection !== undefined) connection.driver.countProblem("unknownTypes", 1);
        return;
      }
      this.#sort(peer, connection, message);
    } catch (error) {
      // What a peer sends, and what a listener throws, must not end the loop that reads for all.
      const known = codeOf(error) === "ERR_LAZYGRAPH_PROTOCOL_FRAME";
      if (known && connection !== undefined) connection.driver.countProblem("malformed", 1);
      if (known) this.#tellSeldom(connection, "ERR_LAZYGRAPH_PROTOCOL_FRAME", messageOf(error));
      else tellProblem(connection, "ERR_LAZYGRAPH_INTERNAL", messageOf(error));
    }
  }

  #sort(peer: string, connection: Connection | undefined, message: FromEngine): void {
    const { admission } = this.#options;
    if (message.type === "hello") {
      admission.hello(peer, connection, message);
    } else if (connection === undefined) {
      admission.askWho(peer);
    } else if (message.type === "goodbye") {
      connection.driver.goodbye(message.reason);
      connection.session.lose(
        new LazygraphError(
          "ERR_LAZYGRAPH_ENGINE_LOST",
          `The engine said goodbye: ${message.reason}`,
        ),
      );
    } else {
      connection.driver.receive(message);
    }
  }

  /** Frames were dropped unread, because their sender sent more than it may. */
  flooded(peer: string, { frames, work }: Readonly<Record<Excess, number>>): void {
    const connection = this.#options.registry.connection(peer);
    connection?.driver.countProblem("flooded", frames + work);
    const share = `${100 * WORK_SHARE_MAX}% of the time`;
    const expected =
      frames > 0
        ? `at most ${FRAMES_PER_SECOND_MAX} frames per second`
        : `no more than takes ${share} to read`;
    this.#tellSeldom(
      connection,
      "ERR_LAZYGRAPH_ENGINE_FLOOD",
      `Expected ${connection === undefined ? "peers without a session" : "an engine"} to send ` +
        `${expected}, got ${frames + work} more: they were dropped unread.`,
    );
  }

  /** What a peer can cause with every frame: all that have no session are one. */
  #tellSeldom(connection: Connection | undefined, code: ErrorCode, message: string): void {
    const engine = engineOf(connection);
    const stranger = "It came from a peer without a session, whose address ZeroMQ doesn't tell.";
    const isUnnamed = connection === undefined && code === "ERR_LAZYGRAPH_PROTOCOL_FRAME";
    const told = isUnnamed ? `${message} ${stranger}` : message;
    this.#problems.tell(engine, code, told, `${code} ${engine}`);
  }

  /** @returns whether it is on its way */
  send(peer: string, message: ToEngine): boolean {
    let frame: Uint8Array;
    try {
      frame = message.type === "heartbeat" ? HEARTBEAT : encode(message);
    } catch (error) {
      const connection = this.#options.registry.connection(peer);
      tellProblem(connection, "ERR_LAZYGRAPH_INTERNAL", messageOf(error));
      return false;
    }
    return this.#options.send(peer, frame, message.type);
  }

  /** Frames for this peer were thrown away. */
  undeliverable(peer: string, reason: string): void {
    const session = this.#options.registry.connection(peer)?.session;
    session?.lose(
      new LazygraphError(
        "ERR_LAZYGRAPH_ENGINE_LOST",
        `Nothing can be sent to the engine: ${reason}.`,
      ),
    );
  }
}

function tellProblem(connection: Connection | undefined, code: ErrorCode, message: string): void {
  publishProblem(engineOf(connection), code, message);
}

function engineOf(connection: Connection | undefined): string {
  return connection?.driver.record.hello.engine ?? "";
}

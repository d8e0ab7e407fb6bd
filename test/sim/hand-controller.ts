import { Router } from "zeromq";
import { decode, encode } from "../../src/wire/codec.ts";
import type { FromEngine, ToEngine } from "../../src/wire/protocol.ts";
import { FROM_ENGINE } from "../../src/wire/validate.ts";

/** A controller by hand: the test reads every message and writes every answer. */
export class HandController {
  readonly socket = new Router({ mandatory: true, handover: true, linger: 0 });
  readonly seen: FromEngine[] = [];
  peer = "";

  async next<T extends FromEngine["type"]>(type: T): Promise<Extract<FromEngine, { type: T }>> {
    for (;;) {
      const [peer, frame] = await this.socket.receive();
      this.peer = String(peer);
      const message = decode(frame ?? new Uint8Array(), FROM_ENGINE);
      if (message === undefined) throw new Error("the engine sent an unknown message");
      this.seen.push(message);
      if (message.type === type) return message as Extract<FromEngine, { type: T }>;
    }
  }

  async send(...messages: ToEngine[]): Promise<void> {
    for (const message of messages) await this.socket.send([this.peer, encode(message)]);
  }
}

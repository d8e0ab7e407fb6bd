/** A server that sends a shape piece by piece, each after the one before has arrived. */

import diagnostics from "node:diagnostics_channel";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import type { Shape } from "./shape.ts";

/** Node tells of every socket that a client in this process opens. */
const CHANNEL = "net.client.socket";

export class PacedShape {
  /** When the piece with the first content was sent: all before it had arrived by then. */
  firstSentAtMs: number = Number.POSITIVE_INFINITY;
  /** When the request for it had come. */
  askedAtMs: number = Number.NaN;
  #shape: Shape | undefined;
  readonly #clients = new Set<Socket>();

  constructor() {
    diagnostics.subscribe(CHANNEL, this.#onSocket);
  }

  close(): void {
    diagnostics.unsubscribe(CHANNEL, this.#onSocket);
  }

  /** The next request gets this one. */
  next(shape: Shape): void {
    this.#shape = shape;
    this.firstSentAtMs = Number.POSITIVE_INFINITY;
  }

  readonly listener = (request: IncomingMessage, response: ServerResponse): void => {
    request.resume().on("end", () => void this.#answer(response));
  };

  readonly #onSocket = (message: unknown): void => {
    const { socket } = message as { socket: Socket };
    this.#clients.add(socket);
    socket.once("close", () => this.#clients.delete(socket));
  };

  async #answer(response: ServerResponse): Promise<void> {
    this.askedAtMs = performance.now();
    if (this.#shape === undefined) throw new Error("No shape to answer with.");
    const { pieces, contentType = "text/event-stream", contentEncoding, cut, want } = this.#shape;
    const encoding = contentEncoding === undefined ? {} : { "content-encoding": contentEncoding };
    response.writeHead(200, { "content-type": contentType, ...encoding });
    for (const [index, piece] of pieces.entries()) {
      if (index === want.first) this.firstSentAtMs = performance.now();
      response.write(piece);
      await this.#received(response);
    }
    if (cut === true) response.destroy();
    else response.end();
  }

  /** Resolves when the client has read all that was sent; one that hangs up is not waited for. */
  async #received({ socket }: ServerResponse): Promise<void> {
    const isHere = (): boolean => {
      const { remotePort, bytesWritten = 0, destroyed = true } = socket ?? {};
      const client = [...this.#clients].find(({ localPort }) => localPort === remotePort);
      return destroyed || client === undefined || client.bytesRead >= bytesWritten;
    };
    while (!isHere()) await setImmediate();
    // What was read last is handed on before the next turn.
    await setImmediate();
  }
}

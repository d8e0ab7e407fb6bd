/** A server that sends a shape piece by piece, each after the one before has arrived. */

import diagnostics from "node:diagnostics_channel";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Shape } from "./shapes.ts";

/** undici tells of every piece of a body that it has handed on. */
const CHANNEL = "undici:request:bodyChunkReceived";

export class PacedShape {
  /** When the piece with the first content was sent: all before it had arrived by then. */
  firstSentAtMs: number = Number.POSITIVE_INFINITY;
  /** When the request for it had come. */
  askedAtMs: number = Number.NaN;
  #shape: Shape | undefined;
  #receivedBytes = 0;
  #onReceived: () => void = () => {};

  constructor() {
    diagnostics.subscribe(CHANNEL, this.#onPiece);
  }

  close(): void {
    diagnostics.unsubscribe(CHANNEL, this.#onPiece);
  }

  /** The next request gets this one. */
  next(shape: Shape): void {
    this.#shape = shape;
    this.#receivedBytes = 0;
    this.firstSentAtMs = Number.POSITIVE_INFINITY;
  }

  readonly listener = (request: IncomingMessage, response: ServerResponse): void => {
    request.resume().on("end", () => void this.#answer(response));
  };

  readonly #onPiece = (message: unknown): void => {
    this.#receivedBytes += (message as { chunk: Uint8Array }).chunk.length;
    this.#onReceived();
  };

  async #answer(response: ServerResponse): Promise<void> {
    this.askedAtMs = performance.now();
    if (this.#shape === undefined) throw new Error("No shape to answer with.");
    const { pieces, contentType = "text/event-stream", contentEncoding, cut, want } = this.#shape;
    const encoding = contentEncoding === undefined ? {} : { "content-encoding": contentEncoding };
    response.writeHead(200, { "content-type": contentType, ...encoding });
    let sent = 0;
    for (const [index, piece] of pieces.entries()) {
      if (index === want.first) this.firstSentAtMs = performance.now();
      const bytes = Buffer.from(piece);
      sent += bytes.length;
      response.write(bytes);
      // A client that has seen enough hangs up: nobody waits for it then.
      await Promise.race([this.#until(sent), once(response, "close")]);
    }
    if (cut === true) response.destroy();
    else response.end();
  }

  async #until(bytes: number): Promise<void> {
    while (this.#receivedBytes < bytes) {
      await new Promise<void>((resolve) => {
        this.#onReceived = resolve;
      });
    }
  }
}

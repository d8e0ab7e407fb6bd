/** The requests under way, so that a gateway that stops can wait for them, and then end them. */

import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * When to ask whether who sends no more still listens: a connection that is gone answers what is
 * written to it with a reset, which the next writing meets. Some clients take no more than five
 * answers that are not the last.
 */
const LISTENING_ASKED_MS = [0, 100, 1_000, 10_000];

export class UnderWay {
  readonly #limits = new Set<AbortController>();
  #onIdle: () => void = () => {};

  /** Runs `action` with a signal that is aborted when the client leaves, or by `abort`. */
  async run(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    action: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const { socket } = incoming;
    const limit = new AbortController();
    const leave = (): void => {
      outgoing.destroy();
      limit.abort(new Error("the client has left"));
    };
    // An answer behind another one on its connection has no socket yet, and would never tell.
    // Requests that a client sends without waiting each listen, so their number is no leak.
    socket.setMaxListeners(0).once("close", leave);
    this.#limits.add(limit);
    const ended = (): void => askWhetherItListens(incoming, outgoing, limit.signal);
    if (socket.readableEnded) ended();
    else socket.once("end", ended);
    try {
      await action(limit.signal);
    } finally {
      socket.off("end", ended);
      socket.off("close", leave);
      this.#limits.delete(limit);
      if (this.#limits.size === 0) this.#onIdle();
    }
  }

  abort(reason: string): void {
    for (const limit of this.#limits) limit.abort(new Error(reason));
  }

  /** Resolves when no request is under way, or after so many seconds. */
  async idle(seconds: number): Promise<void> {
    if (this.#limits.size === 0) return;
    const limit = new AbortController();
    const idle = new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
    const over = sleep(seconds * 1000, undefined, { signal: limit.signal }).catch(() => {});
    await Promise.race([idle, over]);
    limit.abort();
  }
}

/** Answers those who have said that nothing more will come; Node would hang up. */
export function letHalfClose(server: Server): void {
  // Node has it since its beginnings, and its types don't.
  Object.assign(server, { httpAllowHalfOpen: true });
}

/**
 * The end of what a client sends is how it leaves, and also how some say that the request is all.
 * `100 Continue` is nothing to the latter (RFC 9110, 15.2).
 */
function askWhetherItListens(
  { httpVersion }: IncomingMessage,
  outgoing: ServerResponse,
  signal: AbortSignal,
): void {
  if (httpVersion === "1.0") return;
  const timers = LISTENING_ASKED_MS.map((ms) =>
    setTimeout(() => {
      // An answer that has begun asks by itself, with every byte.
      if (!outgoing.headersSent && outgoing.socket !== null) outgoing.writeContinue();
    }, ms),
  );
  const stop = (): void => {
    for (const timer of timers) clearTimeout(timer);
  };
  signal.addEventListener("abort", stop, { once: true });
  outgoing.once("close", stop);
}

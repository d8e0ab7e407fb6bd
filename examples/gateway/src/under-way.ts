/** The requests under way, so that a gateway that stops can wait for them, and then end them. */

import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

export class UnderWay {
  readonly #limits = new Set<AbortController>();
  #onIdle: () => void = () => {};

  /** Runs `action` with a signal that is aborted when the client leaves, or by `abort`. */
  async run(
    { socket }: IncomingMessage,
    outgoing: ServerResponse,
    action: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const limit = new AbortController();
    const leave = (): void => {
      outgoing.destroy();
      limit.abort(new Error("the client has left"));
    };
    // An answer behind another one on its connection has no socket yet, and would never tell.
    // Requests that a client sends without waiting each listen, so their number is no leak.
    socket.setMaxListeners(0).once("close", leave);
    this.#limits.add(limit);
    try {
      await action(limit.signal);
    } finally {
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

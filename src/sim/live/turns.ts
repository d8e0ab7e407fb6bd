/**
 * A link to one controller among several, as the plugin has it: addresses in order, each with its
 * turn while none has taken the engine; after a loss the one that it was at has the first turn, for
 * it may only be restarting.
 */

import type { FromEngine } from "../../wire/protocol.ts";
import { EngineLink, type EngineWire, type LinkOptions } from "./link.ts";

/** Of a turn: until its address is connected, and from then on. The plugin's own figures. */
const CONNECT_MS = 500;
const TURN_MS = 1000;
const LOOK_MS = 50;

export interface TurnsOptions extends Omit<LinkOptions, "endpoint"> {
  /** In order, two or more. */
  readonly endpoints: readonly string[];
  /** Whether a controller has the engine, or has refused it for good. */
  readonly isSettled: () => boolean;
}

export class TurnsLink implements EngineWire {
  readonly #options: TurnsOptions;
  #turn = 0;
  #link: EngineLink;
  #endsAtMs = 0;
  /** When to ask again who had no place. */
  readonly #askAtMs = new Map<number, number>();
  #wasSettled = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: TurnsOptions) {
    this.#options = options;
    this.#link = this.#next();
  }

  open(): void {
    this.#begin();
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  send(message: FromEngine): Promise<boolean> {
    return this.#link.send(message);
  }

  close(goodbye?: FromEngine): Promise<void> {
    clearInterval(this.#timer);
    return this.#link.close(goodbye);
  }

  #look(): void {
    const isSettled = this.#options.isSettled();
    const now = performance.now();
    if (this.#wasSettled && !isSettled) this.#endsAtMs = now + TURN_MS;
    this.#wasSettled = isSettled;
    if (isSettled || now < this.#endsAtMs) return;
    // Closed, and not just disconnected: nothing of the other one's may come late.
    void this.#link.close();
    this.#turn += 1;
    this.#link = this.#next();
    this.#begin();
  }

  #begin(): void {
    this.#endsAtMs = performance.now() + CONNECT_MS;
    this.#link.open();
  }

  /** No place there now: elsewhere there may be one. */
  #putOff(seconds: number): void {
    const { length } = this.#options.endpoints;
    const now = performance.now();
    this.#askAtMs.set(this.#turn % length, now + 1000 * seconds);
    this.#endsAtMs = Math.max(now, this.#askAtMs.get((this.#turn + 1) % length) ?? now);
  }

  #next(): EngineLink {
    const { endpoints, isSettled: _, onMessage, onUp, onDown, ...rest } = this.#options;
    const endpoint = endpoints[this.#turn % endpoints.length] as string;
    const link: EngineLink = new EngineLink({
      ...rest,
      endpoint,
      onMessage: (message) => {
        if (link !== this.#link) return;
        if (message.type === "later") this.#putOff(message.retrySeconds);
        onMessage(message);
      },
      onUp: () => {
        if (link !== this.#link) return;
        this.#endsAtMs = performance.now() + TURN_MS;
        onUp();
      },
      onDown: () => {
        if (link === this.#link) onDown();
      },
    });
    return link;
  }
}

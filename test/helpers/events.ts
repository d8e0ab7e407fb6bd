import { type EventName, type LazygraphEvents, onEvent } from "../../src/engine/events.ts";

/** Collects the events of one engine on one channel, and waits for them. */
export class EventLog<K extends EventName> implements Disposable {
  readonly all: LazygraphEvents[K][] = [];
  readonly #stop: () => void;
  #waiters: (() => void)[] = [];

  constructor(name: K, engine?: string) {
    this.#stop = onEvent(name, (event) => {
      if (engine !== undefined && event.engine !== engine) return;
      this.all.push(event);
      for (const wake of this.#waiters.splice(0)) wake();
    });
  }

  /** Resolves with the first event that matches, past or to come. */
  async first(
    matches: (event: LazygraphEvents[K]) => boolean = () => true,
  ): Promise<LazygraphEvents[K]> {
    for (;;) {
      const event = this.all.find(matches);
      if (event !== undefined) return event;
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  [Symbol.dispose](): void {
    this.#stop();
  }
}

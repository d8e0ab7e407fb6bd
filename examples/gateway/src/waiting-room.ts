/** Holds requests while no engine is ready: so many, and until a time of their own. */

export class Turned extends Error {
  override readonly name = "Turned";
}

interface Held {
  readonly release: () => void;
  readonly refuse: (error: Turned) => void;
}

export class WaitingRoom {
  readonly #max: number;
  readonly #held = new Set<Held>();

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#held.size;
  }

  /**
   * Resolves at the next release. Throws `Turned` when the room is full or closed, or when it is
   * too late: `untilMs` is a time of `performance.now()`.
   */
  async wait(untilMs: number, signal: AbortSignal): Promise<void> {
    if (this.#held.size >= this.#max) {
      throw new Turned(`No engine is ready, and ${this.#max} requests wait already.`);
    }
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const done = (settle: () => void) => () => {
        this.#held.delete(held);
        clearTimeout(timer);
        signal.removeEventListener("abort", left);
        settle();
      };
      const late = new Turned("No engine became ready in time.");
      const left = done(() => reject(signal.reason));
      const timer = setTimeout(
        done(() => reject(late)),
        untilMs - performance.now(),
      );
      const held: Held = {
        release: done(resolve),
        refuse: (error) => done(() => reject(error))(),
      };
      signal.addEventListener("abort", left, { once: true });
      this.#held.add(held);
    });
  }

  release(): void {
    for (const { release } of this.#held) release();
  }

  close(): void {
    for (const { refuse } of this.#held) refuse(new Turned("The gateway is stopping."));
  }
}

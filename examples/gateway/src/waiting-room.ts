/**
 * Holds requests while no engine is ready: so many, with bodies of so many bytes, and until a time
 * of their own.
 */

export const STOPPING = "The gateway is stopping.";

export class Turned extends Error {
  override readonly name = "Turned";
}

interface Held {
  readonly release: () => void;
  readonly refuse: (error: Turned) => void;
}

/** What one request takes of the room, until an engine has it or it is over. */
export interface Stay {
  /** Takes a place, once. Throws `Turned` when there is none. */
  enter(): void;
  /** Takes room for so many bytes more of its body. Throws `Turned` when there is none. */
  hold(bytes: number): void;
  /** Gives back whatever it took. */
  leave(): void;
}

export class WaitingRoom {
  readonly #max: number;
  readonly #bytesMax: number;
  readonly #onEnter: () => void;
  readonly #held = new Set<Held>();
  #size = 0;
  #bytes = 0;
  #closed = false;

  /** @param onEnter called whenever a request has taken a place */
  constructor(max: number, bytesMax: number, onEnter: () => void) {
    this.#max = max;
    this.#bytesMax = bytesMax;
    this.#onEnter = onEnter;
  }

  /** Requests that have a place, with or without their whole body. */
  get size(): number {
    return this.#size;
  }

  stay(): Stay {
    let places = 0;
    let held = 0;
    return {
      enter: () => {
        if (places > 0) return;
        if (this.#size >= this.#max) {
          throw new Turned(`No engine is ready, and ${this.#max} requests wait already.`);
        }
        places = 1;
        this.#size += 1;
        this.#onEnter();
      },
      hold: (bytes) => {
        if (this.#bytes + bytes > this.#bytesMax) {
          throw new Turned(`Bodies that no engine has yet are at most ${this.#bytesMax} bytes.`);
        }
        held += bytes;
        this.#bytes += bytes;
      },
      leave: () => {
        this.#size -= places;
        this.#bytes -= held;
        places = 0;
        held = 0;
      },
    };
  }

  /**
   * Resolves at the next release. Throws `Turned` when the room is closed, or when it is too late:
   * `untilMs` is a time of `performance.now()`.
   */
  async wait(untilMs: number, signal: AbortSignal): Promise<void> {
    if (this.#closed) throw new Turned(STOPPING);
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
    this.#closed = true;
    for (const { refuse } of this.#held) refuse(new Turned(STOPPING));
  }
}

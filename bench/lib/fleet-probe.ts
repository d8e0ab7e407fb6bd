/**
 * When a controller took each frame and when it sent each command, read at its ROUTER socket: any
 * build of it can be measured, because nothing of it is changed.
 *
 * Every frame of the simulated engines ends in a field `at`, the monotonic milliseconds at which it
 * was handed to the engine's socket. All processes of a host share that clock, so that a time from
 * there holds the way to the controller's socket too: a little more than what is to be measured.
 */

import { Router } from "zeromq";
import { sortedQuantile } from "../../src/measure/statistics.ts";

/** Commands that a policy decides on: what else is sent answers nothing. */
const DECIDED = ["capture", "dispatch", "start", "freeze"] as const;
type Decided = (typeof DECIDED)[number];

export interface Times {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface ProbeFigures {
  /**
   * From a frame's leaving its engine to the sending of a command that came of it. Without captures,
   * which are paced on purpose: the frame that one comes of brings a table or a start as well.
   */
  readonly decisions: Times;
  readonly byCommand: Readonly<Record<Decided, Times>>;
  /** To its being taken, of every frame, whether a command came of it or not. */
  readonly taken: Times;
  readonly frames: number;
}

/** Reads of both clocks: where the processor is given away in between, they are milliseconds apart. */
const CLOCK_READS = 64;
/** From this process's start, by `performance`, to that of the clock which all processes share. */
const SHARED_CLOCK_MS = sharedClockMs();

/** Both clocks run alike, so that of all reads the one with the least in between is right. */
function sharedClockMs(): number {
  let [best, least] = [0, Number.POSITIVE_INFINITY];
  for (let read = 0; read < CLOCK_READS; read++) {
    const before = performance.now();
    const sharedMs = Number(process.hrtime.bigint()) / 1e6;
    const after = performance.now();
    if (after - before >= least) continue;
    least = after - before;
    best = sharedMs - (before + after) / 2;
  }
  return best;
}

export function monotonicMs(): number {
  return SHARED_CLOCK_MS + performance.now();
}

/** The text of a frame's first field, `type`: that is how both sides write every message. */
export function typeOf(frame: Uint8Array): string {
  // One byte of the map's head (three from 16 fields on), the text "type", then a short text.
  const at = (frame[0] ?? 0) === 0xde ? 3 : 1;
  const head = frame[at + 5] ?? 0;
  const length = head >> 5 === 5 ? head & 0x1f : 0;
  return Buffer.from(frame.buffer, frame.byteOffset + at + 6, length).toString("latin1");
}

function timesOf(values: readonly number[]): Times {
  if (values.length === 0) return { count: 0, p50Ms: 0, p99Ms: 0, maxMs: 0 };
  const sorted = Float64Array.from(values).sort();
  return {
    count: sorted.length,
    p50Ms: sortedQuantile(sorted, 0.5),
    p99Ms: sortedQuantile(sorted, 0.99),
    maxMs: sorted.at(-1) ?? 0,
  };
}

export class FleetProbe {
  #taken: number[] = [];
  #sent: Record<Decided, number[]> = { capture: [], dispatch: [], start: [], freeze: [] };
  /** When the latest frame of a peer left it. */
  readonly #leftAt = new Map<string, number>();
  #frames = 0;
  #uninstall = (): void => undefined;

  /** From now on every ROUTER of this process is watched. */
  install(): void {
    const { receive, send } = Router.prototype;
    const own = ["receive", "send"].map(
      (name) => [name, Object.getOwnPropertyDescriptor(Router.prototype, name)] as const,
    );
    this.#uninstall = () => {
      for (const [name, descriptor] of own) {
        if (descriptor === undefined) Reflect.deleteProperty(Router.prototype, name);
        else Object.defineProperty(Router.prototype, name, descriptor);
      }
    };
    const took = (parts: Buffer[]): Buffer[] => {
      this.#took(parts);
      return parts;
    };
    const sent = (parts: readonly unknown[]): void => this.#sending(parts);
    Object.defineProperty(Router.prototype, "receive", {
      configurable: true,
      value(this: Router): Promise<Buffer[]> {
        return (receive.call(this) as Promise<Buffer[]>).then(took);
      },
    });
    Object.defineProperty(Router.prototype, "send", {
      configurable: true,
      value(this: Router, parts: Parameters<typeof send>[0]): Promise<void> {
        if (Array.isArray(parts)) sent(parts);
        return send.call(this, parts);
      },
    });
  }

  /** None is any more: what is seen of it costs a frame some 3% of its processor time. */
  uninstall(): void {
    this.#uninstall();
  }

  #took([peer, frame]: Buffer[]): void {
    if (peer === undefined || frame === undefined || frame.length < 16) return;
    // Heartbeats carry no time.
    if (frame[frame.length - 9] !== 0xcb) return;
    const leftAt = frame.readDoubleBE(frame.length - 8);
    this.#frames += 1;
    this.#leftAt.set(peer.toString("latin1"), leftAt);
    this.#taken.push(monotonicMs() - leftAt);
  }

  #sending([peer, frame]: readonly unknown[]): void {
    if (!Buffer.isBuffer(peer) || !(frame instanceof Uint8Array)) return;
    const type = DECIDED.find((name) => name === typeOf(frame));
    const leftAt = this.#leftAt.get(peer.toString("latin1"));
    if (type === undefined || leftAt === undefined) return;
    this.#sent[type].push(monotonicMs() - leftAt);
  }

  /** What was seen since the last call. */
  take(): ProbeFigures {
    const sent = this.#sent;
    const taken = timesOf(this.#taken);
    const frames = this.#frames;
    this.#taken = [];
    this.#sent = { capture: [], dispatch: [], start: [], freeze: [] };
    this.#frames = 0;
    return {
      decisions: timesOf([...sent.dispatch, ...sent.start, ...sent.freeze]),
      byCommand: {
        capture: timesOf(sent.capture),
        dispatch: timesOf(sent.dispatch),
        start: timesOf(sent.start),
        freeze: timesOf(sent.freeze),
      },
      taken,
      frames,
    };
  }
}

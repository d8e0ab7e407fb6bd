/**
 * The engine's end of the wire: a DEALER socket that never blocks and never queues for long. What
 * can't be sent at once is dropped.
 *
 * Who is connected is known here, and not left to ZMQ_IMMEDIATE: with that, libzmq throws away what
 * was not read yet as the connection ends, such as an order of a controller that then closed.
 */

import { randomBytes } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { Dealer } from "zeromq";
import { codeOf } from "../../base/errors.ts";
import { decode, encode } from "../../wire/codec.ts";
import { ownContext } from "../../wire/context.ts";
import { type FromEngine, LIMITS, type ToEngine } from "../../wire/protocol.ts";
import { TO_ENGINE } from "../../wire/validate.ts";

/** CURVE keys of an engine, 40 characters of Z85 each. */
export interface EngineCurve {
  readonly serverKey: string;
  readonly publicKey: string;
  readonly secretKey: string;
}

/** What an engine's link tells its session. */
export interface LinkEvents {
  readonly onMessage: (message: ToEngine) => void;
  /** A frame that is no message, or of a type this version doesn't know. */
  readonly onUnreadable?: (error: unknown) => void;
  readonly onFault?: (how: string) => void;
  readonly onUp: () => void;
  readonly onDown: () => void;
}

export interface LinkOptions extends LinkEvents {
  readonly endpoint: string;
  readonly curve?: EngineCurve;
}

/** The wire as an engine knows it. A simulation brings its own. */
export interface EngineWire {
  open(): void;
  /** Whether the message was handed to a connected peer. Never rejects. */
  send(message: FromEngine): Promise<boolean>;
  close(goodbye?: FromEngine): Promise<void>;
}

const OUTBOX_MAX = 256;
/** A `goodbye` gets this long to leave; without a peer the socket closes at once. */
const GOODBYE_LINGER_MS = 200;

/** After a failed hand-shake, doubled each time: libzmq would hurry, or give up. */
const RETRY_MS_FIRST = 50;
const RETRY_MS_MAX = 30_000;
/** A proxy whose controller restarts hangs up as well. */
const HANG_UP_MS_MAX = 1000;

/** Without a frame: one for libuv, another for the reader. */
const IDLE_TURNS = 3;
/** Far more than frames fit into libzmq's queue. */
const READ_OUT_TURNS_MAX = 3000;

interface Outgoing {
  readonly frame: Buffer;
  readonly sent: (delivered: boolean) => void;
}

/** One for all engines of a process: each has threads of its own. */
const CONTEXT = ownContext();

export class EngineLink implements EngineWire {
  readonly #options: LinkOptions;
  readonly #socket: Dealer;
  readonly #outbox: Outgoing[] = [];
  #writing = false;
  #connected = false;
  #received = 0;
  #retryMs = RETRY_MS_FIRST;
  #retry: NodeJS.Timeout | undefined;
  #reader: Promise<void> | undefined;
  #watcher: Promise<void> | undefined;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#socket = new Dealer({
      context: CONTEXT,
      ipv6: options.endpoint.includes("["),
      sendTimeout: 0,
      linger: 0,
      reconnectInterval: 50,
      reconnectMaxInterval: 1000,
      maxMessageSize: LIMITS.frameBytes,
      ...(options.curve === undefined
        ? {}
        : {
            curveServerKey: options.curve.serverKey,
            curvePublicKey: options.curve.publicKey,
            curveSecretKey: options.curve.secretKey,
          }),
    });
  }

  open(): void {
    this.#watcher = this.#watch();
    this.#connect();
    this.#reader = this.#read();
  }

  send(message: FromEngine): Promise<boolean> {
    if (this.#socket.closed || this.#outbox.length >= OUTBOX_MAX) return Promise.resolve(false);
    const frame = encode(message);
    return new Promise((sent) => {
      this.#outbox.push({ frame, sent });
      if (!this.#writing) void this.#write();
    });
  }

  async close(goodbye?: FromEngine): Promise<void> {
    if (this.#socket.closed) return;
    if (goodbye !== undefined && (await this.send(goodbye))) {
      this.#socket.linger = GOODBYE_LINGER_MS;
    }
    clearTimeout(this.#retry);
    this.#socket.close();
    await Promise.all([this.#reader, this.#watcher]);
  }

  /** The only writer: a second pending send would throw. */
  async #write(): Promise<void> {
    this.#writing = true;
    for (let next = this.#outbox.shift(); next !== undefined; next = this.#outbox.shift()) {
      let delivered = this.#connected;
      try {
        if (delivered) await this.#socket.send(next.frame);
      } catch {
        // EAGAIN: its queue is full. EBADF: we have closed meanwhile.
        delivered = false;
      }
      next.sent(delivered);
    }
    this.#writing = false;
  }

  async #read(): Promise<void> {
    for await (const [frame] of this.#socket) {
      this.#received += 1;
      let message: ToEngine | undefined;
      try {
        message = frame === undefined ? undefined : decode(frame, TO_ENGINE);
      } catch (error) {
        this.#options.onUnreadable?.(error);
        continue;
      }
      if (message === undefined) this.#options.onUnreadable?.(undefined);
      else this.#options.onMessage(message);
    }
  }

  /** Keys that don't fit may be mended while the engine runs. */
  #connectLater(longestMs: number): void {
    if (this.#socket.closed) return;
    this.#disconnect();
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#connect(), Math.min(longestMs, this.#retryMs));
    this.#retryMs = Math.min(longestMs, 2 * this.#retryMs);
  }

  #connect(): void {
    this.#retry = undefined;
    if (this.#socket.closed) return;
    // Random: two engines of one name must not steal each other's route. Each time another: an old
    // connection may live on until libzmq has its turn on this thread, and a ROUTER would hear one
    // name on one of the two.
    this.#socket.routingId = randomBytes(8).toString("hex");
    try {
      this.#socket.connect(this.#options.endpoint);
    } catch (error) {
      // A signal came in between; from a timer it would end the process.
      if (codeOf(error) !== "EINTR") throw error;
      this.#connectLater(HANG_UP_MS_MAX);
    }
  }

  #disconnect(): void {
    try {
      this.#socket.disconnect(this.#options.endpoint);
    } catch {
      // libzmq has given it up already.
    }
  }

  async #down(): Promise<void> {
    this.#connected = false;
    await this.#readOut();
    this.#options.onDown();
    // A failed hand-shake ends in this too, and has its own time to try again.
    if (this.#retry !== undefined) return;
    // Else the next controller gets what is still held for this one.
    this.#disconnect();
    this.#connect();
  }

  /** What came before the end is there, but may take several turns to be read. */
  async #readOut(): Promise<void> {
    let idle = 0;
    for (let turn = 0; turn < READ_OUT_TURNS_MAX && idle < IDLE_TURNS; turn++) {
      const before = this.#received;
      await setImmediate();
      idle = this.#received === before ? idle + 1 : 0;
    }
  }

  async #watch(): Promise<void> {
    const { events } = this.#socket;
    try {
      for await (const event of events) {
        if (event.type === "handshake") {
          this.#retryMs = RETRY_MS_FIRST;
          this.#connected = true;
          this.#options.onUp();
        } else if (event.type.startsWith("handshake:error")) {
          const hungUp = event.type.endsWith("other");
          // One may be a controller that stops.
          if (!hungUp || this.#retryMs > RETRY_MS_FIRST) this.#options.onFault?.(event.type);
          this.#connectLater(hungUp ? HANG_UP_MS_MAX : RETRY_MS_MAX);
        } else if (event.type === "disconnect") await this.#down();
        else if (event.type === "end") return;
      }
    } catch (error) {
      // The observer ends with its socket.
      if (codeOf(error) !== "EAGAIN" && codeOf(error) !== "EBADF") throw error;
    }
  }
}

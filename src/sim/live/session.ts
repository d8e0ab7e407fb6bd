/**
 * The engine's half of the protocol: hand-shake, heartbeats, commands answered once and again.
 * It knows nothing of steps or graphs; the host does.
 */

import type { Clock } from "../../base/clock.ts";
import type { DispatchTable } from "../../schedule/policy.ts";
import type {
  CaptureResult,
  Dropped,
  FromEngine,
  Heartbeat,
  Hello,
  Inventory,
  Mode,
  Orders,
  Ready,
  Slept,
  Start,
  ToEngine,
  Welcome,
} from "../../wire/protocol.ts";

/** What the session needs to know and whom it tells. */
export interface SessionHost {
  readonly clock: Clock;
  /** Resolves to whether a connected peer got the message. */
  send(message: FromEngine): Promise<boolean>;
  hello(): Hello;
  /** Undefined while weights load. */
  inventory(): Inventory | undefined;
  heartbeat(): Heartbeat;
  /** Undefined before ready. */
  ready(): Ready | undefined;
  onMode(mode: Mode): void;
  /** Comes before what it was sent with: in the place of what was ordered before. */
  onOrders(orders: Orders): void;
  /** How long ago the time for captures began, by the controller's word. */
  onSettling(seconds: number): void;
  /** Comes before `onMode`: what the controller wants of memory. */
  onMemory(wanted: Pick<Welcome, "reserve" | "reserveBytes" | "marginBytes">): void;
  onStart(start: Start): void;
  /** @param command a number for `answer`, not the controller's */
  onCapture(command: number, graph: string, whenIdle: boolean, needBytes?: number): void;
  /** @param command as for `onCapture` */
  onDrop(command: number, graphs: readonly string[]): void;
  /** @param command as for `onCapture` */
  onSleep(command: number, dropGraphs: boolean): void;
  /** @param command as for `onCapture` */
  onWake(command: number): void;
  onDispatch(table: DispatchTable): void;
  onFreeze(reason: string): void;
  /** Another controller has this engine: what the one before asked for and still waits is void. */
  onReplaced(): void;
  /** No controller any more, or none that takes us. */
  onLost(): void;
}

const HELLO_RETRY_SECONDS = 0.05;
/** A `hello` that got through is repeated when no answer came. */
const HELLO_REPEAT_SECONDS = 1;
const HEARTBEATS_MISSED_MAX = 5;
/** Results kept to answer a repeated command. */
const ANSWERS_MAX = 64;

type Command = Exclude<ToEngine, { type: "welcome" | "refuse" | "later" | "resync" | "heartbeat" }>;

export class EngineSession {
  /** Whether a controller has accepted us and is there. */
  welcomed = false;
  /** Whether a controller has refused us: then none is asked again. */
  refused = false;
  readonly #host: SessionHost;
  #closed = false;
  #incarnation = 0;
  #heartbeatSeconds = 1;
  #heardSeconds = 0;
  #readySent = false;
  #cancel: () => void = () => {};
  /** Command id to its result; undefined while it is under way. */
  #answers = new Map<number, CaptureResult | Dropped | Slept | undefined>();
  /** Ids start anew with every controller, so what is under way has a number of its own here. */
  readonly #underWay = new Map<number, number>();
  #lastNumber = 0;

  constructor(host: SessionHost) {
    this.#host = host;
  }

  /** The link has a peer: introduce ourselves. */
  up(): void {
    if (this.refused || this.#closed || this.welcomed) return;
    this.#sayHello();
  }

  down(): void {
    if (!this.welcomed) return;
    this.welcomed = false;
    this.#cancel();
    this.#host.onLost();
    // The peer may come back without a sign when its address changed hands: keep asking.
    this.#later(HELLO_REPEAT_SECONDS, () => this.#sayHello());
  }

  close(): void {
    this.#closed = true;
    this.welcomed = false;
    this.#cancel();
  }

  /** The KV cache exists, or the captured set has to be told anew. */
  tellInventory(): void {
    const inventory = this.welcomed ? this.#host.inventory() : undefined;
    if (inventory !== undefined) void this.#host.send(inventory);
  }

  /** Serving has begun; told once, later if nobody listens now. */
  tellReady(): void {
    const ready = this.welcomed && !this.#readySent ? this.#host.ready() : undefined;
    if (ready === undefined) return;
    this.#readySent = true;
    void this.#host.send(ready).then((delivered) => {
      this.#readySent = delivered;
    });
  }

  /**
   * Answers a command, now and whenever it is repeated. One of a controller that has been replaced
   * has no answer: its id would be taken for another command's.
   */
  answer(outcome: CaptureResult | Dropped | Slept): void {
    const id = this.#underWay.get(outcome.command);
    if (id === undefined) {
      this.tellInventory();
      return;
    }
    this.#underWay.delete(outcome.command);
    const result = { ...outcome, command: id };
    this.#answers.set(id, result);
    for (const command of this.#answers.keys()) {
      if (this.#answers.size <= ANSWERS_MAX) break;
      this.#answers.delete(command);
    }
    if (this.welcomed) void this.#host.send(result);
  }

  receive(message: ToEngine): void {
    if (this.#closed) return;
    this.#heardSeconds = this.#host.clock.now();
    switch (message.type) {
      case "welcome":
        this.#welcome(message);
        break;
      case "refuse":
        this.refused = true;
        this.welcomed = false;
        this.#cancel();
        this.#host.onLost();
        break;
      case "later":
        // No place, or a younger process has our name: we go on by ourselves, and ask again.
        if (this.welcomed) this.#host.onLost();
        this.welcomed = false;
        this.#later(message.retrySeconds, () => this.#sayHello());
        break;
      case "resync":
        if (message.hello === true) {
          this.welcomed = false;
          this.#sayHello();
        } else this.tellInventory();
        break;
      case "heartbeat":
        break;
      default:
        // Without a welcome a command comes from a controller that doesn't know us yet.
        if (this.welcomed) this.#command(message);
    }
  }

  #command(message: Command): void {
    switch (message.type) {
      case "start":
        this.#host.onStart(message);
        break;
      case "dispatch":
        this.#host.onDispatch({ uniform: message.uniform, mixed: message.mixed });
        break;
      case "freeze":
        this.#ordered(message.orders);
        this.#host.onFreeze(message.reason);
        break;
      case "mode":
        this.#ordered(message.orders);
        this.#host.onMode(message.mode);
        if (message.settlingSeconds !== undefined) this.#host.onSettling(message.settlingSeconds);
        break;
      case "capture": {
        const { command, graph, whenIdle, needBytes } = message;
        this.#once(command, (number) => {
          this.#host.onCapture(number, graph, whenIdle, needBytes);
        });
        break;
      }
      case "drop":
        this.#once(message.command, (number) => this.#host.onDrop(number, message.graphs));
        break;
      case "sleep":
        this.#once(message.command, (number) =>
          this.#host.onSleep(number, message.dropGraphs ?? false),
        );
        break;
      case "wake":
        this.#once(message.command, (number) => this.#host.onWake(number));
        break;
    }
  }

  /** A controller that says nothing of orders leaves those of the one before it. */
  #ordered(orders: Orders | undefined): void {
    if (orders !== undefined) this.#host.onOrders(orders);
  }

  #once(command: number, carryOut: (number: number) => void): void {
    const answer = this.#answers.get(command);
    if (answer !== undefined) void this.#host.send(answer);
    if (this.#answers.has(command)) return;
    this.#answers.set(command, undefined);
    this.#lastNumber += 1;
    this.#underWay.set(this.#lastNumber, command);
    carryOut(this.#lastNumber);
  }

  #welcome({ version, incarnation, heartbeatMs, mode, orders, ...wanted }: Welcome): void {
    // A controller that started earlier than the one we had has been replaced.
    if (incarnation < this.#incarnation) return;
    const { versionMin, versionMax, mode: modeBefore } = this.#host.hello();
    if (version < versionMin || version > versionMax) {
      const message =
        `Expected protocol version ${versionMin} to ${versionMax} in welcome, got ${version}: ` +
        `upgrade ${version < versionMin ? "lazygraph, the controller" : "the engine's plugin"}.`;
      const code = "ERR_LAZYGRAPH_PROTOCOL_VERSION";
      void this.#host.send({ type: "problem", code, message });
      return;
    }
    if (incarnation > this.#incarnation) {
      this.#answers = new Map();
      this.#underWay.clear();
      this.#host.onReplaced();
    }
    this.#incarnation = incarnation;
    this.#heartbeatSeconds = heartbeatMs / 1000;
    this.#cancel();
    this.welcomed = true;
    this.#host.onMemory(wanted);
    this.#ordered(orders);
    // The mode that it has already lifts no end of captures.
    if (mode !== modeBefore) this.#host.onMode(mode);
    this.tellInventory();
    this.tellReady();
    this.#beatLater();
  }

  #sayHello(): void {
    if (this.refused || this.#closed) return;
    this.#cancel();
    const repeat = (delivered: boolean): void => {
      if (this.welcomed || this.#closed) return;
      const seconds = delivered ? HELLO_REPEAT_SECONDS : HELLO_RETRY_SECONDS;
      this.#later(seconds, () => this.#sayHello());
    };
    const seen = this.#incarnation > 0 ? { incarnation: this.#incarnation } : {};
    void this.#host.send({ ...this.#host.hello(), ...seen }).then(repeat);
  }

  #beatLater(): void {
    this.#later(this.#heartbeatSeconds, () => {
      const silent = this.#host.clock.now() - this.#heardSeconds;
      if (silent > HEARTBEATS_MISSED_MAX * this.#heartbeatSeconds) {
        this.down();
        return;
      }
      void this.#host.send(this.#host.heartbeat());
      this.#beatLater();
    });
  }

  #later(seconds: number, action: () => void): void {
    this.#cancel();
    this.#cancel = this.#host.clock.after(seconds, () => {
      if (!this.#closed) action();
    });
  }
}

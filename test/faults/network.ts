/**
 * The wire between a controller and its engines: the real encoders at both ends, and between them a
 * network that loses, doubles, reorders, delays and cuts by a seed.
 */

import type { Random } from "../../src/base/random.ts";
import type { EngineWire, LinkEvents } from "../../src/sim/live/link.ts";
import { decode, encode } from "../../src/wire/codec.ts";
import { type FromEngine, type Orders, PROTOCOL_VERSION } from "../../src/wire/protocol.ts";
import type { RouterLink, RouterOptions } from "../../src/wire/router.ts";
import { TO_ENGINE } from "../../src/wire/validate.ts";
import type { ProcessClock, Timeline } from "./clock.ts";

/** Shares of messages; 0: none. */
export interface NetworkFaults {
  lost: number;
  doubled: number;
  late: number;
  reordered: number;
}

export const NO_FAULTS: NetworkFaults = { lost: 0, doubled: 0, late: 0, reordered: 0 };

/**
 * `orders-untold`: an engine doesn't tell what was ordered for it, as before that was a part of the
 * protocol. `deaf-to-resync`: it doesn't answer when it is asked for its inventory.
 * `last-words-lost`: what a controller sent right before it ended doesn't arrive.
 */
export type Plant = "orders-untold" | "deaf-to-resync" | "last-words-lost";
export const PLANTS: readonly Plant[] = ["orders-untold", "deaf-to-resync", "last-words-lost"];

export type Direction = "to-controller" | "to-engine";

/** Called at both ends of a message; the process may be dead afterwards. */
export type Passed = (type: string, moment: "sent" | "received", connection: Connection) => void;

const LATENCY_SECONDS = 0.002;
const LATE_SECONDS_MAX = 6;
const RETRY_SECONDS = 0.5;
const FRAMES_UNDER_WAY_MAX = 2000;
/** As the ROUTER socket's: what a controller that ends has sent gets so long to arrive. */
const LINGER_SECONDS = 0.2;

export interface Connection {
  readonly peer: string;
  readonly wire: SimWire;
  readonly router: SimRouter;
  open: boolean;
  /** Time of the last delivery: what is sent later arrives later, unless it is reordered. */
  readonly lastAt: Record<Direction, number>;
  /** Those to the engine that have not arrived, and when they do. */
  readonly underWay: Map<Uint8Array, number>;
}

export class Network {
  readonly timeline: Timeline;
  readonly random: Random;
  faults: NetworkFaults = NO_FAULTS;
  passed: Passed = () => {};
  /** A defect of the engine's, to be found. */
  plant: Plant | undefined;
  router: SimRouter | undefined;
  underWay = 0;

  constructor(timeline: Timeline, random: Random) {
    this.timeline = timeline;
    this.random = random;
  }

  carry(connection: Connection, direction: Direction, frame: Uint8Array): void {
    const { random, faults } = this;
    if (random() < faults.lost) return;
    const copies = random() < faults.doubled ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) this.#deliver(connection, direction, frame);
  }

  #deliver(connection: Connection, direction: Direction, frame: Uint8Array): void {
    if (this.underWay >= FRAMES_UNDER_WAY_MAX) {
      throw new Error(`more than ${FRAMES_UNDER_WAY_MAX} frames are under way`);
    }
    const { random, faults, timeline } = this;
    const late = random() < faults.late ? random() * LATE_SECONDS_MAX : 0;
    let at = timeline.nowSeconds + LATENCY_SECONDS * (0.5 + random()) + late;
    if (random() >= faults.reordered) at = Math.max(at, connection.lastAt[direction]);
    connection.lastAt[direction] = Math.max(at, connection.lastAt[direction]);
    this.underWay++;
    if (direction === "to-engine") connection.underWay.set(frame, at);
    timeline.at(at, () => {
      this.underWay--;
      connection.underWay.delete(frame);
      if (!connection.open) return;
      if (direction === "to-engine") connection.wire.receive(frame);
      else connection.router.receive(connection, frame);
    });
  }

  /** Ends a connection. A side that isn't told finds out by silence, or by sending. */
  cut(connection: Connection, told: boolean): void {
    if (!connection.open) return;
    connection.open = false;
    connection.wire.cut(connection, told);
  }

  /** A process of this name is gone, and another one comes: nothing of the old one is late. */
  forget(name: string): void {
    for (const connection of this.router?.connections.values() ?? []) {
      if (connection.wire.name === name && !connection.wire.clock.alive) connection.open = false;
    }
  }

  connections(): Connection[] {
    return [...(this.router?.connections.values() ?? [])].filter(({ open }) => open);
  }
}

/** In the place of the ROUTER socket. */
export class SimRouter implements RouterLink {
  readonly endpoint: string;
  readonly connections = new Map<string, Connection>();
  readonly clock: ProcessClock;
  readonly #network: Network;
  readonly #options: RouterOptions;
  #closed = false;

  constructor(network: Network, clock: ProcessClock, options: RouterOptions) {
    this.endpoint = options.endpoint;
    this.clock = clock;
    this.#network = network;
    this.#options = options;
    network.router = this;
  }

  get listening(): boolean {
    return !this.#closed && this.clock.alive;
  }

  send(peer: string, frame: Uint8Array): boolean {
    if (!this.listening) return false;
    const connection = this.connections.get(peer);
    if (connection === undefined) return false;
    if (!connection.open) {
      this.clock.after(0, () => this.#options.onUndeliverable(peer, "its connection has ended"));
      return true;
    }
    this.#network.carry(connection, "to-engine", frame);
    this.#network.passed(typeOf(frame), "sent", connection);
    return true;
  }

  // Budgets of peers are the socket's, and tested there.
  admit(): void {}
  dismiss(): void {}
  unreadSeconds(): number {
    return 0;
  }

  receive(connection: Connection, frame: Uint8Array): void {
    this.clock.run(() => {
      if (!this.listening) return;
      this.#options.onFrame(connection.peer, frame);
      this.#network.passed(typeOf(frame), "received", connection);
    });
  }

  async close(): Promise<void> {
    const { timeline, plant } = this.#network;
    const lingers = plant === "last-words-lost" ? 0 : LINGER_SECONDS;
    this.#leave((connection) => {
      const ends = timeline.nowSeconds + lingers;
      const at = Math.max(0, ...connection.underWay.values());
      if (lingers === 0 || at === 0) this.#network.cut(connection, true);
      else timeline.at(Math.min(at, ends), () => this.#network.cut(connection, true));
    });
  }

  /** @param told whether the engines are: by their host, which has not gone with the process */
  die(told: boolean): void {
    this.#leave((connection) => this.#network.cut(connection, told));
  }

  /** The newest that is on its way to an engine, and arrives even if the controller ends now. */
  ordersUnderWay(peer: string): Orders | undefined {
    const connection = this.connections.get(peer);
    if (connection?.open !== true) return undefined;
    const ends = this.clock.now() + LINGER_SECONDS;
    let newest: Orders | undefined;
    for (const [frame, at] of connection.underWay) {
      const message = at < ends ? decode(frame, TO_ENGINE) : undefined;
      if (message?.type !== "mode" && message?.type !== "freeze") continue;
      newest = message.orders ?? newest;
    }
    return newest;
  }

  #leave(cut: (connection: Connection) => void): void {
    this.#closed = true;
    for (const connection of this.connections.values()) cut(connection);
    if (this.#network.router === this) this.#network.router = undefined;
  }
}

/** In the place of an engine's DEALER socket. */
export class SimWire implements EngineWire {
  readonly name: string;
  readonly clock: ProcessClock;
  readonly #network: Network;
  readonly #events: LinkEvents;
  readonly #peer: string;
  readonly #foreign: boolean;
  #connection: Connection | undefined;
  #closed = false;
  #opened = false;

  constructor(
    network: Network,
    clock: ProcessClock,
    { name, peer, foreign }: { readonly name: string; readonly peer: string; foreign: boolean },
    events: LinkEvents,
  ) {
    this.#network = network;
    this.clock = clock;
    this.name = name;
    this.#peer = peer;
    this.#foreign = foreign;
    this.#events = events;
  }

  open(): void {
    this.#opened = true;
    this.#tryToConnect();
  }

  #tryToConnect(): void {
    if (this.#closed || !this.#opened || this.#connection?.open === true) return;
    const { router } = this.#network;
    if (router === undefined || !router.listening) {
      this.clock.after(RETRY_SECONDS, () => this.#tryToConnect());
      return;
    }
    const lastAt = { "to-controller": 0, "to-engine": 0 };
    const connection = {
      ...{ peer: this.#peer, wire: this, router, open: true, lastAt },
      underWay: new Map<Uint8Array, number>(),
    };
    router.connections.set(this.#peer, connection);
    this.#connection = connection;
    this.#events.onUp();
  }

  async send(message: FromEngine): Promise<boolean> {
    const connection = this.#connection;
    if (this.#closed || connection === undefined || !this.clock.alive) return false;
    // A connection that broke without a word takes what is sent, and loses it.
    const planted = this.#network.plant === "orders-untold" ? withoutOrders(message) : message;
    const told = this.#foreign ? ofLaterVersion(planted) : planted;
    if (connection.open) this.#network.carry(connection, "to-controller", encode(told));
    this.#network.passed(message.type, "sent", connection);
    return true;
  }

  receive(frame: Uint8Array): void {
    this.clock.run(() => {
      const connection = this.#connection;
      if (this.#closed || connection === undefined) return;
      const message = decode(frame, TO_ENGINE);
      if (message === undefined) return;
      if (message.type === "resync" && this.#network.plant === "deaf-to-resync") return;
      this.#events.onMessage(message);
      this.#network.passed(message.type, "received", connection);
    });
  }

  cut(connection: Connection, told: boolean): void {
    if (this.#connection !== connection) return;
    const noticeSeconds = told ? LATENCY_SECONDS : 3 + 6 * this.#network.random();
    this.clock.after(noticeSeconds, () => {
      if (this.#connection !== connection) return;
      this.#connection = undefined;
      this.#events.onDown();
      this.#tryToConnect();
    });
  }

  /** The process is gone: its host ends the connection, if it is there to do so. */
  die(): void {
    this.#closed = true;
    const connection = this.#connection;
    this.#connection = undefined;
    if (connection !== undefined) connection.open = false;
  }

  async close(goodbye?: FromEngine): Promise<void> {
    if (this.#closed) return;
    const connection = this.#connection;
    if (goodbye !== undefined) await this.send(goodbye);
    this.#closed = true;
    // What was sent is still on its way.
    this.#network.timeline.after(15, () => {
      if (connection !== undefined) connection.open = false;
    });
  }
}

function withoutOrders(message: FromEngine): FromEngine {
  if (message.type !== "hello") return message;
  const { orders: _, ...rest } = message;
  return rest;
}

function ofLaterVersion(message: FromEngine): FromEngine {
  if (message.type !== "hello") return message;
  return { ...message, versionMin: PROTOCOL_VERSION + 1, versionMax: PROTOCOL_VERSION + 1 };
}

/** The encoders write `type` first, and a short text as its length and its bytes. */
function typeOf(frame: Uint8Array): string {
  const head = (frame[0] as number) === 0xde ? 3 : 1;
  const start = head + 5;
  const length = (frame[start] as number) & 0x1f;
  return String.fromCharCode(...frame.subarray(start + 1, start + 1 + length));
}

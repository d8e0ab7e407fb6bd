/**
 * Owns the ROUTER socket: one reader loop, one writer loop, one bounded outbox per peer.
 *
 *   engines ══▶ reader: frames and work per peer are bounded, and the loop yields ══▶ onFrame
 *   send() ──▶ outbox of the peer ──▶ sender: one send at a time, a full peer waits ══▶ engines
 *
 * A peer is a routing id in hex; which engine that is, is the session's business.
 */

import { setImmediate, setTimeout } from "node:timers/promises";
import { type Event, type Reply, Router } from "zeromq";
import { type Clock, withinSeconds } from "../base/clock.ts";
import { codeOf, LazygraphError, messageOf } from "../base/errors.ts";
import { frameContext } from "./context.ts";
import { type CurveOptions, guardClients } from "./curve.ts";
import {
  bindAdvice,
  isForeignFile,
  isIpcServed,
  isLoopback,
  removeSocketFile,
  type SocketFile,
  socketFileOf,
  waitUntilFree,
} from "./endpoint.ts";
import { type HandshakeFailure, Handshakes } from "./handshakes.ts";
import { type Excess, type Peer, Peers } from "./peers.ts";
import { LIMITS } from "./protocol.ts";
import { Sender } from "./sender.ts";

/** Work and bytes after which timers, signals and HTTP get their turn. */
const TURN_SECONDS = 0.004;
const TURN_BYTES = 1 << 20;
/** A frame that comes sooner after a rest began was there before. */
const AT_ONCE_SECONDS = 0.001;
/** Where frames come more often than this, a batch of them is awaited. */
const DENSE_SECONDS = 0.002;
/** So many, by the rate of the last ones, within these bounds. */
const BATCH_FRAMES = 48;
const BATCH_MS_MIN = 5;
const BATCH_MS_MAX = 20;
/** Where more than this share of frames brought one on its way back, peers wait for answers. */
const ANSWERED_SHARE = 0.25;
/** Messages that libzmq holds of a peer that sends faster than they are read. */
const UNREAD_MESSAGES_MAX = 32;
/** Frames above the protocol's limit still arrive, to be refused with a sentence, up to this. */
const MESSAGE_BYTES_MAX = 4 * LIMITS.frameBytes;
/** What is queued when the link closes gets so long to reach libzmq, and from there the network. */
const LINGER_MS = 1000;

export interface RouterOptions {
  readonly endpoint: string;
  readonly curve?: CurveOptions;
  readonly clock: Clock;
  readonly onFrame: (peer: string, frame: Uint8Array) => void;
  /** Frames of these peers come next, in this order: what they are about may be read ahead. */
  readonly onBatch?: (peers: readonly string[]) => void;
  /** A frame was dropped unread: too many came. Its sender is alive, and that is all it tells. */
  readonly onDropped: (peer: string) => void;
  /** The peer sent more than it may; called once a second with the number of frames dropped. */
  readonly onFlood: (peer: string, dropped: Readonly<Record<Excess, number>>) => void;
  /** Frames to this peer were thrown away: it is gone, or doesn't read. */
  readonly onUndeliverable: (peer: string, reason: string) => void;
  /** An engine's keys and this side's don't fit; a sentence now and then. */
  readonly onKeys?: (sentence: string) => void;
  /** The socket itself failed; no more frames come. */
  readonly onFault: (error: unknown) => void;
  /** A frame that means nothing to any peer, to find out whether one is there. */
  readonly nothing: Uint8Array;
}

export interface RouterLink {
  /** Where engines connect: as asked, with a port of 0 resolved. */
  readonly endpoint: string;
  /** Queues a frame of a kind; false when the peer is unknown or its outbox is full. */
  send(peer: string, frame: Uint8Array, kind?: string): boolean;
  /** The peer has a session: it is not forgotten for strangers, and has a budget of its own. */
  admit(peer: string): void;
  /** Its session has ended. */
  dismiss(peer: string): void;
  /** Seconds since all that had come was read: what came meanwhile may lie unread. */
  unreadSeconds(): number;
  /**
   * Idempotent. Frames for peers that read get a second to leave, as the last orders of a gateway
   * that ends are, and the rest is dropped; the address is free once this resolves.
   */
  close(): Promise<void>;
}

/**
 * @throws LazygraphError ERR_LAZYGRAPH_ADDRESS_IN_USE, or ERR_LAZYGRAPH_BIND for every other reason
 * why the endpoint can't be had, a reachable one without keys included.
 */
export async function openRouter(options: RouterOptions): Promise<RouterLink> {
  const { endpoint, curve } = options;
  if (curve === undefined && !isLoopback(endpoint)) {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_BIND",
      `Expected curve keys for ${endpoint}, which other machines may reach, got none: set ` +
        "`curve`, or bind to 127.0.0.1.",
    );
  }
  if (await isForeignFile(endpoint)) {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_BIND",
      `Expected ${endpoint} to be a socket file or none yet, but something else of that name is ` +
        "there, and is left alone: choose another path.",
    );
  }
  if (await isIpcServed(endpoint)) throw inUse(endpoint);
  const link = new Link(options);
  try {
    await link.bind();
  } catch (error) {
    await link.close();
    if (codeOf(error) === "EADDRINUSE") throw inUse(endpoint, error);
    const why = messageOf(error);
    throw new LazygraphError(
      "ERR_LAZYGRAPH_BIND",
      `Expected ${endpoint} to be an address of this machine that can be bound, got ${why}: ` +
        `${bindAdvice(endpoint)}.`,
      { cause: error },
    );
  }
  return link;
}

function inUse(endpoint: string, cause?: unknown): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_ADDRESS_IN_USE",
    `Expected ${endpoint} to be free, but another process listens there: stop it, or choose ` +
      "another endpoint (port 0 picks a free one).",
    { cause },
  );
}

/** Messages that were taken and not handled yet, and whose they are. */
interface Gathered {
  readonly messages: Buffer[][];
  readonly peers: Peer[];
  readonly names: string[];
  bytes: number;
}

interface Batch {
  readonly beganSeconds: number;
  frames: number;
  sent: number;
}

class Link implements RouterLink {
  readonly #options: RouterOptions;
  readonly #context = frameContext();
  readonly #socket: Router;
  readonly #peers: Peers;
  readonly #sender: Sender;
  #guard: Reply | undefined;
  /** The address as bound; a closed socket no longer tells. */
  #bound: string | undefined;
  #socketFile: SocketFile | undefined;
  /** What came and went since the last rest. */
  #batch: Batch;
  /** When something came after a rest; undefined: all that came was read. */
  #busySinceSeconds: number | undefined;
  #closed = false;
  #closing: Promise<void> | undefined;

  constructor(options: RouterOptions) {
    this.#options = options;
    const { curve, clock } = options;
    this.#batch = { beganSeconds: clock.now(), frames: 0, sent: 0 };
    this.#peers = new Peers(clock.now());
    this.#sender = new Sender({
      clock,
      send: (routingId, frame) => this.#socket.send([routingId, frame]),
      onUndeliverable: ({ name }, reason) => options.onUndeliverable(name, reason),
    });
    this.#socket = new Router({
      context: this.#context,
      // Off by default; on, it would take IPv4 addresses by IPv6 sockets, which not all hosts have.
      ipv6: options.endpoint.includes("["),
      mandatory: true,
      handover: true,
      sendTimeout: 0,
      linger: LINGER_MS,
      maxMessageSize: MESSAGE_BYTES_MAX,
      receiveHighWaterMark: UNREAD_MESSAGES_MAX,
      ...(curve === undefined
        ? {}
        : { curveServer: true, curveSecretKey: curve.secretKey, zapDomain: "lazygraph" }),
    });
  }

  get endpoint(): string {
    return this.#bound ?? this.#options.endpoint;
  }

  async bind(): Promise<void> {
    const { curve, endpoint } = this.#options;
    if (curve?.allowedClients !== undefined) {
      this.#guard = await guardClients(this.#context, curve.allowedClients);
    }
    await this.#socket.bind(endpoint);
    // Not before: libzmq tells observers of a bind that fails, and its errno is then at times theirs.
    void this.#watch();
    this.#bound = this.#socket.lastEndpoint ?? endpoint;
    this.#socketFile = await socketFileOf(this.#bound);
    void this.#read();
  }

  send(peer: string, frame: Uint8Array, kind?: string): boolean {
    const entry = this.#closed ? undefined : this.#peers.find(peer);
    if (entry === undefined || !this.#sender.push(entry, frame, kind)) return false;
    this.#batch.sent += 1;
    return true;
  }

  admit(peer: string): void {
    this.#peers.admit(peer);
  }

  dismiss(peer: string): void {
    this.#peers.dismiss(peer);
  }

  unreadSeconds(): number {
    const since = this.#busySinceSeconds;
    return since === undefined ? 0 : this.#options.clock.now() - since;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#closed = true;
    await withinSeconds(this.#options.clock, LINGER_MS / 1000, this.#sender.drained());
    this.#sender.close();
    this.#peers.clear();
    // `unbind` would be the way, but it runs beside a pending receive and libzmq then aborts.
    this.#socket.close();
    this.#guard?.close();
    if (this.#bound === undefined) return;
    await waitUntilFree(this.#bound);
    await removeSocketFile(this.#bound, this.#socketFile);
  }

  /** Who can't end its hand-shake sends no frame: only the socket's own events tell of it. */
  async #watch(): Promise<void> {
    const { clock, curve, onKeys } = this.#options;
    const handshakes = new Handshakes(curve !== undefined);
    try {
      for await (const event of this.#socket.events) {
        if (this.#closed || event.type === "end") return;
        const failure = handshakeFailure(event);
        const sentence = failure && handshakes.failed(failure, clock.now());
        if (sentence !== undefined) onKeys?.(sentence);
      }
    } catch {
      // The observer ends with its socket; without it only sentences are missing.
    }
  }

  async #read(): Promise<void> {
    const { clock } = this.#options;
    let turn = { beganSeconds: clock.now(), bytes: 0 };
    const gathered: Gathered = { messages: [], peers: [], names: [], bytes: 0 };
    try {
      // What is there is read without asking for it: asking is a system call for every frame.
      this.#socket.receiveTimeout = 0;
      while (!this.#closed) {
        const isEmpty = await this.#gather(gathered);
        const readAt = clock.now();
        turn.bytes += gathered.bytes;
        this.#lookUp(gathered, clock.now());
        const { messages, peers } = gathered;
        let began = clock.now();
        for (let at = 0; at < messages.length && !this.#closed; at++) {
          // Awaited only where it has to be: this is done for every frame there is.
          const waiting = this.#receive(peers[at] as Peer, messages[at] as Buffer[], began);
          began = typeof waiting === "number" ? waiting : await waiting;
          this.#batch.frames += 1;
          // By time and bytes, not by frames: one of 1 MiB takes as long as a thousand heartbeats.
          if (began - turn.beganSeconds < TURN_SECONDS && turn.bytes < TURN_BYTES) continue;
          await setImmediate();
          began = clock.now();
          turn = { beganSeconds: began, bytes: 0 };
        }
        messages.length = 0;
        gathered.bytes = 0;
        if (!isEmpty || this.#closed) continue;
        this.#busySinceSeconds = undefined;
        const restAt = clock.now();
        const first = await this.#rest();
        // What comes at once has been there since the socket was last found empty.
        const waited = first !== undefined && clock.now() - restAt > AT_ONCE_SECONDS;
        this.#busySinceSeconds = waited ? clock.now() : readAt;
        if (first !== undefined) keep(gathered, first);
        turn = { beganSeconds: clock.now(), bytes: 0 };
      }
    } catch (error) {
      if (!this.#closed) this.#options.onFault(error);
    }
  }

  /**
   * Takes what is there, up to a batch: who comes up is known before the first of it is handled.
   * @returns whether that was all
   */
  async #gather(into: Gathered): Promise<boolean> {
    try {
      while (into.messages.length < BATCH_FRAMES && into.bytes < TURN_BYTES) {
        keep(into, await this.#socket.receive());
      }
      return false;
    } catch (error) {
      if (this.#closed || codeOf(error) !== "EAGAIN") throw error;
      return true;
    }
  }

  /** Whose the gathered messages are. */
  #lookUp({ messages, peers, names }: Gathered, now: number): void {
    peers.length = 0;
    names.length = 0;
    for (const [routingId] of messages) {
      const peer = this.#peers.heard(routingId as Buffer, now);
      peers.push(peer);
      names.push(peer.name);
    }
    // Of one alone there is nothing to be had side by side.
    if (names.length > 1) this.#options.onBatch?.(names);
  }

  /**
   * Waits while nothing is there: for the next frame, which comes, or, since waking up for each of
   * many takes longer than reading it, for a batch of them, of which none comes.
   */
  async #rest(): Promise<Buffer[] | undefined> {
    const batch = this.#batch;
    const now = this.#options.clock.now();
    this.#batch = { beganSeconds: now, frames: 0, sent: 0 };
    const batchMs = batchMsOf(batch, now - batch.beganSeconds);
    if (batchMs !== undefined) {
      await setTimeout(batchMs);
      return undefined;
    }
    this.#socket.receiveTimeout = -1;
    const first = await this.#socket.receive();
    if (!this.#closed) this.#socket.receiveTimeout = 0;
    return first;
  }

  /** @returns when it was done, in seconds: the clock is read as seldom as can be */
  #receive(peer: Peer, frames: Buffer[], began: number): Promise<number> | number {
    const { clock, nothing, onFlood } = this.#options;
    const bytes = sizeOf(frames);
    const dropped = this.#peers.overflow(peer, began);
    if (dropped !== undefined) onFlood(peer.name, dropped);
    if (!peer.hasLeft) return this.#take(peer, frames, bytes, began);
    // What was queued before its peer left is of no use, and must not begin a session either.
    return this.#sender
      .reaches(peer, nothing)
      .then((isBack) => (isBack ? this.#take(peer, frames, bytes, began) : clock.now()));
  }

  #take(peer: Peer, [, frame, more]: Buffer[], bytes: number, began: number): number {
    const { clock, onFrame, onDropped } = this.#options;
    if (this.#peers.excess(peer, bytes, began) !== undefined) {
      onDropped(peer.name);
      return began;
    }
    // A message of another number of frames is no message of ours; an empty frame is refused.
    const isOurs = frame !== undefined && more === undefined;
    onFrame(peer.name, isOurs ? frame : new Uint8Array());
    const now = clock.now();
    this.#peers.worked(peer, now, now - began);
    return now;
  }
}

/** How long a batch is to be awaited; undefined: frames are rare, and each is read as it comes. */
function batchMsOf({ frames, sent }: Batch, seconds: number): number | undefined {
  if (seconds >= frames * DENSE_SECONDS) return undefined;
  if (sent > ANSWERED_SHARE * frames) return BATCH_MS_MIN;
  const ms = (1000 * BATCH_FRAMES * seconds) / frames;
  return Math.max(BATCH_MS_MIN, Math.min(BATCH_MS_MAX, ms));
}

function keep(gathered: Gathered, message: Buffer[]): void {
  gathered.messages.push(message);
  gathered.bytes += sizeOf(message);
}

function sizeOf(frames: readonly Buffer[]): number {
  let bytes = 0;
  for (const frame of frames) bytes += frame.byteLength;
  return bytes;
}

function handshakeFailure(event: Event): HandshakeFailure | undefined {
  switch (event.type) {
    case "handshake:error:auth":
      return "refused";
    case "handshake:error:other":
      return "hang-up";
    case "handshake:error:protocol":
      return codeOf(event.error) === "ERR_ZMTP_MECHANISM_MISMATCH" ? "mechanism" : "key";
    default:
      return undefined;
  }
}

/**
 * Owns the ROUTER socket: one reader loop, one writer loop, one bounded outbox per peer.
 *
 *   engines ══▶ reader: frames per peer and second are bounded, and the loop yields ══▶ onFrame
 *   send() ──▶ outbox of the peer ──▶ writer: one send at a time, a full peer waits ══▶ engines
 *
 * A peer is a routing id in hex; which engine that is, is the session's business.
 */

import { setImmediate } from "node:timers/promises";
import { Context, type Event, type Reply, Router } from "zeromq";
import type { Clock } from "../base/clock.ts";
import { codeOf, LazygraphError, messageOf } from "../base/errors.ts";
import { type CurveOptions, guardClients } from "./curve.ts";
import { isIpcServed, isLoopback, waitUntilFree } from "./endpoint.ts";
import { type HandshakeFailure, Handshakes } from "./handshakes.ts";
import { LIMITS } from "./protocol.ts";

/** Frames that may wait for one peer; a healthy engine is sent a handful per second. */
const OUTBOX_FRAMES_MAX = 256;
/** Frames read of one peer within a second; what it sends beyond them is dropped unread. */
export const FRAMES_PER_SECOND_MAX = 1000;
/** Peers remembered at once; above, the one heard of longest ago is forgotten. */
const PEERS_MAX = 1024;
/** Frames read before timers get their turn; zeromq's own 512 would take seconds of large frames. */
const FRAMES_PER_TURN = 64;
/** Seconds until a peer whose pipe was full is tried again. */
const RETRY_SECONDS = 0.02;
/** Frames above the protocol's limit still arrive, to be refused with a sentence, up to this. */
const MESSAGE_BYTES_MAX = 4 * LIMITS.frameBytes;

export interface RouterOptions {
  readonly endpoint: string;
  readonly curve?: CurveOptions;
  readonly clock: Clock;
  readonly onFrame: (peer: string, frame: Uint8Array) => void;
  /** A frame was dropped unread: too many came. Its sender is alive, and that is all it tells. */
  readonly onDropped: (peer: string) => void;
  /** The peer sent more than it may; called once a second with the number of frames dropped. */
  readonly onFlood: (peer: string, dropped: number) => void;
  /** Frames to this peer were thrown away: it is gone, or doesn't read. */
  readonly onUndeliverable: (peer: string, reason: string) => void;
  /** An engine's keys and this side's don't fit; a sentence now and then. */
  readonly onKeys?: (sentence: string) => void;
  /** The socket itself failed; no more frames come. */
  readonly onFault: (error: unknown) => void;
}

export interface RouterLink {
  /** Where engines connect: as asked, with a port of 0 resolved. */
  readonly endpoint: string;
  /** Queues a frame; false when the peer is unknown or its outbox is full. */
  send(peer: string, frame: Uint8Array): boolean;
  /** Idempotent. Frames not yet sent are dropped; the address is free once this resolves. */
  close(): Promise<void>;
}

interface Peer {
  readonly routingId: Buffer;
  outbox: Uint8Array[];
  retryAtSeconds: number;
  windowStartSeconds: number;
  windowFrames: number;
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
      `Expected ${endpoint} to be an address of this machine that can be bound, but: ${why}.`,
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

class Link implements RouterLink {
  readonly #options: RouterOptions;
  readonly #context = new Context();
  readonly #socket: Router;
  readonly #peers = new Map<string, Peer>();
  #guard: Reply | undefined;
  /** The address as bound; a closed socket no longer tells. */
  #bound: string | undefined;
  #writing = false;
  #closed = false;
  #closing: Promise<void> | undefined;
  #cancelRetry: (() => void) | undefined;

  constructor(options: RouterOptions) {
    this.#options = options;
    const { curve } = options;
    this.#socket = new Router({
      context: this.#context,
      // Off by default; on, it would take IPv4 addresses by IPv6 sockets, which not all hosts have.
      ipv6: options.endpoint.includes("["),
      mandatory: true,
      handover: true,
      sendTimeout: 0,
      linger: 0,
      maxMessageSize: MESSAGE_BYTES_MAX,
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
    void this.#watch();
    await this.#socket.bind(endpoint);
    this.#bound = this.#socket.lastEndpoint ?? endpoint;
    void this.#read();
  }

  send(peer: string, frame: Uint8Array): boolean {
    const entry = this.#peers.get(peer);
    if (this.#closed || entry === undefined) return false;
    if (entry.outbox.length >= OUTBOX_FRAMES_MAX) {
      this.#giveUp(peer, entry, `it left ${entry.outbox.length} frames unread`);
      return false;
    }
    entry.outbox.push(frame);
    void this.#write();
    return true;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#closed = true;
    this.#cancelRetry?.();
    this.#peers.clear();
    // `unbind` would be the way, but it runs beside a pending receive and libzmq then aborts.
    this.#socket.close();
    this.#guard?.close();
    if (this.#bound !== undefined) await waitUntilFree(this.#bound);
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
    let turn = 0;
    try {
      for await (const frames of this.#socket) {
        const [routingId, frame] = frames;
        // A message of another number of frames is no message of ours; an empty frame is refused.
        if (routingId !== undefined)
          this.#receive(routingId, frames.length === 2 ? frame : undefined);
        turn += 1;
        if (turn % FRAMES_PER_TURN === 0) await setImmediate();
      }
    } catch (error) {
      if (!this.#closed) this.#options.onFault(error);
    }
  }

  #receive(routingId: Buffer, frame: Buffer | undefined): void {
    const name = routingId.toString("hex");
    const peer = this.#peerOf(name, routingId);
    const now = this.#options.clock.now();
    if (now - peer.windowStartSeconds >= 1) {
      const dropped = peer.windowFrames - FRAMES_PER_SECOND_MAX;
      peer.windowStartSeconds = now;
      peer.windowFrames = 0;
      if (dropped > 0) this.#options.onFlood(name, dropped);
    }
    peer.windowFrames += 1;
    if (peer.windowFrames > FRAMES_PER_SECOND_MAX) this.#options.onDropped(name);
    else this.#options.onFrame(name, frame ?? new Uint8Array());
  }

  #peerOf(name: string, routingId: Buffer): Peer {
    const known = this.#peers.get(name);
    // Insertion order is order of last contact, so that the first entry is the one to forget.
    this.#peers.delete(name);
    if (known === undefined && this.#peers.size >= PEERS_MAX) {
      const [oldest] = this.#peers.keys();
      if (oldest !== undefined) this.#peers.delete(oldest);
    }
    const peer = known ?? {
      routingId: Buffer.from(routingId),
      outbox: [],
      retryAtSeconds: 0,
      windowStartSeconds: this.#options.clock.now(),
      windowFrames: 0,
    };
    this.#peers.set(name, peer);
    return peer;
  }

  /** Sends until nothing is due. One send at a time: a second pending one would throw EBUSY. */
  async #write(): Promise<void> {
    if (this.#writing) return;
    this.#writing = true;
    try {
      for (let due = this.#nextDue(); due !== undefined; due = this.#nextDue()) {
        await this.#sendFirst(...due);
      }
    } finally {
      this.#writing = false;
    }
    this.#retryLater();
  }

  #nextDue(): [string, Peer] | undefined {
    if (this.#closed) return undefined;
    const now = this.#options.clock.now();
    for (const [name, peer] of this.#peers) {
      if (peer.outbox.length > 0 && peer.retryAtSeconds <= now) return [name, peer];
    }
    return undefined;
  }

  async #sendFirst(name: string, peer: Peer): Promise<void> {
    const frame = peer.outbox[0];
    if (frame === undefined) return;
    try {
      await this.#socket.send([peer.routingId, frame]);
      // Meanwhile the outbox may have been thrown away, and begun anew with another frame.
      if (peer.outbox[0] === frame) peer.outbox.shift();
    } catch (error) {
      if (this.#closed) return;
      if (codeOf(error) === "EAGAIN") {
        peer.retryAtSeconds = this.#options.clock.now() + RETRY_SECONDS;
      } else {
        const gone = codeOf(error) === "EHOSTUNREACH";
        this.#giveUp(name, peer, gone ? "it is no longer connected" : String(error));
      }
    }
  }

  #giveUp(name: string, peer: Peer, reason: string): void {
    peer.outbox = [];
    this.#options.onUndeliverable(name, reason);
  }

  #retryLater(): void {
    if (this.#closed || this.#cancelRetry !== undefined) return;
    if (![...this.#peers.values()].some((peer) => peer.outbox.length > 0)) return;
    this.#cancelRetry = this.#options.clock.after(RETRY_SECONDS, () => {
      this.#cancelRetry = undefined;
      void this.#write();
    });
  }
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

/**
 * Sends frames from the outboxes of peers: one at a time, because a second pending one would throw
 * EBUSY, and in turn, so that nobody's long outbox holds up the others. Who is full is tried again.
 */

import type { Clock } from "../base/clock.ts";
import { counted } from "../base/counted.ts";
import { codeOf } from "../base/errors.ts";
import type { Peer } from "./peers.ts";

/** Frames that may wait for one peer; a healthy engine is sent a handful per second. */
const OUTBOX_FRAMES_MAX = 256;
/** Seconds until a peer whose pipe was full is tried again. */
const RETRY_SECONDS = 0.02;

export interface SenderOptions {
  readonly clock: Clock;
  /** Rejects at once, with EAGAIN where the peer is full and EHOSTUNREACH where it is gone. */
  readonly send: (routingId: Buffer, frame: Uint8Array) => Promise<void>;
  /** Frames to this peer were thrown away. */
  readonly onUndeliverable: (peer: Peer, reason: string) => void;
}

export class Sender {
  readonly #options: SenderOptions;
  /** Peers with something to send, by turn. */
  readonly #due = new Set<Peer>();
  readonly #full = new Set<Peer>();
  #writing: Promise<void> | undefined;
  #cancelRetry: (() => void) | undefined;
  #closed = false;

  constructor(options: SenderOptions) {
    this.#options = options;
  }

  /** False when its outbox is full: then all of it is thrown away. */
  push(peer: Peer, frame: Uint8Array): boolean {
    if (this.#closed) return false;
    if (peer.outbox.length >= OUTBOX_FRAMES_MAX) {
      this.#giveUp(peer, `it left ${counted(peer.outbox.length, "frame")} unread`);
      return false;
    }
    peer.outbox.push(frame);
    this.#enqueue(peer);
    return true;
  }

  /**
   * Whether a peer that had left is there again.
   * @param frame one that means nothing to it
   */
  async reaches(peer: Peer, frame: Uint8Array): Promise<boolean> {
    while (this.#writing !== undefined) await this.#writing;
    if (this.#closed) return false;
    const sending = this.#options.send(peer.routingId, frame).then(
      () => true,
      (error: unknown) => codeOf(error) === "EAGAIN",
    );
    this.#writing = sending.then(() => undefined);
    const reached = await sending;
    this.#writing = undefined;
    if (reached) peer.hasLeft = false;
    this.#writeAll();
    return reached;
  }

  /** Resolves once nothing waits for a peer that reads; for who is full nothing is awaited. */
  async drained(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
  }

  close(): void {
    this.#closed = true;
    this.#cancelRetry?.();
    this.#due.clear();
  }

  #enqueue(peer: Peer): void {
    if (this.#full.has(peer)) return;
    this.#due.add(peer);
    this.#writeAll();
  }

  #writeAll(): void {
    if (this.#writing !== undefined || this.#due.size === 0 || this.#closed) return;
    this.#writing = this.#write().finally(() => {
      this.#writing = undefined;
      this.#writeAll();
    });
  }

  async #write(): Promise<void> {
    // Who comes meanwhile, or once more, has its turn after the others.
    for (const peer of this.#due) {
      this.#due.delete(peer);
      const [frame] = peer.outbox;
      if (frame === undefined) continue;
      await this.#send(peer, frame);
      if (this.#closed) return;
      if (peer.outbox.length > 0 && !this.#full.has(peer)) this.#due.add(peer);
    }
  }

  async #send(peer: Peer, frame: Uint8Array): Promise<void> {
    try {
      await this.#options.send(peer.routingId, frame);
      peer.hasLeft = false;
      // Meanwhile the outbox may have been thrown away, and begun anew with another frame.
      if (peer.outbox[0] === frame) peer.outbox.shift();
    } catch (error) {
      if (this.#closed) return;
      if (codeOf(error) === "EAGAIN") {
        this.#full.add(peer);
        this.#cancelRetry ??= this.#options.clock.after(RETRY_SECONDS, () => this.#retry());
        return;
      }
      peer.hasLeft = codeOf(error) === "EHOSTUNREACH";
      this.#giveUp(peer, peer.hasLeft ? "its connection has ended" : String(error));
    }
  }

  #retry(): void {
    this.#cancelRetry = undefined;
    const full = [...this.#full];
    this.#full.clear();
    for (const peer of full) if (peer.outbox.length > 0) this.#enqueue(peer);
  }

  #giveUp(peer: Peer, reason: string): void {
    peer.outbox = [];
    this.#options.onUndeliverable(peer, reason);
  }
}

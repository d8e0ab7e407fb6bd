/**
 * Sends frames of outboxes: one at a time, because a second pending one would throw EBUSY, and in
 * turn, so that nobody's long outbox holds up the others. The full are tried again.
 */

import type { Clock } from "../base/clock.ts";
import { codeOf } from "../base/errors.ts";
import type { Peer, Queued } from "./peers.ts";

/** Frames that may wait for one peer; a healthy engine is sent a handful per second. */
const OUTBOX_FRAMES_MAX = 256;
/** Messages that the next one of their kind replaces. */
const REPLACED = new Set(["mode", "freeze", "dispatch"]);
/** Seconds until a full peer is tried again. */
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

  /** False when its outbox is full, and then thrown away. */
  push(peer: Peer, frame: Uint8Array, kind = ""): boolean {
    if (this.#closed) return false;
    const { outbox } = peer;
    // A command in between goes by what was before it.
    const last = outbox.findLastIndex((it) => it.kind === kind || !REPLACED.has(it.kind));
    if (REPLACED.has(kind) && outbox[last]?.kind === kind) outbox.splice(last, 1);
    if (outbox.length >= OUTBOX_FRAMES_MAX) {
      this.#giveUp(peer, `it left ${outbox.length} frames unread`);
      return false;
    }
    outbox.push({ frame, kind });
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

  /** Resolves once nothing waits but for who is full. */
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
      const [next] = peer.outbox;
      if (next === undefined) continue;
      await this.#send(peer, next);
      if (this.#closed) return;
      if (peer.outbox.length > 0 && !this.#full.has(peer)) this.#due.add(peer);
    }
  }

  async #send(peer: Peer, next: Queued): Promise<void> {
    try {
      await this.#options.send(peer.routingId, next.frame);
      peer.hasLeft = false;
      // It may have been replaced or thrown away meanwhile.
      if (peer.outbox[0] === next) peer.outbox.shift();
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

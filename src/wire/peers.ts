/**
 * Who is at a socket, and what each of them may cause. Bookkeeping alone: nothing here reads or
 * sends.
 *
 * A peer with a session is remembered for as long as it has one. Strangers are remembered in a
 * number, the one heard of longest ago forgotten first, and share one budget of work: whoever comes
 * again and again under new ids has no more of it than somebody who comes once.
 */

import { dropOldest } from "../base/drop-oldest.ts";
import { WorkBudget } from "./work-budget.ts";

/** Frames read of one peer within a second; what it sends beyond them is dropped unread. */
export const FRAMES_PER_SECOND_MAX = 1000;
/** Share of the time for which one peer's frames may keep this side at work, and all strangers'. */
export const WORK_SHARE_MAX = 0.25;
/** What of it may be saved up, in seconds: many at once come after a restart of this side. */
const WORK_BURST_SECONDS = 0.5;
const STRANGERS_BURST_SECONDS = 1;
/** Frames up to this are read even when the work is used up: an answer must not be lost in it. */
const SMALL_FRAME_BYTES = 4096;
/** Strangers remembered at once. */
const STRANGERS_MAX = 1024;
const WINDOW_SECONDS = 1;

export interface Queued {
  readonly frame: Uint8Array;
  /** Its message's type. */
  readonly kind: string;
}

export interface Peer {
  /** Its routing id in hex. */
  readonly name: string;
  readonly routingId: Buffer;
  readonly work: WorkBudget;
  hasSession: boolean;
  /** A sending found nobody: what still comes was queued before it left, or it is back. */
  hasLeft: boolean;
  outbox: Queued[];
  windowStartSeconds: number;
  frames: number;
  dropped: Record<Excess, number>;
}

/** More frames than it may send, or frames that took longer than they may. */
export type Excess = "frames" | "work";

export class Peers {
  readonly #members = new Map<string, Peer>();
  readonly #strangers = new Map<string, Peer>();
  readonly #strangersWork: WorkBudget;

  constructor(nowSeconds: number) {
    this.#strangersWork = new WorkBudget(WORK_SHARE_MAX, STRANGERS_BURST_SECONDS, nowSeconds);
  }

  find(name: string): Peer | undefined {
    return this.#members.get(name) ?? this.#strangers.get(name);
  }

  /** The peer of a frame that has come. */
  heard(routingId: Buffer, nowSeconds: number): Peer {
    const name = routingId.toString("hex");
    const member = this.#members.get(name);
    if (member !== undefined) return member;
    const peer = this.#strangers.get(name) ?? {
      name,
      routingId: Buffer.from(routingId),
      work: new WorkBudget(WORK_SHARE_MAX, WORK_BURST_SECONDS, nowSeconds),
      hasSession: false,
      hasLeft: false,
      outbox: [],
      windowStartSeconds: nowSeconds,
      frames: 0,
      dropped: { frames: 0, work: 0 },
    };
    this.#remember(peer);
    return peer;
  }

  /** It has a session from now on, until it is dismissed. */
  admit(name: string): void {
    const peer = this.#strangers.get(name);
    if (peer === undefined) return;
    this.#strangers.delete(name);
    peer.hasSession = true;
    this.#members.set(name, peer);
  }

  dismiss(name: string): void {
    const peer = this.#members.get(name);
    if (peer === undefined) return;
    this.#members.delete(name);
    peer.hasSession = false;
    this.#remember(peer);
  }

  clear(): void {
    this.#members.clear();
    this.#strangers.clear();
  }

  /** Why a frame of this peer is to be dropped unread; undefined: it is to be read. */
  excess(peer: Peer, bytes: number, nowSeconds: number): Excess | undefined {
    peer.frames += 1;
    const budget = peer.hasSession ? peer.work : this.#strangersWork;
    let excess: Excess | undefined;
    if (peer.frames > FRAMES_PER_SECOND_MAX) excess = "frames";
    else if (bytes > SMALL_FRAME_BYTES && budget.isSpent(nowSeconds)) excess = "work";
    if (excess !== undefined) peer.dropped[excess] += 1;
    return excess;
  }

  /** What a frame of this peer took. */
  worked(peer: Peer, nowSeconds: number, seconds: number): void {
    // Before its session as well: it must not begin one with all that it used up as a stranger.
    peer.work.spend(nowSeconds, seconds);
    if (!peer.hasSession) this.#strangersWork.spend(nowSeconds, seconds);
  }

  /** What was dropped in the second that is over by now; undefined: nothing, or it is not over. */
  overflow(peer: Peer, nowSeconds: number): Readonly<Record<Excess, number>> | undefined {
    if (nowSeconds - peer.windowStartSeconds < WINDOW_SECONDS) return undefined;
    const { dropped } = peer;
    peer.windowStartSeconds = nowSeconds;
    peer.frames = 0;
    if (dropped.frames + dropped.work === 0) return undefined;
    peer.dropped = { frames: 0, work: 0 };
    return dropped;
  }

  #remember(peer: Peer): void {
    // Insertion order is order of last contact, so that the first entry is the one to forget.
    this.#strangers.delete(peer.name);
    this.#strangers.set(peer.name, peer);
    dropOldest(this.#strangers, STRANGERS_MAX);
  }
}

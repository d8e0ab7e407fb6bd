/**
 * Places for connections of an HTTP server, so that those who hold one and send nothing cost nobody
 * else an answer.
 *
 * A connection is *waiting* until the head of a request is there, and again between two requests;
 * else it is *busy*. Where all places are taken, a new connection gets that of the one that has
 * waited longest, or, where none waits, been busy longest: who asks and reads is done in
 * milliseconds, and so never the oldest. Of several addresses the one with most connections gives
 * way, so that a crowd from one doesn't push out a probe from another.
 */

import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";

export interface ConnectionLimits {
  readonly connectionsMax: number;
  /** Until the head of the first request is there, the TLS hand-shake included. */
  readonly headMs: number;
}

interface Place {
  readonly socket: Socket;
  readonly address: string;
  /** Requests under way: one, or more where a client doesn't wait for answers. */
  busy: number;
  timer: NodeJS.Timeout | undefined;
}

/** Guards a server that doesn't listen yet. Its `closeAllConnections` ends all of them. */
export function guardConnections(server: Server, limits: ConnectionLimits): void {
  new Places(server, limits);
}

class Places {
  readonly #limits: ConnectionLimits;
  /** In order of their last change of state, so that the first are the oldest. */
  readonly #places = new Map<string | Socket, Place>();

  constructor(server: Server, limits: ConnectionLimits) {
    this.#limits = limits;
    server.on("connection", (socket: Socket) => this.#enter(socket));
    server.prependListener("request", (request: IncomingMessage, response: ServerResponse) => {
      this.#work(keyOf(request.socket), response);
    });
    const closeKnown = server.closeAllConnections.bind(server);
    server.closeAllConnections = () => {
      closeKnown();
      // Of a TLS hand-shake that is not over Node's own list doesn't know.
      for (const { socket } of this.#places.values()) socket.destroy();
    };
  }

  #enter(socket: Socket): void {
    const key = keyOf(socket);
    if (this.#places.size >= this.#limits.connectionsMax) this.#makeRoom();
    const place: Place = {
      socket,
      address: socket.remoteAddress ?? "",
      busy: 0,
      timer: setTimeout(() => socket.destroy(), this.#limits.headMs).unref(),
    };
    this.#places.set(key, place);
    socket.once("close", () => {
      clearTimeout(place.timer);
      if (this.#places.get(key) === place) this.#places.delete(key);
    });
  }

  #work(key: string | Socket, response: ServerResponse): void {
    const place = this.#places.get(key);
    if (place === undefined) return;
    clearTimeout(place.timer);
    place.busy += 1;
    this.#touch(key, place);
    response.once("close", () => {
      place.busy -= 1;
      if (this.#places.get(key) === place) this.#touch(key, place);
    });
  }

  #touch(key: string | Socket, place: Place): void {
    this.#places.delete(key);
    this.#places.set(key, place);
  }

  #makeRoom(): void {
    const counts = new Map<string, number>();
    const candidates = [...this.#places].filter(([, { busy }]) => busy === 0);
    const from = candidates.length > 0 ? candidates : [...this.#places];
    for (const [, { address }] of from) counts.set(address, (counts.get(address) ?? 0) + 1);
    const most = Math.max(...counts.values());
    const [key, place] = from.find(([, { address }]) => counts.get(address) === most) ?? [];
    if (key === undefined || place === undefined) return;
    this.#places.delete(key);
    place.socket.destroy();
  }
}

/**
 * The socket under TLS and the one that requests come with are two objects of one connection, which
 * its ends tell apart from all others; a Unix socket has no such ends, and no TLS.
 */
function keyOf(socket: Socket): string | Socket {
  const { remoteAddress, remotePort, localPort } = socket;
  return remotePort === undefined ? socket : `${remoteAddress} ${remotePort} ${localPort}`;
}

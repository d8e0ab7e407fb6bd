/** A TCP proxy that delays, swallows and cuts, when it is told to. */

import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

export type ProxyMode = "sound" | "delay" | "swallow";

export class FaultProxy implements AsyncDisposable {
  mode: ProxyMode = "sound";
  delayMs = 0;
  readonly #server: Server;
  readonly #target: number;
  readonly #sockets = new Set<Socket>();

  constructor(targetPort: number) {
    this.#target = targetPort;
    this.#server = createServer((client) => this.#serve(client));
  }

  /** @returns its port */
  async listen(): Promise<number> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Ends all connections at once, as a network does that loses its state. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
  }

  #serve(client: Socket): void {
    const upstream = connect(this.#target, "127.0.0.1");
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      this.#sockets.add(from);
      from.setNoDelay(true);
      from.on("data", (bytes) => this.#pass(to, bytes));
      from.on("error", () => undefined);
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  }

  #pass(to: Socket, bytes: Buffer): void {
    if (this.mode === "swallow") {
      // Bytes that are gone break the stream for good: it is cut once the fault is over.
      return;
    }
    if (this.mode === "delay") setTimeout(() => to.writable && to.write(bytes), this.delayMs);
    else if (to.writable) to.write(bytes);
  }
}

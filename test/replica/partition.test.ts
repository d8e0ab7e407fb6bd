/** Two replicas that can't see each other for a while: both lead, and one of them gives way. */

import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { freePort } from "../../src/bench/engine-command.ts";
import { createStandby, type Standby } from "../../src/replica/standby.ts";
import { PythonEngine } from "../e2e/python-engine.ts";

/** A network between two replicas that can be cut, and mended. */
class Link {
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  #isCut = false;

  private constructor(port: number) {
    this.#server = createServer((near) => {
      if (this.#isCut) {
        near.destroy();
        return;
      }
      const far = connect(port, "127.0.0.1");
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on("error", () => undefined).on("close", () => this.#sockets.delete(socket));
      }
      near.pipe(far).pipe(near);
    });
  }

  static async to(port: number): Promise<Link> {
    const link = new Link(port);
    link.#server.listen(0, "127.0.0.1");
    await once(link.#server, "listening");
    onTestFinished(() => {
      link.cut();
      link.#server.close();
    });
    return link;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#isCut = false;
  }
}

class Watched {
  readonly standby: Standby;
  readonly #waiters = new Set<() => void>();

  constructor(endpoint: number, http: number, peer: string, place: number) {
    this.standby = createStandby({
      peers: [peer],
      controller: { mode: "idle", endpoint: `tcp://127.0.0.1:${endpoint}`, plan: false },
      http: { host: "127.0.0.1", port: http },
      place,
      // Long enough for an answer of this busy process to itself.
      goneSeconds: 3,
      pollMs: 50,
      onChange: () => this.#wake(),
      // The peer's address may not be free yet; it is tried again.
      onProblem: () => undefined,
    });
    // A leader's engines come and go without a change of who leads.
    const timer = setInterval(() => this.#wake(), 50);
    onTestFinished(async () => {
      clearInterval(timer);
      await this.standby.close();
    });
  }

  get leads(): boolean {
    return this.standby.controller !== undefined;
  }

  /** Names of the engines that its own controller has. */
  get owned(): string[] {
    const engines = this.standby.controller?.engines() ?? [];
    return engines.filter(({ connected }) => connected).map(({ engine }) => engine);
  }

  async until(matches: () => boolean): Promise<void> {
    while (!matches()) await new Promise<void>((resolve) => this.#waiters.add(resolve));
  }

  #wake(): void {
    for (const wake of this.#waiters) wake();
    this.#waiters.clear();
  }
}

test("after a partition the later start wins, and no engine was ever without a controller", async () => {
  const [endpointA, endpointB, httpA, httpB] = await Promise.all([
    freePort(),
    freePort(),
    freePort(),
    freePort(),
  ]);
  const [toA, toB] = await Promise.all([Link.to(httpA), Link.to(httpB)]);
  const a = new Watched(endpointA, httpA, toB.url, 0);
  await a.until(() => a.leads);
  const b = new Watched(endpointB, httpB, toA.url, 1);
  await b.until(() => b.standby.following !== undefined);
  const endpoints = `tcp://127.0.0.1:${endpointA},tcp://127.0.0.1:${endpointB}`;
  const engine = new PythonEngine(endpoints, ["--engine", "engine-0"]);
  await a.until(() => a.owned.includes("engine-0"));
  await b.until(() => b.standby.engines().some(({ connected }) => connected));

  toA.cut();
  toB.cut();
  // Neither can know better: both lead, and the engine stays with the one that it has.
  await b.until(() => b.leads);
  expect(a.leads).toBe(true);
  expect(a.owned).toEqual(["engine-0"]);
  expect(b.owned).toEqual([]);
  const [mine, theirs] = [a.standby.controller?.incarnation, b.standby.controller?.incarnation];
  expect(theirs).toBeGreaterThan(mine ?? Number.NaN);

  toA.mend();
  toB.mend();
  await a.until(() => !a.leads && a.standby.following === `${toB.url}/`);
  await b.until(() => b.owned.includes("engine-0"));
  expect(b.leads).toBe(true);
  // Who gave way sees the engine through the one that leads.
  await a.until(() => a.standby.engines().some(({ connected }) => connected));
  await engine.end();
});

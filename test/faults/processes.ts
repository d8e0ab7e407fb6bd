/** A controller and an engine as processes of a simulation: started, stopped, killed. */

import { type Controller, createControllerOn } from "../../src/controller/controller.ts";
import type { ControllerOptions } from "../../src/controller/options.ts";
import type { Profile } from "../../src/profile/profile.ts";
import { LiveEngine, type LiveEvent } from "../../src/sim/live/live.ts";
import type { FromEngine, Mode, Orders } from "../../src/wire/protocol.ts";
import { set, tinyProfile } from "../sim/helpers.ts";
import { ProcessClock } from "./clock.ts";
import type { SimDisk } from "./disk.ts";
import { type Network, SimRouter, SimWire } from "./network.ts";

const MIB = 2 ** 20;
const NONE: Orders = {};

/** An engine that starts in seconds, on a GPU that may be too small for all of its graphs. */
export function profileOf(freeMib: number, sizes: readonly number[], peakMib = 0): Profile {
  return tinyProfile((document) => {
    set(document, "memory.totalBytes", 100_000 * MIB);
    set(document, "memory.freeBytes", freeMib * MIB);
    set(document, "memory.activationPeakBytes", peakMib * MIB);
    // So that a forecast comes near to what the graphs take.
    set(document, "engine.layers", 300);
    const rows = (kind: string, mib: number) =>
      sizes.toReversed().map((tokens) => [kind, tokens, 50, 50, 200, mib * MIB]);
    set(document, "captures.rows", [...rows("PIECEWISE", 40), ...rows("FULL", 20)]);
    const largest = Math.max(...sizes);
    set(document, "limits.maxRequests", largest);
    set(document, "limits.maxBatchedTokens", 2 * largest);
    set(document, "limits.kvCacheTokens", 8192);
    for (const kind of ["full", "piecewise", "ungraphed"]) {
      const slow = kind === "ungraphed" ? 0.4 : 0.1;
      set(
        document,
        `steps.${kind}`,
        sizes.map((tokens) => [tokens, slow + tokens / 100]),
      );
    }
    set(document, "steps.secondsPerTokenBeyond", 0.01);
    set(document, "startupSeconds", 2);
  });
}

export class ControllerProcess {
  readonly clock: ProcessClock;
  readonly controller: Controller;
  router: SimRouter | undefined;

  constructor(network: Network, disk: SimDisk, options: ControllerOptions) {
    this.clock = new ProcessClock(network.timeline);
    this.controller = createControllerOn(
      {
        clock: this.clock,
        files: disk,
        watchLoad: () => () => 0,
        openRouter: async (asked) => {
          this.router = new SimRouter(network, this.clock, asked);
          return this.router;
        },
      },
      { endpoint: "tcp://127.0.0.1:1", memory: { gpu: false, marginBytes: MIB }, ...options },
    );
    void this.controller.start();
  }

  get alive(): boolean {
    return this.clock.alive;
  }

  goOn(): void {
    this.clock.goOn();
  }

  /** As by SIGKILL, or with its host, which then tells nobody. */
  kill(told: boolean): void {
    this.clock.kill();
    this.router?.die(told);
  }

  /** What was ordered and reaches an engine that listens, even if the controller ends now. */
  lastWords(engine: EngineProcess): Orders | undefined {
    if (engine.clock.stopped || !engine.isWith(this)) return undefined;
    return this.router?.ordersUnderWay(engine.session);
  }

  /** As by SIGTERM. */
  async end(): Promise<void> {
    await this.controller.close();
    this.clock.kill();
  }
}

export interface EngineOptions {
  readonly name: string;
  readonly profile: Profile;
  readonly mode: Mode;
  /** Unique to this process. */
  readonly session: string;
  /** It speaks no version of the protocol that the controller does. */
  readonly foreign?: boolean;
  readonly onEvent: (engine: EngineProcess, event: LiveEvent) => void;
}

export class EngineProcess {
  readonly clock: ProcessClock;
  readonly engine: LiveEngine;
  readonly name: string;
  readonly session: string;
  readonly #network: Network;
  #wire: SimWire | undefined;
  #ordersSeen: Orders | undefined;
  /** Accepted, and not yet answered. */
  requestsOpen = 0;
  readyAtSeconds: number | undefined;
  /** Since it was told to capture no more. */
  frozenAtSeconds: number | undefined;
  /** What it captured after ready and has not dropped. */
  readonly held = new Set<string>();

  constructor(network: Network, options: EngineOptions) {
    const { name, profile, mode, session, foreign = false, onEvent } = options;
    this.name = name;
    this.session = session;
    this.#network = network;
    this.clock = new ProcessClock(network.timeline);
    this.engine = new LiveEngine({
      profile,
      mode,
      session,
      engine: name,
      clock: this.clock,
      wire: (events) => {
        this.#wire = new SimWire(network, this.clock, { name, peer: session, foreign }, events);
        return this.#wire;
      },
      onEvent: (event) => {
        if (event.type === "ready") this.readyAtSeconds = network.timeline.nowSeconds;
        if (this.clock.alive) onEvent(this, event);
      },
    });
    this.engine.start();
  }

  get alive(): boolean {
    return this.clock.alive;
  }

  get orders(): Orders {
    return this.engine.orders ?? NONE;
  }

  /** Looks at what it was told; call after everything that happens. */
  look(): void {
    const { orders } = this;
    if (orders !== this.#ordersSeen) {
      this.#ordersSeen = orders;
      const now = this.#network.timeline.nowSeconds;
      this.frozenAtSeconds = orders.frozen === undefined ? undefined : now;
    }
    for (const graph of this.held)
      if (!this.engine.model.captured.has(graph)) this.held.delete(graph);
  }

  /** Whether it is welcome at this controller. */
  isWith(controller: ControllerProcess | undefined): boolean {
    if (controller === undefined || !this.engine.connected) return false;
    const connection = controller.router?.connections.get(this.session);
    return connection?.open === true;
  }

  request(promptTokens: number, outputTokens: number): void {
    const end = this.engine.submit(promptTokens, outputTokens, (left) => {
      if (left === 0) this.requestsOpen--;
    });
    if (end !== undefined) this.requestsOpen++;
  }

  goOn(): void {
    // A capture that was under way goes on as well.
    if (this.frozenAtSeconds !== undefined)
      this.frozenAtSeconds = this.#network.timeline.nowSeconds;
    this.clock.goOn();
  }

  tell(message: FromEngine): void {
    void this.#wire?.send(message);
  }

  kill(told: boolean): void {
    const wire = this.#wire;
    this.clock.kill();
    const router = this.#network.router;
    const connection = router?.connections.get(this.session);
    wire?.die();
    // Else the controller finds out by silence, or by sending.
    if (told && connection !== undefined) connection.open = false;
  }

  async end(): Promise<void> {
    await this.engine.close();
    this.clock.kill();
  }
}

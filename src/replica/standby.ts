/**
 * One controller among several gateway replicas: the first that finds none opens its own, the
 * others look at that one, and when it is gone the next takes over.
 *
 *   following ── no peer leads for `goneSeconds` ──▶ leading
 *       ▲                                              │
 *       ╰──────── a peer leads, and started later ─────╯
 *
 * Two may lead for a moment, as after a partition: then the later start wins, here as in the
 * engines, which never go back to an older one. Of equal ones one starts anew, so as to be later.
 */

import type { Server } from "node:http";
import { callListener } from "../base/call-listener.ts";
import {
  callback,
  checkOption,
  checkOptions,
  type OptionRules,
  rule,
  textRule,
} from "../base/check-options.ts";
import { codeOf, LazygraphError, OptionError } from "../base/errors.ts";
import { listenServer } from "../base/listen-error.ts";
import { number, object, whole } from "../base/schema.ts";
import type { Announcement } from "../controller/call-options.ts";
import { type Controller, createController } from "../controller/controller.ts";
import { type ControllerOptions, resolveOptions } from "../controller/options.ts";
import { endOfWait, type WaitOptions } from "../controller/waiters.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { PROCESS } from "../http/probes.ts";
import { checkHttpOptions, createHttpServer, type HttpOptions } from "../http/server.ts";
import { type ControllerClient, connectController } from "./client.ts";
import { baseUrl, call } from "./http-calls.ts";
import { Problems } from "./problems.ts";
import type { ControllerView } from "./view.ts";

export interface StandbyOptions {
  /** HTTP sides of the other replicas' controllers, such as `http://gateway-0:7480`; 1 to 16. */
  readonly peers: readonly string[];
  /**
   * Of the controller that this replica opens; `endpoint` stands in the engines' list. Its `signal`
   * closes the standby.
   */
  readonly controller: ControllerOptions;
  /**
   * Where its HTTP side listens while it leads, so that peers find it; a token in it is also the
   * one that this replica sends to the peer that it follows.
   */
  readonly http: { readonly host: string; readonly port: number } & HttpOptions;
  /**
   * This replica's place, 0 to 15: where several find no controller at once, a place more waits
   * `goneSeconds` longer.
   * @default 0
   */
  readonly place?: number;
  /** Seconds without a peer that leads until this replica does, 0.1 to 3600. @default 2 */
  readonly goneSeconds?: number;
  /** Milliseconds between two looks at the peers, 20 to 60,000. @default 500 */
  readonly pollMs?: number;
  /** Called whenever engines may have changed, and when this replica leads or follows anew. */
  readonly onChange?: () => void;
  /**
   * Called when its controller can't be opened, once a reason while it is tried again, when that
   * one's HTTP side can't take a connection, and when the peer that it follows refuses it.
   * @default a process warning
   */
  readonly onProblem?: (error: unknown) => void;
}

export interface Standby extends ControllerView, AsyncDisposable {
  /** Its own controller while it leads. */
  readonly controller: Controller | undefined;
  /** URL of the peer that it follows. */
  readonly following: string | undefined;
}

const PEERS_MAX = 16;
const GONE_SECONDS = 2;
const POLL_MS = 500;
const PAUSE_MS_MIN = 5;
const RULES: OptionRules<StandbyOptions> = {
  peers: rule(`1 to ${PEERS_MAX} URLs such as http://gateway-0:7480`, arePeers),
  controller: object,
  http: object,
  place: whole(0, 15),
  goneSeconds: number(0.1, 3600),
  pollMs: number(20, 60_000),
  onChange: callback,
  onProblem: callback,
};

/**
 * Starts to look for a controller at once; leads where there is none.
 *
 * @throws OptionError for options that are missing, unknown or out of range
 */
export function createStandby(options: StandbyOptions): Standby {
  checkOptions(options, RULES);
  for (const name of ["peers", "controller", "http"] as const) {
    if (options[name] !== undefined) continue;
    throw new OptionError(name, `Expected ${name} to be given, got nothing.`);
  }
  // A mistake in what only a takeover uses would be found when it is needed.
  resolveOptions(options.controller);
  const { host, port, ...served } = options.http;
  // Without one the system listens at every address.
  checkOption("http.host", host, textRule("a host name or address"));
  checkOption("http.port", port, whole(0, 65_535));
  checkHttpOptions(served);
  return new Replica(options);
}

/** A peer that answered as the one that leads. */
interface Leader {
  readonly peer: string;
  readonly incarnation: number;
  readonly process: string;
}

class Replica implements Standby {
  readonly #options: StandbyOptions;
  readonly #closing = new AbortController();
  #client: ControllerClient | undefined;
  #own: { readonly controller: Controller; readonly server: Server } | undefined;
  #seenAtMs: number;
  readonly #waiting = new Set<() => void>();
  readonly #problems = new Problems((error) => this.#problem(error));
  readonly #running: Promise<void>;
  readonly #onAbort = (): void => void this.close();
  #wake: () => void = () => undefined;

  constructor(options: StandbyOptions) {
    this.#options = options;
    const { place = 0, goneSeconds = GONE_SECONDS } = options;
    // The first place needs no patience: nobody is expected to have been there before.
    this.#seenAtMs = performance.now() + (place - 1) * goneSeconds * 1000;
    this.#running = this.#run();
    // A replica whose controller may not be open any more must not lead, nor try to.
    const { signal } = options.controller;
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (signal?.aborted === true) this.#onAbort();
  }

  get controller(): Controller | undefined {
    return this.#own?.controller;
  }

  get following(): string | undefined {
    return this.#client?.url;
  }

  get #view(): ControllerView | undefined {
    return this.#own?.controller ?? this.#client;
  }

  async #run(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      await this.#turn().then(
        () => this.#problems.went("look"),
        (error: unknown) => this.#problems.failed("look", error),
      );
      if (this.#closing.signal.aborted) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, this.#pauseMs());
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Until the next look; not beyond the moment at which a peer that is silent counts as gone. */
  #pauseMs(): number {
    const { pollMs = POLL_MS, goneSeconds = GONE_SECONDS } = this.#options;
    if (this.#own !== undefined) return pollMs;
    const leftMs = this.#seenAtMs + goneSeconds * 1000 - performance.now();
    // Where it is past already, another look has to find a peer or an address that is free.
    return leftMs <= 0 ? pollMs : Math.min(pollMs, Math.max(leftMs, PAUSE_MS_MIN));
  }

  async #turn(): Promise<void> {
    const leader = await this.#leader();
    if (this.#closing.signal.aborted) return;
    if (this.#own?.controller.listening === false) await this.#loseOwn();
    const mine = this.#own?.controller.incarnation ?? Number.NEGATIVE_INFINITY;
    if (leader !== undefined) {
      this.#seenAtMs = performance.now();
      if (leader.incarnation > mine) await this.#follow(leader.peer);
      else if (leader.incarnation === mine && leader.process > PROCESS) {
        // Engines tell two controllers' commands apart by nothing else.
        await this.#stepDown();
        await this.#lead();
      }
      return;
    }
    const { goneSeconds = GONE_SECONDS } = this.#options;
    const isGone = performance.now() - this.#seenAtMs >= goneSeconds * 1000;
    if (this.#own === undefined && isGone) await this.#lead();
  }

  /** Among the peers that lead the one that started last. */
  async #leader(): Promise<Leader | undefined> {
    const { peers, goneSeconds = GONE_SECONDS } = this.#options;
    const how = { timeoutMs: goneSeconds * 500, signal: this.#closing.signal };
    const answers = await Promise.all(
      peers.map(async (peer): Promise<Leader | undefined> => {
        const base = baseUrl(peer);
        const answer = base && (await call(base, "healthz", how).catch(() => undefined));
        // Above all others: who doesn't tell it won't start anew.
        const { incarnation, process = "~" } = (answer ?? {}) as Partial<Leader>;
        return typeof incarnation === "number" ? { peer, incarnation, process } : undefined;
      }),
    );
    const leaders = answers.filter((answer) => answer !== undefined);
    return leaders.sort(
      (one, other) => other.incarnation - one.incarnation || (other.process > one.process ? 1 : -1),
    )[0];
  }

  async #follow(peer: string): Promise<void> {
    await this.#stepDown();
    if (this.#client?.url === baseUrl(peer)?.href) return;
    await this.#client?.close();
    const { onChange, pollMs, http } = this.#options;
    this.#client = connectController(peer, {
      ...(http.token === undefined ? {} : { token: http.token }),
      ...(onChange === undefined ? {} : { onChange }),
      ...(pollMs === undefined ? {} : { pollMs: Math.max(50, pollMs) }),
      // A peer that is gone is what a standby is there for.
      onProblem: (error) => {
        if (codeOf(error) !== "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE") this.#problem(error);
      },
    });
    this.#change();
  }

  async #lead(): Promise<void> {
    const { controller: options, http } = this.#options;
    const { host, port, ...served } = http;
    const controller = createController(options);
    const server = createHttpServer(controller, served);
    try {
      await controller.start();
      // Engines come at once, and who hears of one asks for it.
      this.#own = { controller, server };
      await listenServer(server, "http", host, port);
    } catch (error) {
      this.#own = undefined;
      server.close();
      await controller.close();
      throw error;
    }
    // One connection's, as without memory or files to open.
    server.on("error", (error) => this.#problem(error));
    await this.#client?.close();
    this.#client = undefined;
    this.#change();
    // Closed meanwhile: then nobody else will close what has just been opened.
    if (this.#closing.signal.aborted) await this.#stepDown();
  }

  /** Closed under the standby, or by itself because its socket failed: another one may lead now. */
  async #loseOwn(): Promise<void> {
    await this.#stepDown();
    this.#seenAtMs = performance.now();
    this.#change();
  }

  async #stepDown(): Promise<void> {
    const own = this.#own;
    this.#own = undefined;
    if (own === undefined) return;
    own.server.close();
    own.server.closeAllConnections();
    await own.controller.close();
  }

  #problem(error: unknown): void {
    const { onProblem } = this.#options;
    if (onProblem !== undefined) callListener("onProblem", onProblem, error);
    else process.emitWarning(error instanceof Error ? error : String(error));
  }

  engines(): readonly EngineSnapshot[] {
    return this.#view?.engines() ?? [];
  }

  announce(engine: string, announcement: Announcement): void {
    const view = this.#view;
    if (view === undefined) {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_ENGINE_UNKNOWN",
        "Expected an engine that joined, but no controller is there yet: wait until one leads.",
      );
    }
    view.announce(engine, announcement);
  }

  /** A wait outlasts the controller that it began with. */
  async waitForEngine(options: WaitOptions = {}): Promise<EngineSnapshot> {
    for (;;) {
      if (options.signal?.aborted === true) throw endOfWait(options);
      if (this.#closing.signal.aborted) throw closedError();
      const view = this.#view;
      try {
        if (view !== undefined) return await view.waitForEngine(options);
      } catch (error) {
        // Closed under the wait, by a takeover: the next one is asked.
        const isOver = error instanceof LazygraphError && error.code === "ERR_LAZYGRAPH_CLOSED";
        if (!isOver || this.#closing.signal.aborted) throw error;
      }
      // Where another one is there already, its change has been told before anybody waited for it.
      if (this.#view === view) await this.#changed(options.signal);
    }
  }

  /** Resolves when another controller is asked from now on, or nobody has to wait any more. */
  #changed(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const settle = (): void => {
        this.#waiting.delete(settle);
        signal?.removeEventListener("abort", settle);
        resolve();
      };
      this.#waiting.add(settle);
      signal?.addEventListener("abort", settle, { once: true });
    });
  }

  #change(): void {
    for (const settle of this.#waiting) settle();
    callListener("onChange", this.#options.onChange);
  }

  async close(): Promise<void> {
    this.#options.controller.signal?.removeEventListener("abort", this.#onAbort);
    this.#closing.abort(closedError());
    this.#wake();
    for (const settle of this.#waiting) settle();
    await this.#running;
    await this.#client?.close();
    await this.#stepDown();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function arePeers(value: unknown): boolean {
  return (
    Array.isArray(value) &&
    value.length >= 1 &&
    value.length <= PEERS_MAX &&
    value.every((peer) => baseUrl(peer) !== undefined)
  );
}

function closedError(): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_CLOSED",
    "Expected an open standby, but it is closed: create another one.",
  );
}

/**
 * The engines: which are ready, what each is doing, and who gets the next request.
 *
 * An engine is ready when its HTTP side says so, whatever the controller knows of it: one without
 * the plugin, or without a connection to us, serves all the same. Only one that sleeps doesn't,
 * which its HTTP side doesn't say.
 */

import { type ControllerView, onEvent } from "lazygraph";
import type { ServerAddress } from "lazygraph/measure";
import { Engine } from "./engine.ts";
import { ailmentOf, notReadyText, phaseOf, sleepOf, unknownText } from "./health.ts";
import { type Choose, GraphSizes } from "./routing.ts";

const PROBE_MS = 200;
const PROBE_READY_MS = 2_000;
/** One announcement covers the arrivals of so many milliseconds. */
const ANNOUNCE_MS = 20;
/** Between two sentences about one engine's health: one that comes and goes must not fill a log. */
const SAY_MS = 5_000;
/** Health checks passed in a row, of an engine that the controller doesn't know, until that is said. */
const UNKNOWN_MAX = 3;
const NONE: ReadonlySet<Engine> = new Set();

export class Engines {
  readonly #controller: ControllerView;
  readonly #engines: readonly Engine[];
  readonly #choose: Choose;
  readonly #onReady: () => void;
  readonly #say: (sentence: string) => void;
  readonly #stops: readonly (() => void)[];
  readonly #timers = new Map<Engine, NodeJS.Timeout>();
  #turn = 0;
  #stale = true;
  #closed = false;

  /**
   * @param onReady called whenever an engine becomes ready
   * @param say is told of engines that can't be used, and why
   */
  constructor(
    servers: ReadonlyMap<string, ServerAddress>,
    controller: ControllerView,
    choose: Choose,
    onReady: () => void,
    say: (sentence: string) => void,
  ) {
    this.#say = say;
    this.#choose = choose;
    this.#engines = [...servers].map(([name, server]) => new Engine(name, server));
    this.#controller = controller;
    this.#onReady = onReady;
    const known = (name: string) => this.#engines.find((engine) => engine.name === name);
    const stale = (): void => this.changed();
    const askAgain = (name: string): void => {
      stale();
      const engine = known(name);
      if (engine !== undefined) void this.#probe(engine);
    };
    // A snapshot is taken only when something has changed since the last one.
    this.#stops = [
      onEvent("lazygraph:capture:start", stale),
      onEvent("lazygraph:capture:end", stale),
      onEvent("lazygraph:capture:deferred", stale),
      onEvent("lazygraph:capture:refused", stale),
      onEvent("lazygraph:capture:failed", stale),
      onEvent("lazygraph:engine:join", stale),
      onEvent("lazygraph:engine:ready", stale),
      onEvent("lazygraph:engine:settled", stale),
      onEvent("lazygraph:engine:lost", ({ engine }) => askAgain(engine)),
      onEvent("lazygraph:engine:asleep", ({ engine }) => askAgain(engine)),
    ];
    for (const engine of this.#engines) void this.#probe(engine);
  }

  /** Another process's controller knows something new; of this one's, events tell. */
  changed(): void {
    this.#stale = true;
  }

  get anyReady(): boolean {
    return this.#engines.some(({ ready }) => ready);
  }

  /** The best ready engine but those; undefined when there is none. */
  pick(except: ReadonlySet<Engine> = NONE): Engine | undefined {
    this.#refresh();
    const ready = this.#engines.filter((engine) => engine.ready && !except.has(engine));
    return this.#choose(ready, this.#turn);
  }

  /** Among engines that are equal the next one has its turn. */
  next(): void {
    this.#turn += 1;
  }

  /** Requests are on their way: keeps captures away from their arrival. */
  announce(engine: Engine, requests: number): void {
    const now = performance.now();
    if (engine.settled || now - engine.announcedAtMs < ANNOUNCE_MS) return;
    engine.announcedAtMs = now;
    this.tell(engine.name, ANNOUNCE_MS / 1000, requests);
  }

  /** Requests that wait: an engine that starts chooses by them what it captures first. */
  announceHeld(requests: number, only?: string): void {
    if (requests === 0) return;
    for (const { engine, phase } of this.#controller.engines()) {
      if (phase !== "serving" && engine === (only ?? engine)) this.tell(engine, 0, requests);
    }
  }

  tell(engine: string, inSeconds: number, requests: number): void {
    try {
      this.#controller.announce(engine, { inSeconds, requests });
    } catch {
      // Without a connection it captures by its own rules; a standby may not lead yet.
    }
  }

  /** It didn't answer: out of the choice until it is healthy again. */
  failed(engine: Engine): void {
    engine.ready = false;
    void this.#probe(engine);
  }

  /** For clients and probes: what each engine is doing. */
  describe(): Record<string, object> {
    const snapshots = this.#controller.engines();
    return Object.fromEntries(
      this.#engines.map(({ name, ready, ailment, inFlight }) => {
        const its = snapshots.find(({ engine }) => engine === name);
        const health = ailment === undefined ? {} : { health: ailment };
        return [name, { ready, ...health, inFlight, ...phaseOf(its) }];
      }),
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const stop of this.#stops) stop();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    await Promise.all(this.#engines.map(({ pool }) => pool.destroy()));
  }

  #refresh(): void {
    if (!this.#stale) return;
    this.#stale = false;
    for (const snapshot of this.#controller.engines()) {
      const engine = this.#engines.find(({ name }) => name === snapshot.engine);
      if (engine === undefined) continue;
      engine.capturing = snapshot.connected && snapshot.capturing !== undefined;
      engine.settled = snapshot.settled;
      engine.graphs = new GraphSizes(snapshot.graphs);
      if (engine.ready && sleepOf(snapshot) !== undefined) this.failed(engine);
    }
  }

  #tellHealth(engine: Engine, ailment: string | undefined): void {
    if (ailment === engine.ailment) return;
    engine.ailment = ailment;
    const now = performance.now();
    if (ailment === undefined || now - engine.saidAtMs < SAY_MS) return;
    engine.saidAtMs = now;
    this.#say(notReadyText(engine, ailment));
  }

  #tellUnknown(engine: Engine): void {
    const known = this.#controller.engines().map((its) => its.engine);
    engine.unknown = known.includes(engine.name) ? 0 : engine.unknown + 1;
    if (engine.unknown === UNKNOWN_MAX) this.#say(unknownText(engine.name, known));
  }

  async #probe(engine: Engine): Promise<void> {
    if (engine.probing !== "no") {
      engine.probing = "again";
      return;
    }
    let ailment: string | undefined;
    do {
      engine.probing = "yes";
      ailment = await ailmentOf(engine);
      ailment ??= sleepOf(this.#controller.engines().find((its) => its.engine === engine.name));
    } while (engine.probing === ("again" as Engine["probing"]));
    engine.probing = "no";
    if (this.#closed) return;
    const healthy = ailment === undefined;
    const became = healthy && !engine.ready;
    this.#tellHealth(engine, ailment);
    if (healthy) this.#tellUnknown(engine);
    engine.ready = healthy;
    clearTimeout(this.#timers.get(engine));
    const ms = healthy ? PROBE_READY_MS : PROBE_MS;
    this.#timers.set(engine, setTimeout(() => void this.#probe(engine), ms).unref());
    if (became) this.#onReady();
  }
}

/**
 * A controller's engines as Prometheus metrics in a prom-client registry.
 *
 * Gauges and counters are made from snapshots when they are read, so that an engine that has gone
 * disappears with its labels; captures are told by events as they end, and go into histograms.
 */

import type { Registry } from "prom-client";
import { checkOption, checkOptions, type OptionRules, withMethods } from "../base/check-options.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import type { ErrorCode } from "../base/errors.ts";
import type { GraphKind } from "../base/graph.ts";
import { number } from "../base/schema.ts";
import { type Controller, lookUp } from "../controller/controller.ts";
import { type EngineEventBase, onEvent } from "../engine/events.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { KINDS, type Outcome } from "./catalogue.ts";
import { Instruments, type Sample } from "./instruments.ts";
import { type CaptureCost, EngineLedger, type Observation } from "./ledger.ts";
import { awaySamples, samplesOf } from "./samples.ts";

/** Sessions whose graphs are remembered; then all are looked up again. */
const SESSIONS_MAX = 1024;
/** A capture that fails so ended with its engine. */
const WITH_ENGINE: ReadonlySet<string> = new Set<ErrorCode>([
  "ERR_LAZYGRAPH_ENGINE_LOST",
  "ERR_LAZYGRAPH_ENGINE_REPLACED",
]);
const OPTIONS: OptionRules<MetricsOptions> = {
  lostSeconds: number(0, 86_400),
  clock: withMethods("a clock", ["now"]),
};

export interface MetricsOptions {
  /**
   * Seconds for which an engine that was lost is still there with `lazygraph_engine_connected` 0,
   * for alerts; one that said goodbye disappears at once. 0 to 86,400.
   * @default 600
   */
  readonly lostSeconds?: number;
  /** @default the system's clock */
  readonly clock?: Clock;
}

/**
 * Adds this package's metrics to a registry: one line in a gateway.
 *
 * @returns a function that takes them out again
 * @throws OptionError when the registry has them already, or an option is wrong
 */
export function collectMetrics(
  controller: Pick<Controller, "engines">,
  registry: Registry,
  options: MetricsOptions = {},
): () => void {
  checkOption("controller", controller, withMethods("a controller", ["engines"]));
  const registries = withMethods("a prom-client registry", ["getSingleMetric", "registerMetric"]);
  checkOption("registry", registry, registries);
  checkOptions(options, OPTIONS);
  const { lostSeconds = 600, clock = systemClock } = options;
  const collector = new Collector(controller, registry, lostSeconds, clock);
  return () => collector.close();
}

class Collector {
  readonly #controller: Pick<Controller, "engines">;
  readonly #instruments: Instruments;
  readonly #lostSeconds: number;
  readonly #clock: Clock;
  readonly #ledgers = new Map<string, EngineLedger>();
  /** Kinds of graphs by session and id; of another controller's session none. */
  readonly #kinds = new Map<string, ReadonlyMap<string, GraphKind>>();
  readonly #stops: readonly (() => void)[];
  #fresh = false;

  constructor(
    controller: Pick<Controller, "engines">,
    registry: Registry,
    lostSeconds: number,
    clock: Clock,
  ) {
    this.#controller = controller;
    this.#lostSeconds = lostSeconds;
    this.#clock = clock;
    this.#instruments = new Instruments(registry, () => this.#refresh());
    this.#stops = [
      onEvent("lazygraph:capture:end", (event) => this.#ended(event, "captured", event)),
      onEvent("lazygraph:capture:deferred", (event) => this.#ended(event, "deferred")),
      onEvent("lazygraph:capture:refused", (event) => this.#ended(event, "refused")),
      onEvent("lazygraph:capture:failed", (event) => {
        this.#ended(event, WITH_ENGINE.has(event.code ?? "") ? "lost" : "failed");
      }),
    ];
  }

  close(): void {
    for (const stop of this.#stops) stop();
    this.#instruments.close();
  }

  /** Events are those of all controllers in the process: others' engines are left out. */
  #ended(
    event: EngineEventBase & { readonly graph: string },
    outcome: Outcome,
    cost?: CaptureCost,
  ): void {
    const kind = this.#kindOf(event);
    if (kind === undefined) return;
    const ledger = this.#ledger(event.engine);
    ledger.ended(kind, outcome);
    if (cost === undefined) return;
    this.#observe(event.engine, ledger.captured(event, { id: event.graph, kind }, cost));
  }

  /** A snapshot takes long: once for each session, and not for each capture. */
  #kindOf({
    engine,
    session,
    graph,
  }: EngineEventBase & { readonly graph: string }): GraphKind | undefined {
    const known = this.#kinds.get(session);
    if (known !== undefined && (known.size === 0 || known.has(graph))) return known.get(graph);
    const { found, names } = lookUp(this.#controller, engine);
    // Whoever leaves must be forgotten also where nobody scrapes.
    this.#forgetUnlisted(names);
    const graphs = found?.session === session ? found.graphs : [];
    const kinds = new Map(graphs.map(({ id, kind }) => [id, kind]));
    if (this.#kinds.size >= SESSIONS_MAX) this.#kinds.clear();
    this.#kinds.set(session, kinds);
    return kinds.get(graph);
  }

  #observe(engine: string, { kind, seconds, bytes, stallSeconds }: Observation): void {
    const labels = { engine, kind };
    const observe = this.#instruments.observe.bind(this.#instruments);
    if (seconds !== undefined) observe("lazygraph_capture_duration_seconds", labels, seconds);
    if (bytes !== undefined) observe("lazygraph_capture_size_bytes", labels, bytes);
    if (stallSeconds !== undefined) {
      observe("lazygraph_capture_stall_seconds", labels, stallSeconds);
    }
  }

  #ledger(engine: string): EngineLedger {
    const known = this.#ledgers.get(engine);
    if (known !== undefined) return known;
    const ledger = new EngineLedger();
    this.#ledgers.set(engine, ledger);
    return ledger;
  }

  /** A registry asks each metric in turn; one look at the engines serves all of one scrape. */
  #refresh(): void {
    if (this.#fresh) return;
    this.#fresh = true;
    queueMicrotask(() => {
      this.#fresh = false;
    });
    const samples: Sample[] = [];
    const present = new Set<string>();
    const engines = this.#controller.engines();
    for (const snapshot of engines) {
      const ledger = this.#ledger(snapshot.engine);
      if (this.#isGone(snapshot, ledger)) continue;
      present.add(snapshot.engine);
      for (const one of ledger.catchUp(snapshot)) this.#observe(snapshot.engine, one);
      samples.push(...(snapshot.connected ? samplesOf(snapshot, ledger) : awaySamples(snapshot)));
    }
    this.#forgetUnlisted(engines.map(({ engine }) => engine));
    // While it is listed, the ledger knows since when it is away.
    for (const engine of this.#ledgers.keys()) {
      if (!present.has(engine)) this.#forgetSeries(engine);
    }
    this.#instruments.replace(samples);
  }

  #forgetUnlisted(names: readonly string[]): void {
    const listed = new Set(names);
    for (const engine of this.#ledgers.keys()) {
      if (listed.has(engine)) continue;
      this.#forgetSeries(engine);
      this.#ledgers.delete(engine);
    }
  }

  #forgetSeries(engine: string): void {
    for (const kind of KINDS) this.#instruments.forget({ engine, kind });
  }

  #isGone({ connected, phase }: EngineSnapshot, ledger: EngineLedger): boolean {
    if (connected) {
      ledger.awaySinceSeconds = undefined;
      return false;
    }
    ledger.awaySinceSeconds ??= this.#clock.now();
    const seconds = this.#clock.now() - ledger.awaySinceSeconds;
    return phase === "stopping" || seconds >= this.#lostSeconds;
  }
}

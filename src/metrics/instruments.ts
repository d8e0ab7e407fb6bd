/** The metrics of the catalogue as prom-client's objects, in one registry. */

import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { OptionError } from "../base/errors.ts";
import { METRIC_NAMES, METRICS, type MetricDefinition, type MetricName } from "./catalogue.ts";

export type Labels = Readonly<Record<string, string>>;

/** One value of a gauge or counter; those of a scrape replace all that were there. */
export interface Sample {
  readonly name: MetricName;
  readonly labels: Labels;
  readonly value: number;
}

type Instrument = Gauge | Counter | Histogram;

export class Instruments {
  readonly #registry: Registry;
  readonly #instruments = new Map<MetricName, Instrument>();

  /**
   * @param refresh called before values are read, for every metric
   * @throws OptionError when the registry has metrics of another controller
   */
  constructor(registry: Registry, refresh: () => void) {
    this.#registry = registry;
    const taken = METRIC_NAMES.find((name) => registry.getSingleMetric(name) !== undefined);
    if (taken !== undefined) {
      throw new OptionError(
        "registry",
        `Expected a registry without this package's metrics, got one that has ${taken}: ` +
          "give each controller a registry of its own.",
      );
    }
    for (const name of METRIC_NAMES) {
      const instrument = create(name, METRICS[name], registry, refresh);
      this.#instruments.set(name, instrument);
    }
  }

  /** Replaces all values but those of histograms. */
  replace(samples: readonly Sample[]): void {
    for (const instrument of this.#instruments.values()) {
      if (!(instrument instanceof Histogram)) instrument.reset();
    }
    for (const { name, labels, value } of samples) {
      const instrument = this.#instruments.get(name);
      if (instrument instanceof Gauge) instrument.set(labels, value);
      else if (instrument instanceof Counter) instrument.inc(labels, value);
    }
  }

  observe(name: MetricName, labels: Labels, value: number): void {
    const instrument = this.#instruments.get(name);
    if (instrument instanceof Histogram) instrument.observe(labels, value);
  }

  /** Takes one label set out of all histograms. */
  forget(labels: Labels): void {
    for (const instrument of this.#instruments.values()) {
      if (instrument instanceof Histogram) instrument.remove(labels);
    }
  }

  close(): void {
    for (const [name, instrument] of this.#instruments) {
      // Called again it spares another's.
      if (this.#registry.getSingleMetric(name) !== instrument) continue;
      this.#registry.removeSingleMetric(name);
    }
  }
}

function create(
  name: MetricName,
  { type, help, labels, buckets }: MetricDefinition,
  registry: Registry,
  refresh: () => void,
): Instrument {
  const common = { name, help, labelNames: [...labels], registers: [registry], collect: refresh };
  if (type === "gauge") return new Gauge(common);
  if (type === "counter") return new Counter(common);
  return new Histogram({ ...common, buckets: [...(buckets ?? [])] });
}

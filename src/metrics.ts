/** Exports of `lazygraph/metrics`: engines as Prometheus metrics, in a prom-client registry. */

export { collectMetrics, type MetricsOptions } from "./metrics/collect.ts";

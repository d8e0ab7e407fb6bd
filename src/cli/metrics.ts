import { Registry } from "prom-client";
import type { Controller } from "../controller/controller.ts";
import type { MetricsSource } from "../http/route.ts";
import { collectMetrics } from "../metrics/collect.ts";

/** What `GET /metrics` of a command answers: a registry of the controller's own. */
export function metricsOf(controller: Controller): MetricsSource {
  const registry = new Registry();
  collectMetrics(controller, registry);
  return registry;
}

import type { Fingerprint } from "../../src/plan/fingerprint.ts";
import type { Plan, PlanGraph, PlanTraffic } from "../../src/plan/plan.ts";

export const FINGERPRINT: Fingerprint = {
  vllmVersion: "0.26.0",
  pluginVersion: "0.1.0",
  model: "fake/model",
  gpuName: "Fake GPU",
  tensorParallel: 1,
  pipelineParallel: 1,
  cudagraphMode: "FULL_AND_PIECEWISE",
  captureSizes: { FULL: [1, 2, 4, 8], PIECEWISE: [1, 2, 4, 8] },
};

export function graph(kind: "FULL" | "PIECEWISE", tokens: number, more = {}): PlanGraph {
  return {
    id: `${kind}:${tokens}`,
    kind,
    tokens,
    ...(kind === "FULL" ? { uniform: 1 } : {}),
    replays: 0,
    regret: 0,
    stepSeconds: 0.005,
    timed: 0,
    captureMs: 20,
    bytes: 1_000_000,
    ...more,
  };
}

export function traffic(tokens: number, requestSteps: number, more = {}): PlanTraffic {
  return {
    tokens,
    uniform: 1,
    requestSteps,
    steps: requestSteps / tokens,
    ungraphedSeconds: 0.01,
    ungraphedTimed: 10,
    ...more,
  };
}

export function planOf(more: Partial<Plan> = {}): Plan {
  const sizes = [8, 4, 2, 1];
  return {
    fingerprint: FINGERPRINT,
    createdAt: "2026-11-21T12:00:00.000Z",
    updatedAt: "2026-11-21T13:00:00.000Z",
    learnedBy: "a test",
    starts: 1,
    traffic: [traffic(1, 1000), traffic(8, 4000)],
    graphs: [
      ...sizes.map((tokens) => graph("PIECEWISE", tokens)),
      ...sizes.map((tokens) => graph("FULL", tokens)),
    ],
    first: ["FULL:1"],
    ...more,
  };
}

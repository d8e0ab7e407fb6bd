import { expect, test } from "vitest";
import { type FleetRow, fleetFindings, trustSocketFindings } from "../../bench/lib/claims-trust.ts";

const ORIGIN = { source: "x.json", command: "x" };
const TIMES = { count: 1, p50Ms: 1, p99Ms: 40, maxMs: 60 };

function phase(p99Ms: number, missedHeartbeats: number, settled: number): FleetRow["fill"] {
  const decisions = { ...TIMES, p99Ms };
  return {
    controller: {
      decisions,
      byCommand: { capture: TIMES, dispatch: decisions, start: TIMES, freeze: TIMES },
      taken: TIMES,
      frames: 1,
      rssBytes: 1,
      busySeconds: 6,
      seconds: 30,
      busyByThread: {},
      engines: 1,
      settled: 1,
      lost: 0,
      problems: {},
    },
    engines: {
      connected: 1,
      welcomed: 1,
      ready: 1,
      settled,
      captures: 1,
      missedHeartbeats,
      longestSilenceMs: 1,
      resyncs: 0,
      refusals: 0,
      allSettledSeconds: 1,
      settleP50Seconds: 1,
      settleMaxSeconds: 1,
      answerP50Ms: 1,
      answerP99Ms: 1,
      telemetry: 1,
      busyShare: 0,
    },
  };
}

function row(build: string, engines: number, busySeconds = 3): FleetRow {
  return {
    build,
    engines,
    plans: false,
    arrivalSeconds: 60,
    serveSeconds: 30,
    emptyBytes: 0,
    bytesPerEngine: 2 ** 19,
    fill: phase(70, 2, engines - 1),
    serve: phase(20, 0, engines),
    core: { busySeconds, seconds: 30, frames: 1, busyByThread: {} },
  };
}

test("a fleet's claims are of this build, and of the numbers of engines that something is said of", () => {
  const small = [6, 3, 1].map((busySeconds) => row("this", 256, busySeconds));
  const rows = [row("before", 1000), ...small, row("this", 1000), row("this", 2000)];
  const found = fleetFindings({ rows }, ORIGIN);
  expect(Object.fromEntries(found.map(({ id, value, limit }) => [id, [value, limit]]))).toEqual({
    "trust.fleet.256.serve.core": [0.1, 0.15],
    "trust.fleet.1000.fill.decision-p99": [70, 50],
    "trust.fleet.1000.fill.missed-heartbeats": [2, 0],
    "trust.fleet.1000.serve.decision-p99": [20, 50],
    "trust.fleet.1000.serve.missed-heartbeats": [0, 0],
    "trust.fleet.1000.unfilled": [1, 0],
    "trust.fleet.1000.memory": [0.5, 1],
  });
});

test("what an attack on the socket does is judged by this build's run", () => {
  const run = {
    seconds: 20,
    lost: 0,
    missedHeartbeats: 0,
    longestSilenceMs: 1000,
    probes: 300,
    answered: 299,
    healthzP50Ms: 1,
    healthzP99Ms: null,
    sigtermMs: 50,
  };
  const rows = [
    { ...run, build: "before" as const, lost: 9 },
    { ...run, build: "this" as const },
  ];
  const found = trustSocketFindings({ rows }, ORIGIN);
  expect(Object.fromEntries(found.map(({ id, value }) => [id, value]))).toEqual({
    "trust.socket.honest-engine-lost": 0,
    "trust.socket.missed-heartbeats": 0,
    "trust.socket.unanswered": 1,
    "trust.socket.healthz-p99": Number.NaN,
    "trust.socket.sigterm": 50,
  });
  expect(trustSocketFindings({ rows: [] }, ORIGIN)).toEqual([]);
});

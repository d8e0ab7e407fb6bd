/** What a controller's HTTP side tells of the one engine under it. */

import { setTimeout as sleep } from "node:timers/promises";
import type { Mode } from "../../../src/wire/protocol.ts";

/** The part of `GET /v1/engines` that benchmarks read. */
export interface EngineJson {
  readonly graphs: readonly {
    readonly id?: string;
    readonly status: string;
    readonly ms?: number;
    readonly bytes?: number;
  }[];
  readonly settled?: boolean;
  readonly unsupported?: string;
  readonly readyToSettledSeconds?: number;
  readonly longestCaptureMs?: number;
  readonly longestStallMs?: number;
  readonly takenBytes?: number;
  readonly forecast?: { readonly bytes: number; readonly errorBytes: number };
}

const POLL_MS = 50;
const ANSWER_MS_MAX = 10_000;

/** @throws Error when no engine has joined */
export async function engineSnapshot(httpPort: number): Promise<EngineJson> {
  const signal = AbortSignal.timeout(ANSWER_MS_MAX);
  const response = await fetch(`http://127.0.0.1:${httpPort}/v1/engines`, { signal });
  const body = (await response.json()) as { engines: EngineJson[] };
  const engine = body.engines[0];
  if (engine === undefined) throw new Error("Expected an engine at its controller, none joined.");
  return engine;
}

/**
 * Waits for the end of the fill. Idle mode fills while nothing runs; the others have nothing to
 * wait for, and lazy mode never runs out of wishes.
 *
 * @throws Error when it takes longer than `secondsMax`
 */
export async function settledEngine(
  httpPort: number,
  mode: Mode,
  secondsMax: number,
): Promise<EngineJson> {
  const deadline = performance.now() + secondsMax * 1000;
  let engine = await engineSnapshot(httpPort);
  while (mode !== "lazy" && engine.readyToSettledSeconds === undefined) {
    if (engine.unsupported !== undefined) return engine;
    if (performance.now() > deadline) {
      throw new Error(`Expected ${mode} mode settled within ${secondsMax} s, it was not.`);
    }
    await sleep(POLL_MS);
    engine = await engineSnapshot(httpPort);
  }
  return engine;
}

export function graphsCaptured(engine: EngineJson): number {
  return engine.graphs.filter(({ status }) => status === "captured").length;
}

export function graphBytes(engine: EngineJson): number {
  return engine.graphs.reduce((sum, { bytes = 0 }) => sum + bytes, 0);
}

/** What a simulated engine says of itself on the wire. */

import { hostname } from "node:os";
import { packageVersion } from "../../base/version.ts";
import {
  type Hello,
  type Inventory,
  type KeyProof,
  type Mode,
  type Orders,
  PROTOCOL_VERSION,
  type RankMemory,
  type Ready,
} from "../../wire/protocol.ts";
import { versionFor } from "../../wire/version.ts";
import type { EngineModel } from "./engine.ts";

export interface Identity {
  readonly engine: string;
  readonly session: string;
  readonly mode: Mode;
  /** What it was told last. */
  readonly orders: Orders | undefined;
  readonly proof?: KeyProof | undefined;
}

export function helloOf(model: EngineModel, identity: Identity): Hello {
  const { profile, phase } = model;
  return {
    type: "hello",
    // A controller that can't tell its graphs apart must not decide about them.
    versionMin: versionFor(model.planned),
    versionMax: PROTOCOL_VERSION,
    engine: identity.engine,
    session: identity.session,
    pluginVersion: packageVersion(),
    vllmVersion: profile.engine.vllmVersion,
    model: profile.engine.model,
    host: hostname(),
    pid: process.pid,
    phase,
    mode: identity.mode,
    tensorParallel: profile.engine.tensorParallel,
    pipelineParallel: profile.engine.pipelineParallel,
    simulated: profile.name,
    sleeps: true,
    ...(identity.orders === undefined ? {} : { orders: identity.orders }),
    ...(identity.proof === undefined ? {} : { proof: identity.proof }),
  };
}

export function inventoryOf(model: EngineModel, session: string): Inventory {
  const { engine, limits } = model.profile;
  return {
    type: "inventory",
    phase: model.phase,
    graphs: model.planned,
    captured: capturedOf(model),
    ranks: ranksOf(model, session),
    cudagraphMode: engine.cudagraphMode,
    layers: engine.layers,
    maxRequests: limits.maxRequests,
    maxBatchedTokens: limits.maxBatchedTokens,
    kvCacheTokens: model.kvCacheTokens,
    epoch: model.epoch,
    ...(model.memory.reserved === undefined ? {} : { reserve: model.memory.reserved }),
    ...(model.memory.tiers === undefined ? {} : { tiers: model.memory.tiers }),
    ...(model.asleep ? { asleep: ["kv_cache", "weights"] } : {}),
  };
}

export function readyOf(model: EngineModel, session: string): Ready {
  return {
    type: "ready",
    captureSeconds: model.captureSeconds,
    captured: capturedOf(model),
    ranks: ranksOf(model, session),
    epoch: model.epoch,
    warmUpSeconds: model.warmUpSeconds,
    ...(model.skipped.length === 0 ? {} : { skipped: model.skipped }),
  };
}

function capturedOf(model: EngineModel): Inventory["captured"] {
  return [...model.captured.values()].map(({ graph, ms, bytes }) => ({
    graph: graph.id,
    ms,
    bytes,
  }));
}

export function ranksOf({ profile, memory }: EngineModel, session: string): RankMemory[] {
  const { engine } = profile;
  const { graphBytes, activationHeldBytes, gpu } = memory;
  const uuid = (rank: number): string =>
    gpu.uuid === undefined ? `GPU-simulated-${session}-${rank}` : `${gpu.uuid}-${rank}`;
  return Array.from({ length: engine.tensorParallel * engine.pipelineParallel }, (_, rank) => ({
    rank,
    gpuUuid: uuid(rank),
    gpuName: `${engine.gpuName} (simulated)`,
    totalBytes: profile.memory.totalBytes,
    // A stranger that came in the middle of a capture may have taken what that one took as well.
    freeBytes: Math.max(0, gpu.freeBytes),
    reservedBytes: profile.memory.reservedBytes + graphBytes + activationHeldBytes,
    poolBytes: graphBytes,
    activationPeakBytes: profile.memory.activationPeakBytes,
    activationHeldBytes,
  }));
}

/** Exports of `lazygraph/testing`: a simulated engine for other people's tests, and its parts. */

export { DEFAULT_PROFILE, loadProfile, parseProfile } from "./profile/load.ts";
export type { Profile } from "./profile/profile.ts";
export type { RequestSample } from "./sim/batcher.ts";
export {
  type ListeningEvent,
  type ProcessEnd,
  type SimulatedEngine,
  type SimulatedEngineEvent,
  type SimulatedEngineOptions,
  type StartedEvent,
  startSimulatedEngine,
} from "./sim/child.ts";
export type { Spread } from "./sim/figures.ts";
export type { EngineCurve } from "./sim/link.ts";
export { LiveEngine, type LiveEngineOptions, type LiveEvent } from "./sim/live.ts";
export { SimulatedGpu } from "./sim/memory.ts";
export {
  type SimulatedServer,
  type SimulatedServerOptions,
  startSimulatedServer,
} from "./sim/server.ts";
export { type SimulatedRun, type SimulateOptions, simulate } from "./sim/virtual.ts";
export {
  readTrace,
  type TimeUnit,
  type TraceAbout,
  type TraceFormat,
  type TraceOptions,
  type TraceRequest,
  type TraceSkip,
} from "./trace.ts";

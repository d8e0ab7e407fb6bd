/** Exports of `lazygraph/testing`: a simulated engine for other people's tests, and its parts. */

export { DEFAULT_PROFILE, loadProfile, parseProfile } from "./profile/load.ts";
export type { Profile } from "./profile/profile.ts";
export { type ProcessEnd, type SimulatedEngine, startSimulatedEngine } from "./sim/live/child.ts";
export type {
  ListeningEvent,
  SimulatedEngineEvent,
  SimulatedEngineOptions,
  StartedEvent,
} from "./sim/live/child-options.ts";
export type { EngineCurve } from "./sim/live/link.ts";
export { LiveEngine, type LiveEngineOptions, type LiveEvent } from "./sim/live/live.ts";
export { type SimulatedServer, startSimulatedServer } from "./sim/live/server.ts";
export type { SimulatedServerOptions } from "./sim/live/server-options.ts";
export type { RequestSample } from "./sim/model/batcher.ts";
export { SimulatedGpu } from "./sim/model/memory.ts";
export type { Spread } from "./sim/virtual/figures.ts";
export { type SimulatedRun, type SimulateOptions, simulate } from "./sim/virtual/virtual.ts";
export {
  readTrace,
  type TimeUnit,
  type TraceAbout,
  type TraceFormat,
  type TraceOptions,
  type TraceRequest,
  type TraceSkip,
} from "./trace/trace.ts";

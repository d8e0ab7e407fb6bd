export { type Controller, createController } from "./controller.ts";
export type { DecisionRecord, ProblemCounts } from "./engine-record.ts";
export { codeOf, ERROR_CODES, type ErrorCode, LazygraphError, OptionError } from "./errors.ts";
export {
  type CaptureEndEvent,
  type CaptureMissEvent,
  type CaptureStartEvent,
  type DecisionEvent,
  type EngineEventBase,
  type EngineJoinEvent,
  type EngineLostEvent,
  type EngineMemoryEvent,
  type EngineReadyEvent,
  type EngineSettledEvent,
  EVENT_NAMES,
  type EventName,
  type LazygraphEvents,
  onEvent,
  type ProblemEvent,
} from "./events.ts";
export {
  type GpuDevice,
  type GpuFault,
  type GpuMemory,
  type GpuMemoryOptions,
  type GpuMig,
  type GpuProcess,
  type GpuReading,
  type GpuSource,
  type GpuSourceFailure,
  type GpuSurvey,
  type GpuUnavailable,
  type GpuUnavailableReason,
  type GpuWatch,
  type GpuWatchEvent,
  type GpuWatchOptions,
  openGpuMemory,
} from "./gpu/memory.ts";
export {
  covers,
  type Graph,
  type GraphKind,
  idealGraph,
  type StepShape,
  topGraphs,
} from "./graph.ts";
export type { ControllerOptions } from "./options.ts";
export { dispatch, dispatchTable, PAD_LIMIT, type PadLimit } from "./schedule/dispatch.ts";
export { createEagerPolicy } from "./schedule/eager.ts";
export type { Forecast } from "./schedule/forecast.ts";
export { createIdlePolicy } from "./schedule/idle.ts";
export { createLazyPolicy } from "./schedule/lazy.ts";
export type {
  Decision,
  DispatchTable,
  EngineEvent,
  Policy,
  TableRow,
} from "./schedule/policy.ts";
export {
  capturedGraphs,
  type EngineState,
  type GraphState,
  missingGraphs,
} from "./schedule/state.ts";
export type { EngineSnapshot, GraphSnapshot } from "./snapshot.ts";
export type { WaitOptions } from "./waiters.ts";
export type { CurveOptions } from "./wire/curve.ts";
export { MODES, type Mode, PHASES, type Phase, type RankMemory } from "./wire/protocol.ts";

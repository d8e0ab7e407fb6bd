export { codeOf, ERROR_CODES, type ErrorCode, LazygraphError, OptionError } from "./base/errors.ts";
export {
  covers,
  type Graph,
  type GraphKind,
  idealGraph,
  type StepCase,
  type StepShape,
  topGraphs,
} from "./base/graph.ts";
export type { Announcement } from "./controller/call-options.ts";
export { type Controller, createController } from "./controller/controller.ts";
export type { ControllerOptions } from "./controller/options.ts";
export type { WaitOptions } from "./controller/waiters.ts";
export type { DecisionRecord } from "./engine/decision-log.ts";
export {
  type CaptureEndEvent,
  type CaptureMissEvent,
  type CaptureStartEvent,
  type DecisionEvent,
  type EngineAsleepEvent,
  type EngineEventBase,
  type EngineJoinEvent,
  type EngineLostEvent,
  type EngineMemoryEvent,
  type EngineReadyEvent,
  type EngineSettledEvent,
  type EngineStepsEvent,
  EVENT_NAMES,
  type EventName,
  type LazygraphEvents,
  type MemoryDroppedEvent,
  type MemoryRefusedEvent,
  type MemoryRoomEvent,
  onEvent,
  type ProblemEvent,
} from "./engine/events.ts";
export type { MemoryVerdict } from "./engine/memory-line.ts";
export type { ProblemCounts } from "./engine/record.ts";
export type { SleepOptions, WakeOptions } from "./engine/sleep.ts";
export type { EngineSnapshot, GraphSnapshot } from "./engine/snapshot.ts";
export {
  type GpuDevice,
  type GpuFault,
  type GpuFaultReason,
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
export type { HttpChange, MetricsSource } from "./http/route.ts";
export { createHttpServer, type HttpOptions } from "./http/server.ts";
export { createLauncher, type Launcher, type LauncherOptions } from "./launcher/launcher.ts";
export type { LauncherStatus } from "./launcher/status.ts";
export type { Forecast } from "./memory/forecast.ts";
export type { MemoryOptions } from "./memory/options.ts";
export type { PlanSnapshot } from "./plan/engine-plan.ts";
export {
  createTraceRecorder,
  type TraceRecorder,
  type TraceRecorderCounts,
  type TraceRecorderOptions,
} from "./record/recorder.ts";
export type { AnswerHead, RecordedRequest } from "./record/request.ts";
export type { UnrecordedReason } from "./record/row.ts";
export { type ConnectOptions, type ControllerClient, connectController } from "./replica/client.ts";
export { createStandby, type Standby, type StandbyOptions } from "./replica/standby.ts";
export type { ControllerView } from "./replica/view.ts";
export type {
  ExplainingPolicy,
  PolicyContext,
  PolicyName,
} from "./schedule/choice.ts";
export type { CostSeed, SeedRows } from "./schedule/costed/cost.ts";
export {
  type CostPolicy,
  type CostPolicyOptions,
  createCostPolicy,
} from "./schedule/costed/costed.ts";
export type { Prior, PriorTraffic } from "./schedule/costed/prior.ts";
export { dispatch, dispatchTable, PAD_LIMIT, type PadLimit } from "./schedule/dispatch.ts";
export { createEagerPolicy } from "./schedule/modes/eager.ts";
export { createIdlePolicy } from "./schedule/modes/idle.ts";
export { createLazyPolicy } from "./schedule/modes/lazy.ts";
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
export type { AllowedClient, AllowedEngines, CurveOptions } from "./wire/curve.ts";
export {
  MODES,
  type Mode,
  PHASES,
  type Phase,
  type RankMemory,
  type StepCount,
} from "./wire/protocol.ts";

/**
 * A calibration from ready to profile: waves of completions without graphs and padded to the tops,
 * then every capture, then the same waves with each step in its own graph.
 */

import { LazygraphError } from "../base/errors.ts";
import { packageVersion } from "../base/version.ts";
import type { Controller } from "../controller/controller.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import type { ServerAddress } from "../measure/server-address.ts";
import { loadProfile, parseProfile } from "../profile/load.ts";
import type { Profile } from "../profile/profile.ts";
import { decodeLength } from "../schedule/dispatch.ts";
import type { EngineState } from "../schedule/state.ts";
import { Completions, RefusedRequest } from "./client.ts";
import type { CalibrationControl, CalibrationTable } from "./control.ts";
import { profileDocument, SYNCHRONOUS, Unmeasured } from "./document.ts";
import { estimateSteps, SAMPLES_MIN } from "./estimate.ts";
import { defaultSizes, type TimedWave, type Wave, wavesOf } from "./waves.ts";

export interface CalibrationOptions {
  readonly controller: Controller;
  /** Its policy must be the controller's. */
  readonly control: CalibrationControl;
  readonly server: ServerAddress;
  readonly model: string;
  /** Planned sizes to measure. @default a dozen or so, evenly in octaves */
  readonly sizes?: readonly number[] | undefined;
  readonly name: string;
  /** What was run, for the profile's provenance. */
  readonly command: string;
  /** `performance.now()` when the engine was started. */
  readonly startedAtMs: number;
  /** Aborted when the engine has ended. */
  readonly signal: AbortSignal;
  /** How long the endpoint may take to answer once its engine is ready. @default 120 */
  readonly apiSeconds?: number;
  readonly onProgress?: (line: string) => void;
}

const API_SECONDS = 120;
/** A wave whose cell stayed thin is sent again this often. */
const REPEATS_MAX = 2;

/**
 * @returns a profile as `parseProfile` takes it
 * @throws LazygraphError ERR_LAZYGRAPH_CALIBRATE; the signal's reason
 */
export async function calibrate(options: CalibrationOptions): Promise<Record<string, unknown>> {
  const { controller, control, signal, onProgress = () => {} } = options;
  const release = (): void => control.release();
  signal.addEventListener("abort", release, { once: true });
  try {
    const engine = await controller.waitForEngine({ phase: "serving", signal });
    const state = stateOf(control, engine);
    const tops = new Set(
      [...state.graphs.values()].filter((g) => g.status === "captured").map((g) => g.graph.id),
    );
    const completions = new Completions(options);
    const sizes = sizesOf(state, options.sizes);
    await completions.check(options.apiSeconds ?? API_SECONDS);
    const waves = wavesOf({ sizes, ...limitsOf(engine) });
    const timed: TimedWave[] = [];
    for (const table of ["none", "tops", "exact"] as const) {
      if (table === "exact") await captureAll(control, state, signal, onProgress);
      await sendWaves(table, waves, { control, completions, signal, timed, onProgress });
    }
    return documentOf(options, engine, state, { tops, waves: timed });
  } finally {
    signal.removeEventListener("abort", release);
  }
}

function stateOf({ state }: CalibrationControl, engine: EngineSnapshot): EngineState {
  if (state === undefined || state.planned.length === 0) {
    const why = engine.unsupported ?? "it has no graphs";
    throw fault(`an engine whose graphs can be captured, got one that runs as stock: ${why}`);
  }
  const odd = state.planned.find(
    ({ id, kind, tokens, uniform }) => id !== `${kind}:${tokens}` || (uniform ?? 1) !== 1,
  );
  if (odd === undefined) return state;
  throw fault(`graphs that a profile can hold, one for each kind and size, got ${odd.id}`);
}

/** @throws LazygraphError when a size is none of the plan's */
function sizesOf(state: EngineState, asked: readonly number[] | undefined): readonly number[] {
  const planned = [...new Set(state.planned.map(({ tokens }) => tokens))];
  if (asked === undefined) return defaultSizes(planned);
  const unknown = asked.find((size) => !planned.includes(size));
  if (unknown !== undefined) {
    throw fault(`sizes that the engine plans (${planned.join(", ")}), got ${unknown}`);
  }
  const top = Math.max(...planned);
  // Costs beyond the largest graph start there: it is always measured.
  return [...new Set([...asked, top])].sort((a, b) => a - b);
}

function limitsOf({ maxRequests, maxBatchedTokens, kvCacheTokens }: EngineSnapshot): {
  maxRequests: number;
  maxBatchedTokens: number;
  kvCacheTokens: number;
} {
  return {
    maxRequests: maxRequests ?? 1,
    maxBatchedTokens: maxBatchedTokens ?? 1,
    kvCacheTokens: kvCacheTokens ?? 1,
  };
}

interface Sending {
  readonly control: CalibrationControl;
  readonly completions: Completions;
  readonly signal: AbortSignal;
  readonly timed: TimedWave[];
  readonly onProgress: (line: string) => void;
}

async function sendWaves(
  table: CalibrationTable,
  waves: readonly Wave[],
  { control, completions, signal, timed, onProgress }: Sending,
): Promise<void> {
  const mine = waves.filter((wave) => wave.table === table);
  await control.table(table);
  signal.throwIfAborted();
  for (const [index, wave] of mine.entries()) {
    onProgress(`${TITLES[table]}: wave ${index + 1} of ${mine.length}, ${describe(wave)}`);
    const decodes = wave.outputTokens > 1;
    for (let repeat = 0; repeat <= (decodes ? REPEATS_MAX : 0); repeat++) {
      const seconds = await sendWave(wave, completions);
      if (seconds === undefined) {
        onProgress(`the engine refuses prompts of ${wave.promptTokens} tokens: left out`);
        break;
      }
      timed.push({ wave, seconds });
      await control.idle();
      signal.throwIfAborted();
      if (timedSteps(control, wave) >= SAMPLES_MIN) break;
    }
    if (decodes && control.cells.all().length === 0) {
      throw fault(
        "an address where this engine serves, but it told no step of what was sent there",
      );
    }
  }
}

/** @returns seconds of each round; undefined when an optional wave was refused */
async function sendWave(wave: Wave, completions: Completions): Promise<number[] | undefined> {
  const seconds: number[] = [];
  for (let round = 0; round < wave.rounds; round++) {
    const startedAtMs = performance.now();
    const requests = Array.from({ length: wave.requests }, () => completions.complete(wave));
    // All are waited for, so that none is left running behind a failure of another.
    const ends = await Promise.allSettled(requests);
    const failed = ends.find((end) => end.status === "rejected");
    if (failed === undefined) {
      seconds.push((performance.now() - startedAtMs) / 1000);
      continue;
    }
    if (wave.optional && failed.reason instanceof RefusedRequest) return undefined;
    throw failed.reason;
  }
  return seconds;
}

/** Decode steps of a wave's full width so far, whatever served them. */
function timedSteps({ cells, state }: CalibrationControl, { requests }: Wave): number {
  const decode = decodeLength(state?.planned ?? []);
  const served = ["", ...(state?.planned ?? []).map(({ id }) => id)];
  const tokens = requests * decode;
  return Math.max(
    ...served.map((id) => cells.timed({ served: id, tokens, requests, uniform: decode })),
  );
}

async function captureAll(
  control: CalibrationControl,
  state: EngineState,
  signal: AbortSignal,
  onProgress: (line: string) => void,
): Promise<void> {
  onProgress(`capturing the other graphs of ${state.planned.length}`);
  await control.captureAll();
  signal.throwIfAborted();
}

function documentOf(
  { name, command, control, startedAtMs }: CalibrationOptions,
  engine: EngineSnapshot,
  state: EngineState,
  { tops, waves }: { tops: ReadonlySet<string>; waves: readonly TimedWave[] },
): Record<string, unknown> {
  const graphs = [...state.graphs.values()];
  const steps = estimateSteps(control.cells.all(), state.planned, decodeLength(state.planned));
  const topBytes = graphs.reduce((sum, g) => sum + (tops.has(g.graph.id) ? (g.bytes ?? 0) : 0), 0);
  const simulated = simulatedProfile(engine);
  const [rank] = [...engine.ranks].sort((a, b) => a.freeBytes - b.freeBytes);
  try {
    const document = profileDocument({
      name,
      measuredOn: new Date().toISOString().slice(0, 10),
      command,
      lazygraphVersion: packageVersion(),
      pluginVersion: engine.pluginVersion,
      simulated: engine.simulated,
      engine: {
        model: engine.model,
        vllmVersion: engine.vllmVersion,
        gpuName: rank?.gpuName ?? "unknown",
        cudagraphMode: engine.cudagraphMode ?? "unknown",
        layers: Math.max(1, engine.layers ?? 1),
        tensorParallel: engine.tensorParallel,
        pipelineParallel: engine.pipelineParallel,
      },
      limits: { ...limitsOf(engine), stepsAhead: stepsAheadOf(engine, simulated, command) },
      memory: {
        totalBytes: rank?.totalBytes ?? 0,
        freeBytes: Math.max(0, (rank?.freeBytes ?? 0) + topBytes),
        reservedBytes: rank?.reservedBytes ?? 0,
        activationPeakBytes: rank?.activationPeakBytes ?? 0,
      },
      startupSeconds:
        simulated?.startupSeconds ?? ((control.inventoryAtMs ?? startedAtMs) - startedAtMs) / 1000,
      steps,
      captures: graphs.map(({ graph, captureMs, bytes }) => ({ graph, ms: captureMs, bytes })),
      tops,
      waves,
    });
    // What `simulate` would refuse is no profile.
    parseProfile(JSON.stringify(document), name);
    return document;
  } catch (error) {
    if (error instanceof Unmeasured) throw fault(error.message);
    throw error;
  }
}

/** vLLM's default, unless the command says otherwise: an engine doesn't tell. */
function stepsAheadOf(
  engine: EngineSnapshot,
  simulated: Profile | undefined,
  command: string,
): number {
  if (engine.simulated !== undefined) return simulated?.limits.stepsAhead ?? 0;
  return command.includes(SYNCHRONOUS) ? 0 : 1;
}

/** Of a simulated engine: it may run faster than real time, and doesn't tell how much. */
function simulatedProfile({ simulated }: EngineSnapshot): Profile | undefined {
  // A name alone: no file is opened because an engine says so.
  if (simulated === undefined || !/^[\w.-]+(?<!\.json)$/.test(simulated)) return undefined;
  try {
    return loadProfile(simulated);
  } catch {
    // A profile of the user's own, by its name alone.
    return undefined;
  }
}

const TITLES: Readonly<Record<CalibrationTable, string>> = {
  none: "without graphs",
  tops: "padded to the tops",
  exact: "with every graph",
};

function describe({ requests, promptTokens, outputTokens, rounds }: Wave): string {
  const times = rounds === 1 ? "" : `, ${rounds} times`;
  return `${requests} × (${promptTokens} + ${outputTokens}) tokens${times}`;
}

function fault(expectation: string): LazygraphError {
  return new LazygraphError("ERR_LAZYGRAPH_CALIBRATE", `Expected ${expectation}.`);
}

/** The engine of one run: by a command, simulated or live; with our controller or as stock. */

import { basename } from "node:path";
import { type Controller, createController } from "../controller/controller.ts";
import { loadProfile } from "../profile/load.ts";
import { simulatedEngineProgram } from "../sim/live/child.ts";
import { EngineCommand, freePort } from "./engine-command.ts";
import type { CompilationRecord, SampleLine } from "./samples.ts";
import { controllerOptions, type ModeSpec, type SimulatedSpec } from "./spec.ts";
import { Timeline } from "./timeline.ts";
import { type EngineWatch, watchEngine } from "./watch.ts";

export interface EngineUnderTest {
  readonly url: URL;
  /** The moment that seconds of this run count from: the spawn, or now for a live endpoint. */
  readonly originMs: number;
  readonly command: EngineCommand | undefined;
  readonly watch: EngineWatch | undefined;
  readonly simulated: string | undefined;
  /** Kernels compiled since `fromSeconds`; undefined where none of its processes tells. */
  compilations(fromSeconds: number): Promise<readonly CompilationRecord[] | undefined>;
  stop(): Promise<void>;
}

export interface StartOptions {
  readonly mode: ModeSpec;
  /** Unique among the engines of this process. */
  readonly name: string;
  readonly logFile: string;
  readonly keep: (line: SampleLine) => void;
}

export async function startEngine(options: StartOptions): Promise<EngineUnderTest> {
  const { mode } = options;
  if (mode.url !== undefined) {
    return {
      url: new URL(mode.url),
      originMs: performance.now(),
      command: undefined,
      watch: undefined,
      simulated: undefined,
      compilations: () => Promise.resolve(undefined),
      stop: () => Promise.resolve(),
    };
  }
  const controller = mode.mode === undefined ? undefined : await startController(mode);
  try {
    return await startCommand(options, controller);
  } catch (error) {
    await controller?.close();
    throw error;
  }
}

async function startController(mode: ModeSpec): Promise<Controller> {
  const controller = createController(controllerOptions(mode));
  await controller.start();
  return controller;
}

async function startCommand(
  { mode, name, logFile, keep }: StartOptions,
  controller: Controller | undefined,
): Promise<EngineUnderTest> {
  const port = await freePort();
  const timeline = await Timeline.open();
  const command = EngineCommand.start({
    command: commandOf(mode, port),
    environment: { ...environmentOf(mode, name, controller), ...timeline.variables },
    logFile,
    // It lies beside the figures, wherever their folder is taken.
    logName: basename(logFile),
  });
  const { spawnedAtMs } = command;
  const watch =
    controller === undefined ? undefined : watchEngine(controller, name, spawnedAtMs, keep);
  return {
    url: new URL(`http://127.0.0.1:${port}`),
    originMs: spawnedAtMs,
    command,
    watch,
    simulated: mode.simulated && loadProfile(mode.simulated.profile).title,
    compilations: (fromSeconds) => timeline.compilations(spawnedAtMs, fromSeconds),
    async stop() {
      await command.stop();
      await timeline.close();
      watch?.stop();
      await controller?.close();
    },
  };
}

function commandOf(mode: ModeSpec, port: number): string[] {
  const { command, simulated = {} } = mode;
  if (command === undefined) return simulatedCommand(simulated, port);
  return command.map((word) => word.replaceAll("{port}", String(port)));
}

function simulatedCommand({ profile, sizes, jitter }: SimulatedSpec, port: number): string[] {
  return [
    process.execPath,
    ...simulatedEngineProgram(),
    `--http=127.0.0.1:${port}`,
    ...(profile === undefined ? [] : [`--profile=${profile}`]),
    ...(sizes === undefined ? [] : [`--sizes=${sizes.length === 0 ? "none" : sizes.join(",")}`]),
    ...(jitter === undefined ? [] : [`--jitter=${jitter}`]),
  ];
}

/** The mode decides, not what the shell around the benchmark happens to have set. */
function environmentOf(
  { mode, env }: ModeSpec,
  name: string,
  controller: Controller | undefined,
): NodeJS.ProcessEnv {
  const { LAZYGRAPH_DISABLE: _, LAZYGRAPH_ENDPOINT: __, ...inherited } = process.env;
  if (controller === undefined) return { ...inherited, ...env, LAZYGRAPH_DISABLE: "1" };
  return {
    ...inherited,
    ...env,
    LAZYGRAPH_ENDPOINT: controller.endpoint,
    LAZYGRAPH_MODE: mode ?? "idle",
    LAZYGRAPH_ENGINE: name,
  };
}

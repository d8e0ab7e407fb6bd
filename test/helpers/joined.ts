/** A controller that listens, and an engine that has said hello to one. */

import { type Controller, createController } from "../../src/controller/controller.ts";
import type { ControllerOptions } from "../../src/controller/options.ts";
import { FakeEngine, type FakeEngineOptions } from "./fake-engine.ts";

export async function startController(options?: ControllerOptions): Promise<Controller> {
  const controller = createController(options);
  await controller.start();
  return controller;
}

export async function joinEngine(
  { endpoint }: Pick<Controller, "endpoint">,
  options?: FakeEngineOptions,
): Promise<FakeEngine> {
  const engine = new FakeEngine(options);
  await engine.connect(endpoint);
  return engine;
}

/** Starts the gateway: settings, controller, metrics, signals. A failed start is one sentence. */

import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import {
  type Controller,
  createController,
  createTraceRecorder,
  type TraceRecorder,
} from "lazygraph";
import { collectMetrics } from "lazygraph/metrics";
import { Registry } from "prom-client";
import { type Config, configOf } from "./config.ts";
import { Gateway } from "./gateway.ts";

interface Started {
  readonly config: Config;
  readonly controller: Controller;
  readonly recorder: TraceRecorder | undefined;
  readonly gateway: Gateway;
}

async function start(): Promise<Started> {
  const config = configOf(process.env);
  const controller = createController({ mode: config.mode, endpoint: config.endpoint });
  await controller.start();
  const registry = new Registry();
  collectMetrics(controller, registry);
  const { traceFolder } = config;
  const name = `trace-${Date.now()}-${process.pid}.csv.gz`;
  const recorder =
    traceFolder === undefined
      ? undefined
      : await createTraceRecorder({ file: join(traceFolder, name) });
  const recording = recorder === undefined ? {} : { recorder };
  const gateway = new Gateway({ ...config, controller, registry, ...recording });
  gateway.server.listen(config.port, config.host);
  await once(gateway.server, "listening");
  return { config, controller, recorder, gateway };
}

/** Almost always a setting that can't be used: a value, a port that is taken, a folder. */
function failed(error: unknown): never {
  console.error(error instanceof Error ? error.message : String(error));
  process.exit(2);
}

const stopping = Promise.race([once(process, "SIGTERM"), once(process, "SIGINT")]);
const { config, controller, recorder, gateway } = await start().catch(failed);
const { address, family, port } = gateway.server.address() as AddressInfo;
const host = family === "IPv6" ? `[${address}]` : address;
console.log(`gateway at http://${host}:${port}; engines connect to ${controller.endpoint}`);

await stopping;
console.log("stopping");
await gateway.close(config.drainSeconds);
await recorder?.close();
await controller.close();

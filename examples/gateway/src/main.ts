/** Starts the gateway: settings, controller, metrics, signals. */

import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createController, createTraceRecorder } from "lazygraph";
import { collectMetrics } from "lazygraph/metrics";
import { Registry } from "prom-client";
import { configOf } from "./config.ts";
import { Gateway } from "./gateway.ts";

const config = configOf(process.env);
const stopping = Promise.race([once(process, "SIGTERM"), once(process, "SIGINT")]);

const controller = createController({ mode: config.mode, endpoint: config.endpoint });
await controller.start();
const registry = new Registry();
collectMetrics(controller, registry);

const recorder =
  config.traceFolder === undefined
    ? undefined
    : await createTraceRecorder({
        file: join(config.traceFolder, `trace-${Date.now()}-${process.pid}.csv.gz`),
      });
const gateway = new Gateway({
  ...config,
  controller,
  registry,
  ...(recorder === undefined ? {} : { recorder }),
});
gateway.server.listen(config.port, config.host);
await once(gateway.server, "listening");
const { address, port } = gateway.server.address() as AddressInfo;
console.log(`gateway at http://${address}:${port}; engines connect to ${controller.endpoint}`);

await stopping;
console.log("stopping");
await gateway.close(config.drainSeconds);
await recorder?.close();
await controller.close();

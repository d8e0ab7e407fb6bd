/** Starts the gateway: settings, controller, metrics, signals. A failed start is one sentence. */

import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createTraceRecorder, type TraceRecorder } from "lazygraph";
import { Registry } from "prom-client";
import { type Config, configOf } from "./config.ts";
import { type Control, openControl } from "./control.ts";
import { Gateway } from "./gateway.ts";

interface Started {
  readonly config: Config;
  readonly control: Control;
  readonly recorder: TraceRecorder | undefined;
  readonly gateway: Gateway;
}

async function start(): Promise<Started> {
  const config = configOf(process.env);
  const registry = new Registry();
  let gateway: Gateway | undefined;
  const control = await openControl(config, registry, () => gateway?.enginesChanged());
  const { traceFolder } = config;
  const name = `trace-${Date.now()}-${process.pid}.csv.gz`;
  const recorder =
    traceFolder === undefined
      ? undefined
      : await createTraceRecorder({ file: join(traceFolder, name) });
  const recording = recorder === undefined ? {} : { recorder };
  const say = (sentence: string): void => console.error(sentence);
  gateway = new Gateway({ ...config, controller: control.view, registry, ...recording, say });
  gateway.server.listen(config.port, config.host);
  await once(gateway.server, "listening");
  return { config, control, recorder, gateway };
}

/** Almost always a setting that can't be used: a value, a port that is taken, a folder. */
function failed(error: unknown): never {
  const { code, message = String(error) } = Object(error);
  console.error(code === undefined ? message : `${message} [${code}]`);
  process.exit(2);
}

const stopping = Promise.race([once(process, "SIGTERM"), once(process, "SIGINT")]);
const { config, control, recorder, gateway } = await start().catch(failed);
const { address, family, port } = gateway.server.address() as AddressInfo;
const host = family === "IPv6" ? `[${address}]` : address;
console.log(`gateway at http://${host}:${port}; ${control.says}`);

await stopping;
console.log("stopping");
await gateway.close(config.drainSeconds);
await recorder?.close();
await control.view.close();

import { readFileSync } from "node:fs";
import { availableParallelism, cpus, hostname, totalmem } from "node:os";
import type { HostFacts } from "./samples.ts";

/** The host of the load and, where the benchmark started it, of the engine. */
export function hostFacts(gpus: readonly string[]): HostFacts {
  const processors = cpus();
  const visibleDevices = process.env["CUDA_VISIBLE_DEVICES"];
  const file = new URL("../../package.json", import.meta.url);
  const { version } = JSON.parse(readFileSync(file, "utf8")) as { version: string };
  return {
    name: hostname(),
    cpus: processors.length,
    cpuModel: processors[0]?.model.trim() ?? "unknown",
    memoryBytes: totalmem(),
    node: process.version,
    lazygraph: version,
    gpus,
    coresAllowed: availableParallelism(),
    ...(visibleDevices === undefined ? {} : { visibleDevices }),
  };
}

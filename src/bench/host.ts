import { readFileSync } from "node:fs";
import { availableParallelism, cpus, hostname, totalmem } from "node:os";
import { GIB } from "../base/units.ts";
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

/**
 * The hosts of these runs, each once, whatever their names. Lanes differ in the GPU they see, which
 * only a controller tells: stock's runs name none, and belong to a host otherwise the same.
 */
export function hostsOf(runs: readonly { readonly host: HostFacts }[]): HostFacts[] {
  const hosts = new Map<string, HostFacts>();
  for (const { host } of runs) {
    const { visibleDevices: _, ...rest } = host;
    const key = `${machineOf(host)} ${[...new Set(host.gpus)].sort()}`;
    const known = hosts.get(key);
    if (known === undefined || known.gpus.length < host.gpus.length) hosts.set(key, rest);
  }
  const found = [...hosts.values()];
  const told = new Set(found.filter(({ gpus }) => gpus.length > 0).map(machineOf));
  return found.filter((host) => host.gpus.length > 0 || !told.has(machineOf(host)));
}

/** What tells hosts of one name apart, such as two pods, but for the GPUs. */
export function machineOf(host: HostFacts): string {
  const { name, cpus: cores, cpuModel, memoryBytes, node, lazygraph } = host;
  return JSON.stringify([name, cores, cpuModel, Math.round(memoryBytes / GIB), node, lazygraph]);
}

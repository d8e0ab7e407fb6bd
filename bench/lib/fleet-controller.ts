/**
 * The controller under test of `npm run bench:fleet`, alone in its process, with the probe at its
 * socket. Of the build in DIST, since sources run slower under tsx; an earlier one is measured alike.
 *
 *   node --import tsx bench/lib/fleet-controller.ts DIST ENGINES_MAX PLANS [FOLDER]   (started with an IPC channel)
 *
 * PLANS is where learned plans lie; empty: there are none. With FOLDER a profile of the processor for each phase is written there.
 */

import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector/promises";
import type { AddressInfo } from "node:net";
import { pathToFileURL } from "node:url";
import type { Controller } from "../../src/controller/controller.ts";
import type { ControllerOptions } from "../../src/controller/options.ts";
import type { ControllerFigures, FromController, ToController } from "./fleet-messages.ts";
import { FleetProbe, monotonicMs } from "./fleet-probe.ts";

const [built, enginesMax, plans, folder] = process.argv.slice(2);
if (built === undefined) throw new Error("Expected the folder of a build, got none.");
const from = async (file: string): Promise<Record<string, unknown>> =>
  import(pathToFileURL(`${built}/${file}`).href);
const { createController } = (await from("controller/controller.js")) as {
  createController: (options: ControllerOptions) => Controller;
};
// By the package's entry: its file has another place in earlier builds.
const { createHttpServer } = (await from("index.js")) as {
  createHttpServer: (controller: Controller) => import("node:http").Server;
};
const { onEvent } = (await from("engine/events.js")) as {
  onEvent: (name: string, listener: (event: { readonly code?: string }) => void) => void;
};
// As `lazygraph serve` has it, in builds that do.
if (existsSync(`${built}/cli/heap-growth.js`)) {
  const { growHeap } = (await from("cli/heap-growth.js")) as { growHeap: () => void };
  growHeap();
}

const probe = new FleetProbe();
probe.install();
const controller = createController({
  mode: "idle",
  endpoint: "tcp://127.0.0.1:0",
  enginesMax: Number(enginesMax),
  // Without plans every engine captures all of its graphs by command; with them a later one has
  // those that earlier ones needed before it is ready.
  ...(plans === "" ? { plan: false } : { planFolder: plans as string }),
  memory: { gpu: false },
});
let lost = 0;
const problems: Record<string, number> = {};
onEvent("lazygraph:engine:lost", () => {
  lost += 1;
});
onEvent("lazygraph:problem", ({ code = "" }) => {
  problems[code] = (problems[code] ?? 0) + 1;
});
await controller.start();
const server = createHttpServer(controller);
server.listen(0, "127.0.0.1");
await once(server, "listening");

let cpu = process.cpuUsage();
let cpuAt = monotonicMs();
let threads = threadSeconds();

const profiler = folder === undefined ? undefined : new Session();
profiler?.connect();
await profiler?.post("Profiler.enable");
await profiler?.post("Profiler.start");

/** Ends one profile and begins the next. */
async function profiled(phase: string): Promise<void> {
  if (profiler === undefined) return;
  const { profile } = await profiler.post("Profiler.stop");
  writeFileSync(`${folder}/${phase}.cpuprofile`, JSON.stringify(profile));
  await profiler.post("Profiler.start");
}

/** Processor time so far, by the names of threads; none where the host doesn't tell. */
function threadSeconds(): Map<string, number> {
  const seconds = new Map<string, number>();
  const tasks = "/proc/self/task";
  const names = process.platform === "linux" ? readdirSync(tasks) : [];
  for (const id of names) {
    // A thread may have ended meanwhile.
    try {
      const name = readFileSync(`${tasks}/${id}/comm`, "utf8").trim();
      const [ns] = readFileSync(`${tasks}/${id}/schedstat`, "utf8").split(" ");
      const key = Number(id) === process.pid ? "main" : name;
      seconds.set(key, (seconds.get(key) ?? 0) + Number(ns) / 1e9);
    } catch {}
  }
  return seconds;
}

function figures(): ControllerFigures {
  const used = process.cpuUsage(cpu);
  const nowThreads = threadSeconds();
  const busyByThread = Object.fromEntries(
    [...nowThreads].map(([name, seconds]) => [name, seconds - (threads.get(name) ?? 0)]),
  );
  const now = monotonicMs();
  const seconds = (now - cpuAt) / 1000;
  const engines = controller.engines();
  const seen = probe.take();
  const told = {
    ...seen,
    rssBytes: process.memoryUsage.rss(),
    busySeconds: (used.user + used.system) / 1e6,
    seconds,
    busyByThread,
    engines: engines.filter(({ connected }) => connected).length,
    settled: engines.filter(({ settled }) => settled).length,
    lost,
    problems,
  };
  // A picture of all engines takes a while, which is not to be in the next figures.
  begin();
  return told;
}

/** Without a picture of all engines, which would keep waiting what is measured next. */
function begin(): void {
  probe.take();
  cpu = process.cpuUsage();
  cpuAt = monotonicMs();
  threads = threadSeconds();
}

function tell(message: FromController): void {
  process.send?.(message);
}

process.on("message", (message: ToController) => {
  if (message === "collect") globalThis.gc?.();
  else if (message === "begin") begin();
  else if (message === "unwatch") {
    probe.uninstall();
    begin();
  } else if (message === "exit") {
    void controller.close().finally(() => process.exit(0));
  } else if (message === "figures") tell({ type: "figures", figures: figures() });
  else void profiled(message.profiled);
});
const { port } = server.address() as AddressInfo;
tell({ type: "listening", endpoint: controller.endpoint, http: `http://127.0.0.1:${port}` });

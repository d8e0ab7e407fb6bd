/**
 * Two replicas of the example gateway, one of which embeds the controller, and an engine that knows
 * both. The embedding one is killed under load: how long until the other has the engine, and what
 * became of the requests. Clients of the killed one send again to the other, as those behind a load
 * balancer do; clients of the other one never do.
 *
 * Hypothesis: it takes at most three heartbeats and what a controller takes to start, and no request
 * is lost. Refuted by a round that took longer, or by a request without a whole answer.
 *
 *   npm run bench:takeover        prints each round, writes bench/results/takeover.json
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePort } from "../src/bench/engine-command.ts";
import { createController } from "../src/controller/controller.ts";
import { createHttpServer } from "../src/http/server.ts";
import { startSimulatedServer } from "../src/testing.ts";
import { workerPython } from "./lib/worker-python.ts";

const ROUNDS = 5;
/** The default of controllers and engines. */
const HEARTBEAT_SECONDS = 1;
const CLIENTS = 20;
const TOKENS = 16;
const POLL_MS = 10;
const WAIT_SECONDS_MAX = 60;
/** Of load before the kill, and after the takeover. */
const LOAD_MS = 1_000;
const ROOT = fileURLToPath(new URL("..", import.meta.url));

interface Replica {
  readonly child: ChildProcess;
  readonly url: string;
}

async function startReplica(
  place: number,
  { engine, endpoint, http, peer }: Record<"engine" | "endpoint" | "http" | "peer", string>,
): Promise<Replica> {
  const child = spawn(process.execPath, ["--import", "tsx", "examples/gateway/src/main.ts"], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...process.env,
      ...{ LISTEN: "127.0.0.1:0", ENGINES: `engine-0=${engine}`, LAZYGRAPH_ENDPOINT: endpoint },
      ...{ PEERS: peer, CONTROL_LISTEN: http, PLACE: String(place) },
    },
  });
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  const [, url = ""] = /at (\S+);/.exec(line) ?? [];
  return { child, url };
}

/** The plugin's own code in a process of its own, without vLLM. */
function startEngine(endpoints: string): ChildProcess {
  const script = `${ROOT}/worker/tests/engine_process.py`;
  const args = [script, "--endpoint", endpoints, "--engine", "engine-0"];
  const env = { ...process.env, PYTHONPATH: `${ROOT}/worker/src` };
  return spawn(workerPython(), args, { env, stdio: ["pipe", "ignore", "inherit"] });
}

/** Whether the controller behind this HTTP side has the engine, connected. */
async function hasEngine(http: string): Promise<boolean> {
  const answer = await fetch(`http://${http}/v1/engines`).catch(() => undefined);
  const { engines = [] } = ((await answer?.json().catch(() => undefined)) ?? {}) as {
    engines?: readonly { connected: boolean }[];
  };
  return engines.some(({ connected }) => connected);
}

async function until(holds: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + WAIT_SECONDS_MAX * 1000;
  while (!(await holds())) {
    if (performance.now() > deadline) {
      throw new Error(`Expected ${what} within ${WAIT_SECONDS_MAX} s, got nothing.`);
    }
    await sleep(POLL_MS);
  }
}

interface Counts {
  whole: number;
  sentAgain: number;
  lost: number;
}

async function isWhole(url: string, model: string): Promise<boolean> {
  const body = { model, prompt: "x", max_tokens: TOKENS, ignore_eos: true, stream: true };
  const headers = { "content-type": "application/json" };
  const post = { method: "POST", headers, body: JSON.stringify(body) };
  const text = await fetch(`${url}/v1/completions`, post)
    .then((response) => response.text())
    .catch(() => "");
  return text.trimEnd().endsWith("data: [DONE]");
}

/** One request after the other until stopped. @param other where to send again, once */
async function client(
  { urls: [url, other], model, signal }: LoadOptions,
  counts: Counts,
): Promise<void> {
  while (!signal.aborted) {
    if (await isWhole(url, model)) counts.whole++;
    else if (other === undefined) counts.lost++;
    else {
      counts.sentAgain++;
      if (await isWhole(other, model)) counts.whole++;
      else counts.lost++;
    }
  }
}

interface LoadOptions {
  readonly urls: readonly [string, string?];
  readonly model: string;
  readonly signal: AbortSignal;
}

async function load(options: LoadOptions): Promise<Counts> {
  const counts: Counts = { whole: 0, sentAgain: 0, lost: 0 };
  await Promise.all(Array.from({ length: CLIENTS }, () => client(options, counts)));
  return counts;
}

/** What a controller with its HTTP side takes to open. */
async function startSeconds(): Promise<number> {
  const startedAt = performance.now();
  const controller = createController({ plan: false });
  const server = createHttpServer(controller);
  await controller.start();
  await once(server.listen(0, "127.0.0.1"), "listening");
  const seconds = (performance.now() - startedAt) / 1000;
  server.close();
  await controller.close();
  return seconds;
}

async function round() {
  const server = await startSimulatedServer({ speed: 1 });
  await server.ready;
  const ports = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
  const [endpointA, endpointB] = ports.slice(0, 2).map((port) => `tcp://127.0.0.1:${port}`);
  const [httpA = "", httpB = ""] = ports.slice(2).map((port) => `127.0.0.1:${port}`);
  const replica = (place: number, endpoint = "", http: string, peer: string) =>
    startReplica(place, { engine: server.url, endpoint, http, peer: `http://${peer}` });
  const first = await replica(0, endpointA, httpA, httpB);
  await until(
    async () => (await fetch(`http://${httpA}/healthz`).catch(() => undefined))?.ok === true,
    "a controller",
  );
  const second = await replica(1, endpointB, httpB, httpA);
  const engine = startEngine(`${endpointA},${endpointB}`);
  const stop = new AbortController();
  try {
    await until(() => hasEngine(httpA), "the engine at the first controller");
    const { model } = server;
    const ready = (url: string) => async () => (await fetch(`${url}/readyz`)).ok;
    await until(ready(first.url), "the first gateway ready");
    await until(ready(second.url), "the second gateway ready");
    const ofFirst = load({ urls: [first.url, second.url], model, signal: stop.signal });
    const ofSecond = load({ urls: [second.url], model, signal: stop.signal });
    await sleep(LOAD_MS);
    first.child.kill("SIGKILL");
    const killedAt = performance.now();
    await until(() => hasEngine(httpB), "the engine at the second controller");
    const seconds = (performance.now() - killedAt) / 1000;
    await sleep(LOAD_MS);
    stop.abort();
    return { seconds, ofKilled: await ofFirst, ofOther: await ofSecond };
  } finally {
    stop.abort();
    first.child.kill("SIGKILL");
    second.child.kill("SIGTERM");
    engine.kill("SIGKILL");
    await server.close();
  }
}

const start = await startSeconds();
const rounds = [];
for (let index = 0; index < ROUNDS; index++) {
  const found = await round();
  rounds.push(found);
  console.log(`round ${index + 1}: ${found.seconds.toFixed(2)} s, ${JSON.stringify(found)}`);
}
const limit = 3 * HEARTBEAT_SECONDS + start;
const lost = rounds.reduce((sum, { ofKilled, ofOther }) => sum + ofKilled.lost + ofOther.lost, 0);
const result = {
  what: "seconds from the kill of the embedding replica until the other one has its engine; requests of both replicas' clients",
  heartbeatSeconds: HEARTBEAT_SECONDS,
  startSeconds: start,
  rounds,
};
console.log(`at most ${limit.toFixed(2)} s; ${lost} requests lost`);
const target = new URL("results/takeover.json", import.meta.url);
await writeFile(target, `${JSON.stringify(result, null, 1)}\n`);
process.exitCode = lost === 0 && rounds.every(({ seconds }) => seconds <= limit) ? 0 : 1;

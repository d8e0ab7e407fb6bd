/**
 * Five hundred streams under way when the example gateway is told to stop, installed and started as
 * people start it: by `npm start`, through npm and its shell, and as process 1 of a container's own
 * process namespace, as an image has it.
 *
 * Hypothesis: none is cut off, and the gateway ends with 0. Refuted by a stream without its last
 * event, or another exit code. Exit code 1 then.
 *
 *   npm run bench:drain        prints the counts, writes bench/results/drain.json
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { startSimulatedServer } from "../src/testing.ts";
import { linkPacked, ROOT } from "../test/package/packed.ts";

const STREAMS = 500;
const TOKENS = 60;
const DRAIN_SECONDS = 90;
const NODE = [process.execPath, "--import", "tsx", "src/main.ts"] as const;

interface Way {
  readonly name: string;
  readonly command: readonly string[];
  /** Whom the signal goes to: the process itself, or what `unshare` has started in its place. */
  readonly target: (child: ChildProcess) => Promise<number>;
}

const WAYS: readonly Way[] = [
  { name: "npm start", command: ["npm", "start"], target: async ({ pid = 0 }) => pid },
  {
    name: "process 1",
    command: ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", ...NODE],
    target: processOne,
  },
];

async function processOne({ pid = 0 }: ChildProcess): Promise<number> {
  const [child = ""] = (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).split(" ");
  const status = await readFile(`/proc/${child}/status`, "utf8");
  const [, inside] = /^NSpid:.*\t(\d+)$/m.exec(status) ?? [];
  if (inside !== "1") throw new Error(`Expected process 1 of its namespace, got ${inside}.`);
  return Number(child);
}

/** "whole" once a stream has ended with its last event; what it came to otherwise. */
async function read(url: string, model: string, onFirst: () => void): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, prompt: "x", max_tokens: TOKENS, stream: true }),
  });
  let text = "";
  try {
    for await (const chunk of response.body ?? []) {
      if (text === "") onFirst();
      text += Buffer.from(chunk as Uint8Array).toString();
    }
  } catch (error) {
    return `cut off: ${error}`;
  }
  return text.trimEnd().endsWith("data: [DONE]") ? "whole" : `ended with ${text.slice(-80)}`;
}

async function drain({ name, command, target }: Way, folder: string) {
  const engine = await startSimulatedServer({ speed: 1, requestsMax: STREAMS });
  await engine.ready;
  const [program = "", ...args] = command;
  const child = spawn(program, args, {
    cwd: folder,
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...process.env,
      ...{ LISTEN: "127.0.0.1:0", ENGINES: `a=${engine.url}`, DRAIN_SECONDS: `${DRAIN_SECONDS}` },
      LAZYGRAPH_ENDPOINT: "tcp://127.0.0.1:0",
    },
  });
  let url: string | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    [url] = /http:\/\/\S+(?=;)/.exec(line) ?? [];
    if (url !== undefined) break;
  }
  if (url === undefined) throw new Error(`Expected ${name} to say where it listens.`);
  const own = url;
  child.stdout.resume();
  while (!(await fetch(`${own}/readyz`)).ok) await new Promise((done) => setTimeout(done, 20));
  let started = 0;
  let allStarted: () => void = () => undefined;
  const everyStream = new Promise<void>((resolve) => {
    allStarted = resolve;
  });
  const streams = Array.from({ length: STREAMS }, () =>
    read(own, engine.model, () => {
      if (++started === STREAMS) allStarted();
    }),
  );
  await everyStream;
  const ended = once(child, "close");
  const toldAt = performance.now();
  process.kill(await target(child), "SIGTERM");
  const ends = await Promise.all(streams);
  const [code] = (await ended) as [number | null];
  const seconds = (performance.now() - toldAt) / 1000;
  await engine.close();
  const whole = ends.filter((end) => end === "whole").length;
  return { name, streams: STREAMS, whole, code, seconds, limitSeconds: DRAIN_SECONDS };
}

const folder = await mkdtemp(join(tmpdir(), "lazygraph-drain-"));
await cp(join(ROOT, "examples", "gateway"), folder, { recursive: true });
await linkPacked(folder);
const ways = [];
for (const way of WAYS) {
  const found = await drain(way, folder);
  ways.push(found);
  console.log(`${found.name}: ${found.whole} of ${STREAMS} whole, exit code ${found.code}`);
}
await rm(folder, { recursive: true });
const result = { what: "streams under way at SIGTERM that ended with their last event", ways };
const file = new URL("results/drain.json", import.meta.url);
await writeFile(file, `${JSON.stringify(result, null, 1)}\n`);
process.exitCode = ways.every(({ whole, code }) => whole === STREAMS && code === 0) ? 0 : 1;

/**
 * What a streamed token costs a load generator in processor time: this package's, the same of an
 * earlier commit, `vllm bench serve`, AIPerf, and a bare loop that only reads the same sockets. A
 * hundred streams of a hundred tokens a second come from one server. Each client runs with short
 * and with long answers, all clients in turns, so that whatever else the machine does falls on all.
 * The median of the rounds counts; what the long answers cost more is divided by the tokens that
 * they have more: start-up and imports are in neither. Intervals are bootstrapped over rounds.
 *
 * Hypotheses: ours is at most 0.6 of the earlier one's, 0.55 of vLLM's and 1.5 times the bare
 * loop's. Refuted by a ratio above that; exit code 1 then. What wasn't given is not judged, and the
 * table says so.
 *
 *   BEFORE=…/dist/cli/main.js VLLM=…/bin/vllm AIPERF=…/bin/aiperf TOKENIZER=… npm run bench:client
 *     prints the table, writes bench/results/client.json
 *
 * TOKENIZER is a folder with a tokenizer for the last two, which make their prompts with it.
 */

import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type ClientRounds, type Measured, microsOf, ratioOf } from "./lib/client-cost.ts";

const ROUNDS = Number(process.env["ROUNDS"] ?? 7);
const STREAMS = 100;
const SHORT_TOKENS = 100;
/** So many more that starts, which differ by a tenth of a second, don't count. */
const LONG_TOKENS = 1_600;
const TOKENS_PER_SECOND = 100;
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TSX = ["--import", "tsx"];

interface Client {
  readonly name: string;
  /** Undefined: it can't be run here. */
  readonly command: ((tokens: number, folder: string) => readonly string[]) | undefined;
  /** What ours may cost at most, as a share of this one's. */
  readonly ratioMax?: number;
}

async function startServer(): Promise<{ child: ChildProcess; port: number }> {
  const file = fileURLToPath(new URL("lib/token-server.ts", import.meta.url));
  const child = fork(file, { execArgv: TSX });
  const [{ port }] = (await once(child, "message")) as [{ port: number }];
  return { child, port };
}

function lazygraph(main: string, port: number): Client["command"] {
  return (tokens, folder) => [
    ...[process.execPath, main, "bench", "--url", `http://127.0.0.1:${port}`],
    ...["--arrivals", "constant", "--request-rate", "1000", "--num-prompts", String(STREAMS)],
    ...["--input-len", "16", "--output-len", String(tokens), "--no-report", "--quiet"],
    ...["--out", folder],
  ];
}

function vllm(port: number): Client["command"] {
  const { VLLM: program, TOKENIZER: tokenizer } = process.env;
  if (program === undefined || tokenizer === undefined) return undefined;
  return (tokens) => [
    ...[program, "bench", "serve", "--backend", "openai", "--model", "m"],
    ...["--base-url", `http://127.0.0.1:${port}`, "--endpoint", "/v1/completions"],
    ...["--tokenizer", tokenizer, "--dataset-name", "random", "--random-input-len", "16"],
    ...["--random-output-len", String(tokens), "--num-prompts", String(STREAMS)],
    ...["--request-rate", "1000", "--ignore-eos", "--disable-tqdm"],
  ];
}

function aiperf(port: number): Client["command"] {
  const { AIPERF: program, TOKENIZER: tokenizer } = process.env;
  if (program === undefined || tokenizer === undefined) return undefined;
  return (tokens, folder) => [
    ...[program, "profile", "--model", "m", "--url", `http://127.0.0.1:${port}`],
    ...["--endpoint-type", "completions", "--streaming", "--tokenizer", tokenizer],
    ...["--synthetic-input-tokens-mean", "16", "--output-tokens-mean", String(tokens)],
    ...["--request-count", String(STREAMS), "--concurrency", String(STREAMS)],
    ...["--ui", "none", "--output-artifact-dir", folder],
  ];
}

function clients(port: number): Client[] {
  const before = process.env["BEFORE"];
  const bare = fileURLToPath(new URL("lib/bare-client.ts", import.meta.url));
  return [
    { name: "lazygraph bench", command: lazygraph(join(ROOT, "dist/cli/main.js"), port) },
    {
      name: "the same before",
      command: before === undefined ? undefined : lazygraph(before, port),
      ratioMax: 0.6,
    },
    { name: "vllm bench serve", command: vllm(port), ratioMax: 0.55 },
    { name: "AIPerf", command: aiperf(port) },
    {
      name: "bare loop",
      command: (tokens) => {
        const sizes = [port, STREAMS, tokens].map(String);
        return [process.execPath, ...TSX, bare, ...sizes];
      },
      ratioMax: 1.5,
    },
  ];
}

/** Processor seconds, user's and system's, of a command and all that it starts. */
async function cpuSeconds(command: readonly string[]): Promise<number> {
  // The shell's own word for what its children took, to the millisecond.
  const script = '"$@" >/dev/null || exit 1; times';
  const child = spawn("bash", ["-c", script, "bash", ...command], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", process.env["VERBOSE"] === "1" ? "inherit" : "ignore"],
    env: { ...process.env, VLLM_TARGET_DEVICE: "empty" },
  });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  const [code] = (await once(child, "close")) as [number];
  const children = text.trim().split("\n").at(-1) ?? "";
  const parts = [...children.matchAll(/(\d+)m([\d.]+)s/g)];
  if (code !== 0 || parts.length !== 2) throw new Error(`Failed: ${command.join(" ")}: ${text}`);
  return parts.reduce(
    (sum, [, minutes, seconds]) => sum + Number(minutes) * 60 + Number(seconds),
    0,
  );
}

/** Of a run with answers of so many tokens. */
async function costOf(command: NonNullable<Client["command"]>, tokens: number): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), "client-bench-"));
  try {
    return await cpuSeconds(command(tokens, folder));
  } finally {
    await rm(folder, { recursive: true });
  }
}

interface Row extends ClientRounds {
  readonly name: string;
  /** Undefined: it wasn't run. */
  readonly micros: Measured | undefined;
  readonly ratio?: Measured;
  readonly ratioMax?: number;
  readonly holds?: boolean;
}

const [loadAtStart] = loadavg();
const server = await startServer();
const measured = clients(server.port).map((client) => {
  return { ...client, shortSeconds: [] as number[], longSeconds: [] as number[] };
});
for (let round = 0; round < ROUNDS; round++) {
  // In turns, so that whatever else the machine does falls on all.
  for (const { command, shortSeconds, longSeconds, name } of measured) {
    if (command === undefined) continue;
    shortSeconds.push(await costOf(command, SHORT_TOKENS));
    longSeconds.push(await costOf(command, LONG_TOKENS));
    const told = [shortSeconds, longSeconds].map((list) => list.at(-1)?.toFixed(2));
    console.error(`round ${round + 1}, ${name}: ${told.join(" and ")} s`);
  }
}
server.child.disconnect();

const [own] = measured;
const tokens = STREAMS * (LONG_TOKENS - SHORT_TOKENS);
const rows = measured.map(({ name, shortSeconds, longSeconds, ratioMax }): Row => {
  const row = { name, shortSeconds, longSeconds };
  if (longSeconds.length === 0 || own === undefined) return { ...row, micros: undefined };
  const micros = microsOf(row, tokens);
  if (name === own.name) return { ...row, micros };
  const ratio = ratioOf(own, row);
  return ratioMax === undefined
    ? { ...row, micros, ratio }
    : { ...row, micros, ratio, ratioMax, holds: ratio.value <= ratioMax };
});

function text({ value, low, high }: Measured, digits: number): string {
  const [told, from, to] = [value, low, high].map((figure) => figure.toFixed(digits));
  return `${told} (${from}–${to})`;
}

console.log("| client | µs a streamed token | streams a core | ours over it | at most |");
console.log("|---|--:|--:|--:|--:|");
for (const { name, micros, ratio, ratioMax } of rows) {
  const cells =
    micros === undefined
      ? ["not given", "", "", ""]
      : [
          text(micros, 1),
          String(Math.floor(1e6 / micros.value / TOKENS_PER_SECOND)),
          ratio === undefined ? "" : text(ratio, 2),
          String(ratioMax ?? ""),
        ];
  console.log(`| ${[name, ...cells].join(" | ")} |`);
}
const result = {
  what: `processor microseconds a streamed token, ${STREAMS} streams of ${TOKENS_PER_SECOND} a second`,
  host: { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version, loadAtStart },
  shortTokens: SHORT_TOKENS,
  longTokens: LONG_TOKENS,
  rows,
};
const file = new URL("results/client.json", import.meta.url);
await writeFile(file, `${JSON.stringify(result, null, 2)}\n`);
process.exitCode = rows.every(({ holds }) => holds !== false) ? 0 : 1;

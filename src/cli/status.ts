/** `lazygraph status`: what a running controller knows, over its HTTP side. */

import { setTimeout as sleep } from "node:timers/promises";
import { LazygraphError, messageOf } from "../base/errors.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { errorLine, usageError } from "./errors.ts";
import { parseOptions } from "./options.ts";
import { stopSignal } from "./stop-signal.ts";
import { enginesTable, graphsTable } from "./table.ts";

const TIMEOUT_MS = 5_000;
const WATCH_MS = 1_000;
/** The cursor to the top left, and everything after it cleared. */
const CLEAR_SCREEN = "\u001b[H\u001b[J";

const HELP = `Usage: lazygraph status [options]

What a running controller (lazygraph serve, or lazygraph run --http) knows of its engines.

Options:
  --url URL      the controller's HTTP side (default http://127.0.0.1:7480)
  --engine NAME  only this engine, with one row per graph
  --watch        shows it again every second until interrupted, also while no controller answers
  --json         the whole document on stdout; with --watch a line whenever it changes
  --help, -h     this text

Examples:
  lazygraph status
  lazygraph status --watch
  lazygraph status --url http://gateway-0:7480 --json | jq '.engines[].graphs[].id'
`;

export async function runStatus(argv: readonly string[]): Promise<number> {
  const options = parseOptions(argv, {
    url: "string",
    engine: "string",
    watch: "boolean",
    json: "boolean",
  });
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const url = urlOption(options.strings.get("url") ?? "http://127.0.0.1:7480");
  const name = options.strings.get("engine");
  const look = (): Promise<string> => picture(url, name, options.flags.has("json"));
  if (options.flags.has("watch")) await watch(look);
  else process.stdout.write(`${await look()}\n`);
  return 0;
}

async function picture(url: URL, name: string | undefined, asJson: boolean): Promise<string> {
  const path = name === undefined ? "v1/engines" : `v1/engines/${encodeURIComponent(name)}`;
  const body = await get(new URL(path, url));
  const engines = name === undefined && "engines" in body ? body.engines : [body];
  if (!Array.isArray(engines) || !engines.every(isSnapshot)) {
    throw unreachable(url, "an answer that is no controller's");
  }
  return asJson ? JSON.stringify(body) : describe(engines, name !== undefined);
}

/** Redraws a terminal; elsewhere it prints what has changed, so that a log doesn't fill up. */
async function watch(look: () => Promise<string>): Promise<void> {
  const stopped = new AbortController();
  void stopSignal().then(() => stopped.abort());
  let last = "";
  while (!stopped.signal.aborted) {
    // A controller that is restarted meanwhile is no reason to stop looking.
    const text = await look().catch((error: unknown) => errorLine(error));
    if (process.stdout.isTTY) process.stdout.write(`${CLEAR_SCREEN}${text}\n`);
    else if (text !== last) process.stdout.write(`${text}\n`);
    last = text;
    await sleep(WATCH_MS, undefined, { signal: stopped.signal }).catch(() => undefined);
  }
}

/** Whether this is a controller's picture of an engine, as far as a stranger's answer would not be. */
function isSnapshot(value: unknown): value is EngineSnapshot {
  if (typeof value !== "object" || value === null) return false;
  const snapshot = value as Partial<EngineSnapshot>;
  const { engine, model, mode, phase, graphs, takenBytes, problems } = snapshot;
  const named = [engine, model, mode, phase].every((text) => typeof text === "string");
  const counted = typeof problems === "object" && problems !== null;
  return named && counted && Array.isArray(graphs) && typeof takenBytes === "number";
}

function describe(engines: readonly EngineSnapshot[], withGraphs: boolean): string {
  if (engines.length === 0) return "No engine has joined yet.";
  const graphs = withGraphs ? engines.map((engine) => graphsTable(engine.graphs)) : [];
  const columns = process.stdout.isTTY ? process.stdout.columns || 80 : Number.POSITIVE_INFINITY;
  return [enginesTable(engines, columns), ...graphs].join("\n");
}

function urlOption(value: string): URL {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw usageError("--url", "a URL such as http://127.0.0.1:7480", value);
  }
  // A path is kept as a prefix: the controller may sit behind a proxy.
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

async function get(url: URL): Promise<object> {
  let status: number;
  let text: string;
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    status = response.status;
    text = await response.text();
  } catch (cause) {
    throw unreachable(url, reasonOf(cause), cause);
  }
  const body = parseObject(text);
  if (status === 200 && body !== undefined) return body;
  const error = body !== undefined && "error" in body ? body.error : undefined;
  if (typeof error === "object" && error !== null && "message" in error && "code" in error) {
    if (error.code === "ERR_LAZYGRAPH_ENGINE_UNKNOWN") {
      throw new LazygraphError("ERR_LAZYGRAPH_ENGINE_UNKNOWN", String(error.message));
    }
  }
  throw unreachable(url, `HTTP status ${status}`);
}

function parseObject(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function unreachable(url: URL, reason: string, cause?: unknown): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE",
    `Expected a controller's HTTP side at ${url.origin}, got ${reason}: start \`lazygraph serve\` ` +
      "or name another one with --url.",
    { cause },
  );
}

/** `fetch failed` says nothing; its cause does. */
function reasonOf(error: unknown): string {
  if (error instanceof Error && error.name === "TimeoutError") {
    return `no answer within ${TIMEOUT_MS / 1000} s`;
  }
  const cause = error instanceof Error ? error.cause : undefined;
  if (cause instanceof Error) return "code" in cause ? String(cause.code) : cause.message;
  return messageOf(error);
}

/** `lazygraph status`: what a running controller knows, over its HTTP side. */

import { setTimeout as sleep } from "node:timers/promises";
import { controllerAdvice } from "../base/connection-advice.ts";
import { LazygraphError, OptionError } from "../base/errors.ts";
import { askFailure, askHttp } from "../base/http-ask.ts";
import { jsonObject } from "../base/parse-json.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { errorLine, usageError } from "./errors.ts";
import { readToken } from "./http-side.ts";
import { parseOptions } from "./options.ts";
import { stopSignal } from "./stop-signal.ts";
import { enginesTable, graphsTable } from "./table.ts";

const TIMEOUT_MS = 5_000;
const WATCH_MS = 1_000;
/** The cursor to the top left, and everything after it cleared. */
const CLEAR_SCREEN = "\u001b[H\u001b[J";

/** Refusals by a controller that is there. */
const PASSED_ON = ["ERR_LAZYGRAPH_ENGINE_UNKNOWN", "ERR_LAZYGRAPH_TOKEN"] as const;

const HELP = `Usage: lazygraph status [options]

What a running controller (lazygraph serve, or lazygraph run --http) knows of its engines.

Options:
  --url URL      the controller's HTTP side (default http://127.0.0.1:7480), or unix:PATH
  --token-file FILE  its token, where reading needs one (default: LAZYGRAPH_HTTP_TOKEN)
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
    "token-file": "string",
    engine: "string",
    watch: "boolean",
    json: "boolean",
  });
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const side = sideOption(options.strings.get("url") ?? "http://127.0.0.1:7480");
  const token = await readToken(options.strings.get("token-file"), process.env, "--token-file");
  const from: Source = { ...side, token };
  const name = options.strings.get("engine");
  const look = (signal?: AbortSignal): Promise<string> =>
    picture({ ...from, signal }, name, options.flags.has("json"));
  if (options.flags.has("watch")) await watch(look);
  else process.stdout.write(`${await look()}\n`);
  return 0;
}

/** Where the controller's HTTP side is, and what it wants to be told. */
interface Source {
  readonly url: URL;
  readonly shown: string;
  readonly socketPath: string | undefined;
  readonly token: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

async function picture(from: Source, name: string | undefined, asJson: boolean): Promise<string> {
  const path = name === undefined ? "v1/engines" : `v1/engines/${encodeURIComponent(name)}`;
  const body = await get(from, path);
  const engines = name === undefined && "engines" in body ? body.engines : [body];
  if (!Array.isArray(engines) || !engines.every(isSnapshot)) {
    throw unreachable(from, "an answer that is no controller's");
  }
  return asJson ? JSON.stringify(body) : describe(engines, name !== undefined);
}

/** Redraws a terminal; elsewhere it prints what has changed, so that a log doesn't fill up. */
async function watch(look: (signal: AbortSignal) => Promise<string>): Promise<void> {
  const stopped = new AbortController();
  const { signal } = stopped;
  void stopSignal().then(() => stopped.abort());
  // Whoever read it has gone (`status --watch | head -1`): nobody is shown anything any more.
  process.stdout.once("error", () => stopped.abort());
  let last = "";
  while (!signal.aborted) {
    // A controller that is restarted meanwhile is no reason to stop looking.
    const text = await look(signal).catch((error: unknown) => errorLine(error));
    if (signal.aborted) return;
    if (process.stdout.isTTY) process.stdout.write(`${CLEAR_SCREEN}${text}\n`);
    else if (text !== last) process.stdout.write(`${text}\n`);
    last = text;
    await sleep(WATCH_MS, undefined, { signal }).catch(() => undefined);
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
  const columns = process.stdout.isTTY ? process.stdout.columns || 80 : Number.POSITIVE_INFINITY;
  const graphs = withGraphs ? engines.map(({ graphs }) => graphsTable(graphs, columns)) : [];
  return [enginesTable(engines, columns), ...graphs].join("\n");
}

function sideOption(value: string): Omit<Source, "token"> {
  const socketPath = /^unix:(.+)$/s.exec(value)?.[1];
  if (socketPath !== undefined) {
    return { url: new URL("http://localhost/"), shown: value, socketPath };
  }
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw usageError("--url", "a URL such as http://127.0.0.1:7480, or unix:PATH", value);
  }
  if (url.username !== "" || url.password !== "") {
    // Not shown: a password is nobody's to read.
    const sentence = "Expected --url without user and password, got one with them: a token goes";
    throw new OptionError("--url", `${sentence} into --token-file.`);
  }
  // A path is kept as a prefix: the controller may sit behind a proxy.
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return { url, shown: url.origin, socketPath };
}

async function get(from: Source, path: string): Promise<object> {
  const { url, socketPath, token, signal } = from;
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const question = { headers, socketPath, signal, timeoutMs: TIMEOUT_MS };
  const { status, text } = await askHttp(new URL(path, url), question).catch((cause: unknown) => {
    throw unreachable(from, askFailure(cause), cause);
  });
  const body = jsonObject(text);
  if (status === 200 && body !== undefined) return body;
  const error = body !== undefined && "error" in body ? body.error : undefined;
  if (typeof error === "object" && error !== null && "message" in error && "code" in error) {
    const code = PASSED_ON.find((known) => known === error.code);
    if (code !== undefined) {
      // The controller's sentence is for whoever writes the request.
      const message = code === "ERR_LAZYGRAPH_TOKEN" ? tokenSentence(from) : String(error.message);
      throw new LazygraphError(code, message);
    }
  }
  throw unreachable(from, `HTTP status ${status}`, undefined, body);
}

function tokenSentence({ shown, token }: Source): string {
  const got = token === undefined ? "none" : "another one";
  return (
    `Expected the controller's token for ${shown}, got ${got}: give the one that it was started with ` +
    "by --token-file or LAZYGRAPH_HTTP_TOKEN."
  );
}

function unreachable(
  { shown, url }: Source,
  reason: string,
  cause?: unknown,
  answer?: object,
): LazygraphError {
  const other =
    "start `lazygraph serve`, give `lazygraph run` --http, or name another one with --url";
  return new LazygraphError(
    "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE",
    `Expected a controller's HTTP side at ${shown}, got ${reason}: ` +
      controllerAdvice(reason, url, other, answer),
    { cause },
  );
}

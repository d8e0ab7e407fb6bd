/**
 * One request to one engine, and its answer to the client: bytes unchanged as they come, with the
 * client's back-pressure on the engine, and the client's leaving ending the engine's work.
 */

import { once } from "node:events";
import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import type { RecordedRequest } from "lazygraph";
import { type Answer, type AnswerReader, isEventStream } from "lazygraph/measure";
import type { Dispatcher } from "undici";
import type { Engine } from "./engine.ts";
import { DROPPED } from "./headers.ts";
import { errorDocument, errorEvent, WholeEvents } from "./sse.ts";
import { Turned } from "./waiting-room.ts";
import { type Outcome, readerOf, textOf } from "./watching.ts";

const RETRY_AFTER_SECONDS = 5;

export interface Exchange {
  readonly engine: Engine;
  readonly method: string;
  /** Path and query, as the client sent them. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly outgoing: ServerResponse;
  readonly firstByteSeconds: number;
  /** Aborted when the client leaves, or the gateway's time to drain is over. */
  readonly signal: AbortSignal;
  readonly recorded: RecordedRequest | undefined;
  /** Of a request that makes an engine generate: what its answer came to, once it is over. */
  readonly onAnswer: ((answer: Answer) => void) | undefined;
}

interface Progress {
  late: boolean;
  /** What is sent to the client can be followed by an event of our own. */
  isStream: boolean;
  reader: AnswerReader | undefined;
}

export async function exchange(its: Exchange): Promise<Outcome> {
  const { engine, outgoing } = its;
  const limit = new AbortController();
  const leave = (): void => limit.abort(its.signal.reason);
  its.signal.addEventListener("abort", leave, { once: true });
  const progress: Progress = { late: false, isStream: false, reader: undefined };
  const timer = setTimeout(() => {
    progress.late = true;
    limit.abort();
  }, its.firstByteSeconds * 1000);
  engine.inFlight += 1;
  try {
    its.signal.throwIfAborted();
    const answer = await ask(its, limit.signal);
    const { statusCode: status, headers } = answer;
    its.recorded?.answer({ status, headers });
    const encoded = headers["content-encoding"] !== undefined;
    progress.isStream = isEventStream(textOf(headers["content-type"])) && !encoded;
    if (status === 200 && its.onAnswer) progress.reader = readerOf(headers);
    await passBack(its, answer, progress, limit.signal, () => clearTimeout(timer));
    if (its.onAnswer) progress.reader?.end(its.onAnswer);
    return "done";
  } catch (error) {
    if (its.signal.aborted && outgoing.destroyed) return "left";
    return fail(its, progress, error);
  } finally {
    clearTimeout(timer);
    its.signal.removeEventListener("abort", leave);
    engine.inFlight -= 1;
  }
}

/** Sent again once if it went out on an idle connection that its engine closed just then. */
async function ask(
  { engine: { pool, server }, method, path, headers, body }: Exchange,
  signal: AbortSignal,
): Promise<Dispatcher.ResponseData> {
  const request = {
    method: method as Dispatcher.HttpMethod,
    path: server.path(path),
    headers: { ...server.headers, ...kept(headers) },
    body: body.length === 0 ? null : body,
    signal,
  };
  const onIdle = pool.stats.free > 0;
  try {
    return await pool.request(request);
  } catch (error) {
    if (!onIdle || !isClosed(error) || signal.aborted) throw error;
    return pool.request(request);
  }
}

function isClosed(error: unknown): boolean {
  const { code } = error as { readonly code?: unknown };
  return ["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"].some((known) => known === code);
}

async function passBack(
  { outgoing, recorded }: Exchange,
  { statusCode, headers, body }: Dispatcher.ResponseData,
  { isStream, reader }: Progress,
  signal: AbortSignal,
  onFirstByte: () => void,
): Promise<void> {
  const events = isStream ? new WholeEvents() : undefined;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    onFirstByte();
    // The head goes out with the first byte: until then another answer is still possible.
    if (!outgoing.headersSent) outgoing.writeHead(statusCode, keptBack(headers));
    recorded?.chunk(chunk);
    reader?.push(chunk, performance.now());
    const bytes = events === undefined ? chunk : events.push(chunk);
    if (bytes.length > 0 && !outgoing.write(bytes)) await once(outgoing, "drain", { signal });
  }
  onFirstByte();
  if (!outgoing.headersSent) outgoing.writeHead(statusCode, keptBack(headers));
  outgoing.end(events?.rest());
}

/** Tells the client what went wrong, as far as that is still possible. */
function fail(
  { engine, outgoing, signal, onAnswer }: Exchange,
  progress: Progress,
  error: unknown,
): Outcome {
  const why = signal.aborted ? signal.reason : error;
  const text = why instanceof Error ? why.message : String(why);
  if (onAnswer) progress.reader?.end(onAnswer, text);
  if (outgoing.headersSent) {
    const message = `The stream of ${engine.name} broke off: ${text}.`;
    const event = errorEvent(errorDocument(502, "upstream_error", message));
    // Only a stream has room for an error after its head; any other body must lack its end.
    if (progress.isStream) outgoing.end(event);
    else outgoing.destroy();
    return signal.aborted ? "stopped" : "broken";
  }
  if (signal.aborted) {
    refuse(outgoing, 503, "service_unavailable", `No answer from ${engine.name}: ${text}.`);
    return "stopped";
  }
  if (progress.late) {
    refuse(outgoing, 504, "timeout", `${engine.name} sent no first byte in time.`);
    return "timeout";
  }
  return "unreachable";
}

export function refuse(
  outgoing: ServerResponse,
  status: number,
  type: string,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  const text = JSON.stringify(errorDocument(status, type, message));
  outgoing.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    ...headers,
  });
  outgoing.end(text);
}

/** The answer to a request that no engine had, as far as that is still possible. */
export function turnAway(outgoing: ServerResponse, error: unknown): void {
  if (outgoing.headersSent || outgoing.destroyed) return;
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof Turned) {
    const retry = { "retry-after": String(RETRY_AFTER_SECONDS) };
    const text = `${message} See /readyz for each engine's phase.`;
    refuse(outgoing, 503, "service_unavailable", text, retry);
  } else refuse(outgoing, 500, "internal_error", message);
}

/** Without the dropped ones, and without those that `Connection` names. */
function kept(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const options = String(headers.connection ?? "").toLowerCase();
  const named = new Set(options.split(/[\s,]+/));
  const isKept = ([name]: [string, unknown]) => !DROPPED.has(name) && !named.has(name);
  return Object.fromEntries(Object.entries(headers).filter(isKept));
}

function keptBack(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const length = headers["content-length"];
  return { ...kept(headers), ...(length === undefined ? {} : { "content-length": length }) };
}

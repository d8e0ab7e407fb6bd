/**
 * Requests straight to a server over HTTP/1.1, whose answers' bytes are handed on as the socket has
 * them. A token that comes alone costs Node's client and undici more on its way from the socket than
 * a load generator does with it. The grammar is http-parser-js's.
 */

import { connect as connectPlain, type Socket } from "node:net";
import { connect as connectSecure } from "node:tls";
import { HTTPParser } from "http-parser-js";
import { type ChunkPlace, findWholeChunk } from "./whole-chunk.ts";

export interface ByteRequest {
  /** Scheme, host and port. */
  readonly origin: string;
  /** Path and query. */
  readonly path: string;
  readonly method: "POST";
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** On a connection of its own, where an idle one was found closed. */
  readonly fresh?: boolean;
}

export interface RequestControl {
  /** It went out on a connection that had been idle; undefined where that isn't known. */
  readonly reused?: boolean;
  /** Ends it; its handler is told of an error. */
  abort(reason: Error): void;
}

/** The part of undici's `DispatchHandler` that is needed: either can carry a request. */
export interface ByteHandler {
  onRequestStart(control: RequestControl): void;
  onResponseStart(
    control: RequestControl,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
  ): void;
  /**
   * The bytes are of no use after this call: who keeps them copies them.
   *
   * @param from where the answer's bytes lie in them; all of them are its without
   */
  onResponseData(control: RequestControl, bytes: Buffer, from?: number, to?: number): void;
  onResponseEnd(control: RequestControl, trailers: object): void;
  /** Once, and nothing after it. */
  onResponseError(control: RequestControl, error: Error): void;
}

/** Servers close a connection that is idle for some seconds: ours is not used for that long. */
const IDLE_MS_MAX = 2_000;
const IDLE_MAX = 4_096;
/**
 * What plain sockets are read into, one after the other: all is handed on before the next one reads,
 * and who keeps bytes copies them. It spares a stream and a buffer for each token.
 */
const RECEIVED: Buffer = Buffer.allocUnsafeSlow(1 << 16);
/** Of the read under way: reads don't overlap. */
const PLACE: ChunkPlace = { from: 0, to: 0, next: 0 };

/**
 * Idle connections by origin. There is no limit on those in use: a pool that makes late arrivals
 * wait would hide what it measures.
 */
const idle = new Map<string, Connection[]>();

export function dispatchDirect(request: ByteRequest, handler: ByteHandler): void {
  const { origin, fresh } = request;
  const kept = fresh === true ? undefined : idle.get(origin)?.pop();
  const connection = kept ?? new Connection(origin);
  connection.send(request, handler);
}

function keep(origin: string, connection: Connection): boolean {
  const own = idle.get(origin) ?? [];
  if (own.length >= IDLE_MAX) return false;
  idle.set(origin, [...own, connection]);
  return true;
}

function forget(origin: string, connection: Connection): void {
  const left = (idle.get(origin) ?? []).filter((other) => other !== connection);
  if (left.length === 0) idle.delete(origin);
  else idle.set(origin, left);
}

interface ResponseHead {
  readonly statusCode: number;
  /** Names and values in turns. */
  readonly headers: readonly string[];
  readonly shouldKeepAlive: boolean;
}

/**
 * What the parser waits for, and what it has of a line. Its types leave both out: if it had them no
 * more, everything would go through it.
 */
interface ParserPlace {
  readonly state: string;
  readonly line: string;
}

/** One socket and its parser; one request at a time. */
class Connection implements RequestControl {
  readonly #origin: string;
  readonly #socket: Socket;
  readonly #parser = new HTTPParser(HTTPParser.RESPONSE);
  reused = false;
  #handler: ByteHandler | undefined;
  #keepsAlive = false;
  /** A head of status 1xx, which another one follows. */
  #isInterim = false;
  #error: Error | undefined;

  constructor(origin: string) {
    this.#origin = origin;
    const url = new URL(origin);
    const host = url.hostname.replace(/^\[|\]$/g, "");
    const secure = url.protocol === "https:";
    const port = Number(url.port) || (secure ? 443 : 80);
    const options = { host, port, noDelay: true };
    // RFC 6066 allows no address as a server's name.
    const servername = /^[\d.]+$|:/.test(host) ? "" : host;
    this.#socket = secure
      ? connectSecure({ ...options, servername })
      : connectPlain({ ...options, onread: { buffer: RECEIVED, callback: this.#onRead } });
    if (secure) this.#socket.on("data", (bytes: Buffer) => this.#received(bytes, bytes.length));
    this.#listen();
  }

  send({ origin, path, method, headers, body }: ByteRequest, handler: ByteHandler): void {
    this.#handler = handler;
    this.#socket.setTimeout(0).ref();
    const fields = {
      host: new URL(origin).host,
      ...headers,
      "content-length": String(Buffer.byteLength(body)),
    };
    const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
    // Header values are bytes; what a body has is UTF-8.
    this.#socket.write(`${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n`, "latin1");
    this.#socket.write(body);
    handler.onRequestStart(this);
  }

  abort(reason: Error): void {
    this.#error ??= reason;
    this.#socket.destroy();
  }

  #listen(): void {
    const socket = this.#socket;
    socket.on("error", (error) => {
      this.#error ??= error;
    });
    // Of an answer without a length the end of the connection is its end.
    socket.on("end", () => this.#parser.finish());
    socket.on("timeout", () => socket.destroy());
    socket.on("close", () => this.#closed());
    const parser = this.#parser;
    parser[HTTPParser.kOnHeadersComplete] = this.#onHead;
    parser[HTTPParser.kOnBody] = this.#onBody;
    parser[HTTPParser.kOnMessageComplete] = this.#onEnd;
  }

  readonly #onRead = (length: number): boolean => {
    this.#received(RECEIVED, length);
    return true;
  };

  #received(bytes: Buffer, end: number): void {
    if (this.#handler === undefined) {
      // Nothing was asked: it says why it closes, and must not be taken for the next answer.
      this.#socket.destroy();
      return;
    }
    const at = this.#passWholeChunks(bytes, end);
    if (at === end) return;
    const result: unknown = this.#parser.execute(bytes, at, end - at);
    if (result instanceof Error) this.abort(result);
  }

  /** Hands on what needs no parser. @returns where the rest begins */
  #passWholeChunks(bytes: Buffer, end: number): number {
    const { state, line } = this.#parser as Partial<ParserPlace>;
    let at = 0;
    if (state !== "BODY_CHUNKHEAD" || line !== "") return at;
    while (at < end && this.#error === undefined && findWholeChunk(bytes, at, end, PLACE)) {
      at = PLACE.next;
      this.#handler?.onResponseData(this, bytes, PLACE.from, PLACE.to);
    }
    return at;
  }

  readonly #onHead = ({ statusCode, headers, shouldKeepAlive }: ResponseHead): number => {
    this.#isInterim = statusCode < 200;
    this.#keepsAlive = shouldKeepAlive;
    if (!this.#isInterim) {
      this.#handler?.onResponseStart(this, statusCode, namesAndValues(headers));
    }
    // These have no body, whatever their heads say.
    return this.#isInterim || statusCode === 204 || statusCode === 304 ? 1 : 0;
  };

  readonly #onBody = (chunk: Buffer, offset: number, length: number): void => {
    this.#handler?.onResponseData(this, chunk, offset, offset + length);
  };

  readonly #onEnd = (): void => {
    if (this.#isInterim) return;
    const handler = this.#handler;
    this.#handler = undefined;
    // An answer that nobody asked for, right behind the one that was.
    if (handler === undefined) {
      this.#socket.destroy();
      return;
    }
    if (this.#keepsAlive && !this.#socket.destroyed && keep(this.#origin, this)) {
      this.reused = true;
      // An idle connection is no reason to keep the process.
      this.#socket.setTimeout(IDLE_MS_MAX).unref();
    } else this.#socket.destroy();
    handler.onResponseEnd(this, {});
  };

  #closed(): void {
    forget(this.#origin, this);
    const handler = this.#handler;
    this.#handler = undefined;
    handler?.onResponseError(this, this.#error ?? new ClosedConnection());
  }
}

/** With the system's code for it, as clients know it. */
class ClosedConnection extends Error {
  readonly code = "ECONNRESET";

  constructor() {
    super("The server closed the connection.");
  }
}

/** A name that comes more than once has its values with commas, as the standard allows. */
function namesAndValues(headers: readonly string[]): Record<string, string> {
  const fields: Record<string, string> = {};
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const name = String(headers[index]).toLowerCase();
    const value = String(headers[index + 1]);
    fields[name] = Object.hasOwn(fields, name) ? `${fields[name]}, ${value}` : value;
  }
  return fields;
}

/**
 * A simulated OpenAI-compatible server: a simulated engine in real time behind HTTP, for tests of
 * gateways and for benchmarks where there is no GPU.
 *
 * | request | answer |
 * |---|---|
 * | `GET /health` | 200 once the engine is ready, 503 before |
 * | `GET /v1/models` | the one model |
 * | `POST /v1/completions`, `POST /v1/chat/completions` | streamed or whole, with usage |
 * | `POST /tokenize` | one token per word |
 *
 * Times come from a cost profile, one simulated second per real one by default; a timer's
 * resolution of a millisecond comes on top. The text generated is numbers.
 */

import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { listenError } from "../../base/listen-error.ts";
import { loadProfile } from "../../profile/load.ts";
import { LiveEngine, type LiveEvent } from "./live.ts";
import {
  chunkDocument,
  type Endpoint,
  type Generation,
  OpenAiError,
  parseGeneration,
  parseTokenize,
  usageChunk,
  wholeDocument,
} from "./openai.ts";
import { checkSimulatedServerOptions, type SimulatedServerOptions } from "./server-options.ts";

export interface SimulatedServer {
  /** `http://HOST:PORT` */
  readonly url: string;
  readonly model: string;
  readonly engine: LiveEngine;
  /** Resolves when the engine is ready. */
  readonly ready: Promise<void>;
  /** Ends the engine and every connection; unfinished streams break off. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const BODY_BYTES_MAX = 8 << 20;
const BODY_TIMEOUT_MS = 30_000;
/** A stream whose reader is this far behind is ended: nobody reads it. */
const UNREAD_BYTES_MAX = 4 << 20;

/**
 * Starts a simulated engine and an HTTP server in this process.
 *
 * @throws OptionError for an option that is unknown, of the wrong type or out of range;
 *   LazygraphError `ERR_LAZYGRAPH_ADDRESS_IN_USE`, or `ERR_LAZYGRAPH_BIND` for an address that can't
 *   be bound; `ERR_LAZYGRAPH_PROFILE`
 */
export async function startSimulatedServer(
  options: SimulatedServerOptions = {},
): Promise<SimulatedServer> {
  checkSimulatedServerOptions(options);
  const { profile: given, model, host = "127.0.0.1", port = 0, requestsMax, ...rest } = options;
  const profile = typeof given === "object" ? given : loadProfile(given);
  let tellReady: () => void = () => {};
  const ready = new Promise<void>((resolve) => {
    tellReady = resolve;
  });
  const onEvent = (event: LiveEvent): void => {
    if (event.type === "ready") tellReady();
    rest.onEvent?.(event);
  };
  const engine = new LiveEngine({ ...rest, profile, onEvent });
  const name = model ?? profile.engine.model;
  const side = new OpenAiSide(engine, name, requestsMax ?? 4096);
  const server = createServer((request, response) => void side.answer(request, response));
  server.requestTimeout = BODY_TIMEOUT_MS;
  try {
    server.listen({ host, port });
    await once(server, "listening");
  } catch (cause) {
    throw listenError(cause, "the simulated server", `${host}:${port}`);
  }
  // Only now: an address that is taken must leave no engine behind.
  engine.start();
  const close = closing(server, engine);
  return {
    url: urlOf(server),
    model: name,
    engine,
    ready,
    close,
    [Symbol.asyncDispose]: close,
  };
}

function closing(server: Server, engine: LiveEngine): () => Promise<void> {
  let closed: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const ended = once(server, "close");
    server.close();
    server.closeAllConnections();
    await engine.close();
    await ended;
  };
  return () => {
    closed ??= close();
    return closed;
  };
}

function urlOf(server: Server): string {
  const { address, family, port } = server.address() as AddressInfo;
  return `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
}

class OpenAiSide {
  readonly #engine: LiveEngine;
  readonly #model: string;
  readonly #requestsMax: number;
  readonly #startedUnixSeconds = Math.floor(Date.now() / 1000);
  #underWay = 0;

  constructor(engine: LiveEngine, model: string, requestsMax: number) {
    this.#engine = engine;
    this.#model = model;
    this.#requestsMax = requestsMax;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#route(request, response);
    } catch (error) {
      const known =
        error instanceof OpenAiError
          ? error
          : new OpenAiError(500, "InternalServerError", String(error));
      if (response.headersSent) response.destroy();
      else sendJson(response, known.status, known.document());
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? "/").split("?", 1)[0];
    const route = `${request.method} ${path}`;
    switch (route) {
      case "GET /health":
        response.writeHead(this.#ready ? 200 : 503).end();
        return;
      case "GET /v1/models":
        this.#requireReady();
        sendJson(response, 200, this.#models());
        return;
      case "POST /tokenize":
        this.#requireReady();
        sendJson(response, 200, this.#tokens(await readJson(request)));
        return;
      case "POST /v1/completions":
        await this.#generate("completions", request, response);
        return;
      case "POST /v1/chat/completions":
        await this.#generate("chat", request, response);
        return;
    }
    throw new OpenAiError(404, "NotFoundError", `There is no ${route.slice(0, 100)} here.`);
  }

  get #ready(): boolean {
    return this.#engine.model.phase === "serving";
  }

  get #contextTokensMax(): number {
    return this.#engine.model.profile.limits.kvCacheTokens;
  }

  #requireReady(): void {
    if (this.#ready) return;
    throw new OpenAiError(503, "ServiceUnavailableError", "The engine is not ready yet.");
  }

  #models(): object {
    const created = this.#startedUnixSeconds;
    const model = { id: this.#model, object: "model", created, owned_by: "simulated" };
    return { object: "list", data: [{ ...model, max_model_len: this.#contextTokensMax }] };
  }

  #tokens(body: unknown): object {
    const tokens = parseTokenize(body, this.#limits);
    return { count: tokens.length, max_model_len: this.#contextTokensMax, tokens };
  }

  get #limits() {
    return { model: this.#model, contextTokensMax: this.#contextTokensMax };
  }

  async #generate(
    endpoint: Endpoint,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const body = await readJson(request);
    this.#requireReady();
    const generation = parseGeneration(endpoint, body, this.#limits);
    if (this.#underWay >= this.#requestsMax) {
      throw new OpenAiError(429, "RateLimitError", `More than ${this.#requestsMax} at once.`);
    }
    const frame = {
      id: `${endpoint === "chat" ? "chatcmpl" : "cmpl"}-${randomUUID()}`,
      created: Math.floor(Date.now() / 1000),
    };
    const answer = generation.stream ? streamAnswer : wholeAnswer;
    const onToken = answer(response, generation, frame);
    this.#underWay++;
    const cancel = this.#engine.submit(generation.promptTokens, generation.outputTokens, onToken);
    if (cancel === undefined) {
      this.#underWay--;
      throw new OpenAiError(503, "ServiceUnavailableError", "The engine takes no more requests.");
    }
    response.once("close", () => {
      this.#underWay--;
      cancel();
    });
  }
}

/** Head and events as tokens come; the head goes out with the first one, as vLLM's does. */
function streamAnswer(
  response: ServerResponse,
  generation: Generation,
  frame: { readonly id: string; readonly created: number },
): (left: number) => void {
  let index = 0;
  return (left) => {
    if (response.destroyed) return;
    if (!response.headersSent) {
      response.writeHead(200, {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
      });
    }
    let text = `data: ${JSON.stringify(chunkDocument(generation, frame, index++))}\n\n`;
    if (left > 0) {
      response.write(text);
      if (response.writableLength > UNREAD_BYTES_MAX) response.destroy();
      return;
    }
    if (generation.includeUsage) {
      text += `data: ${JSON.stringify(usageChunk(generation, frame))}\n\n`;
    }
    response.end(`${text}data: [DONE]\n\n`);
  };
}

function wholeAnswer(
  response: ServerResponse,
  generation: Generation,
  frame: { readonly id: string; readonly created: number },
): (left: number) => void {
  return (left) => {
    if (left === 0) sendJson(response, 200, wholeDocument(generation, frame));
  };
}

function sendJson(response: ServerResponse, status: number, document: object): void {
  const text = JSON.stringify(document);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    // The rest of a refused body is not worth reading.
    ...(status === 413 ? { connection: "close" } : {}),
    ...(status === 429 || status === 503 ? { "retry-after": "1" } : {}),
  });
  response.end(text);
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > BODY_BYTES_MAX) {
      throw new OpenAiError(413, "BadRequestError", `The body has over ${BODY_BYTES_MAX} bytes.`);
    }
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString("utf8"));
  } catch {
    throw new OpenAiError(400, "BadRequestError", "Expected a JSON body, got something else.");
  }
}

/**
 * An OpenAI-compatible gateway over several engines.
 *
 *   request ─▶ body ─▶ waiting room while no engine is ready ─▶ best engine ─▶ exchange
 *
 * | request | answer |
 * |---|---|
 * | `/v1/…` | that of an engine, unchanged |
 * | `GET /livez` | 200 while the process runs |
 * | `GET /readyz` | 200 while an engine is ready and the gateway not stopping; each engine's phase |
 * | `GET /metrics` | Prometheus metrics of the gateway and of lazygraph |
 */

import { once } from "node:events";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createAdaptorServer, type HttpBindings } from "@hono/node-server";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { Hono } from "hono";
import { type Controller, onEvent, type TraceRecorder } from "lazygraph";
import { Counter, Gauge, type Registry } from "prom-client";
import { BODY_BYTES_MAX, bodyOf } from "./body.ts";
import type { Config } from "./config.ts";
import { type Engine, Engines } from "./engines.ts";
import { exchange, refuse } from "./exchange.ts";
import { type Choose, choose } from "./routing.ts";
import { UnderWay } from "./under-way.ts";
import { Turned, WaitingRoom } from "./waiting-room.ts";

const RETRY_AFTER_SECONDS = 5;
/** A request that kills engines must not kill them all: the second one is the last. */
const TRIES_MAX = 2;
/** For errors and the ends of streams to reach their clients. */
const LAST_WORDS_SECONDS = 1;
const GENERATES = /^\/v1\/(chat\/)?completions$/;

export interface GatewayOptions
  extends Pick<Config, "engines" | "holdMax" | "holdSeconds" | "firstByteSeconds"> {
  readonly controller: Controller;
  readonly registry: Registry;
  readonly recorder?: TraceRecorder;
  /** @default by captures, graphs and load */
  readonly choose?: Choose;
}

export class Gateway {
  readonly server: Server;
  readonly #options: GatewayOptions;
  readonly #engines: Engines;
  readonly #room: WaitingRoom;
  readonly #underWay = new UnderWay();
  readonly #requests: Counter;
  readonly #stops: readonly (() => void)[];
  #draining = false;

  constructor(options: GatewayOptions) {
    this.#options = options;
    const { controller, registry } = options;
    this.#room = new WaitingRoom(options.holdMax);
    const onReady = () => this.#room.release();
    this.#engines = new Engines(options.engines, controller, options.choose ?? choose, onReady);
    this.#stops = [
      onEvent("lazygraph:engine:join", ({ engine }) => {
        this.#engines.announceHeld(this.#room.size, engine);
      }),
      // Those who wait arrive the moment the engine is ready: let it begin with them.
      onEvent("lazygraph:engine:ready", ({ engine }) => {
        if (this.#room.size > 0) {
          controller.announce(engine, { inSeconds: 0.5, requests: this.#room.size });
        }
      }),
    ];
    this.#requests = new Counter({
      name: "gateway_requests_total",
      help: "Requests to engines by how they ended.",
      labelNames: ["engine", "outcome"],
      registers: [registry],
    });
    const room = this.#room;
    new Gauge({
      name: "gateway_held_requests",
      help: "Requests that wait for an engine to be ready.",
      registers: [registry],
      collect() {
        this.set(room.size);
      },
    });
    const { fetch } = this.#routes();
    this.server = createAdaptorServer({ fetch, overrideGlobalObjects: false }) as Server;
    // An answer may take as long as it takes; only the request itself has to come in time.
    this.server.headersTimeout = 30_000;
    this.server.requestTimeout = 60_000;
  }

  /** Takes no new requests, lets those under way end for so long, and ends. */
  async close(drainSeconds: number): Promise<void> {
    this.#draining = true;
    this.#room.close();
    await this.#underWay.idle(drainSeconds);
    this.#underWay.abort("the gateway is stopping");
    await this.#underWay.idle(LAST_WORDS_SECONDS);
    const closed = once(this.server, "close");
    this.server.close();
    const idle = setInterval(() => this.server.closeIdleConnections(), 20);
    const limit = setTimeout(() => this.server.closeAllConnections(), LAST_WORDS_SECONDS * 1000);
    await closed;
    clearInterval(idle);
    clearTimeout(limit);
    for (const stop of this.#stops) stop();
    await this.#engines.close();
  }

  #routes(): Hono<{ Bindings: HttpBindings }> {
    const app = new Hono<{ Bindings: HttpBindings }>();
    app.get("/livez", (c) => c.text("ok\n"));
    app.get("/readyz", (c) => {
      const ready = this.#engines.anyReady && !this.#draining;
      const engines = this.#engines.describe();
      const document = { ready, draining: this.#draining, held: this.#room.size, engines };
      return c.json(document, ready ? 200 : 503);
    });
    app.get("/metrics", async (c) => {
      const { registry } = this.#options;
      return c.body(await registry.metrics(), 200, { "content-type": registry.contentType });
    });
    app.all("/v1/*", async (c) => {
      const incoming = c.env.incoming as IncomingMessage;
      const outgoing = c.env.outgoing as ServerResponse;
      await this.#underWay.run(outgoing, (signal) => this.#relay(incoming, outgoing, signal));
      return RESPONSE_ALREADY_SENT;
    });
    return app;
  }

  async #relay(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      if (this.#draining) throw new Turned("The gateway is stopping.");
      const first = this.#engines.pick();
      // Before its body is read: a capture that would start now is better put off.
      if (first !== undefined) this.#engines.announce(first, 1);
      const body = await bodyOf(incoming);
      if (body !== undefined) return await this.#answer(incoming, outgoing, body, signal);
      const message = `Expected a body of at most ${BODY_BYTES_MAX} bytes, got more.`;
      refuse(outgoing, 413, "invalid_request_error", message, { connection: "close" });
    } catch (error) {
      if (outgoing.headersSent || outgoing.destroyed) return;
      const message = error instanceof Error ? error.message : String(error);
      if (error instanceof Turned) {
        const retry = { "retry-after": String(RETRY_AFTER_SECONDS) };
        const text = `${message} See /readyz for each engine's phase.`;
        refuse(outgoing, 503, "service_unavailable", text, retry);
      } else refuse(outgoing, 500, "internal_error", message);
    }
  }

  async #answer(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    body: Buffer,
    signal: AbortSignal,
  ): Promise<void> {
    const path = incoming.url ?? "/";
    const generates = incoming.method === "POST" && GENERATES.test(path.split("?", 1)[0] ?? "");
    const recorded = generates ? this.#options.recorder?.arrived() : undefined;
    recorded?.body(body.length);
    const { headers, method = "GET" } = incoming;
    const { firstByteSeconds, holdSeconds } = this.#options;
    const heldUntilMs = performance.now() + holdSeconds * 1000;
    const common = { method, path, headers, body, outgoing, firstByteSeconds, signal, recorded };
    const tried = new Set<Engine>();
    try {
      while (tried.size < TRIES_MAX) {
        const engine = this.#engines.pick(tried);
        if (engine === undefined) {
          if (tried.size > 0) break;
          this.#engines.announceHeld(1);
          await this.#room.wait(heldUntilMs, signal);
          continue;
        }
        tried.add(engine);
        this.#engines.next();
        const outcome = await exchange({ ...common, engine });
        this.#requests.inc({ engine: engine.name, outcome });
        if (outcome === "unreachable" || outcome === "broken") this.#engines.failed(engine);
        if (outcome !== "unreachable") return recorded?.end();
      }
      recorded?.drop();
      const names = [...tried].map(({ name }) => name).join(", then ");
      refuse(outgoing, 502, "upstream_error", `No answer from ${names}.`);
    } catch (error) {
      recorded?.drop();
      throw error;
    }
  }
}

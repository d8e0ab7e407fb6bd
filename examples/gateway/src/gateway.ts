/**
 * An OpenAI-compatible gateway over several engines.
 *
 *   request ─▶ place while no engine is ready ─▶ body ─▶ wait ─▶ best engine ─▶ exchange
 *
 * | request | answer |
 * |---|---|
 * | `/v1/…` | that of an engine, unchanged |
 * | `GET /livez` | 200 while the process runs |
 * | `GET /readyz` | 200 while an engine is ready and the gateway not stopping; each engine's phase |
 * | `GET /metrics` | Prometheus metrics of the gateway and of lazygraph |
 */

import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { HttpBindings } from "@hono/node-server";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { Hono } from "hono";
import { type ControllerView, onEvent, type TraceRecorder } from "lazygraph";
import { type Answer, isGenerating } from "lazygraph/measure";
import type { Registry } from "prom-client";
import { BODY_BYTES_MAX, bodyOf, dropRest } from "./body.ts";
import type { Config } from "./config.ts";
import type { Engine } from "./engine.ts";
import { Engines } from "./engines.ts";
import { exchange, refuse, turnAway } from "./exchange.ts";
import { GatewayMetrics } from "./metrics.ts";
import { forwardedPath } from "./path.ts";
import { type Choose, choose } from "./routing.ts";
import { closeServer, createServer } from "./server.ts";
import { UnderWay } from "./under-way.ts";
import { STOPPING, type Stay, Turned, WaitingRoom } from "./waiting-room.ts";
import { settle } from "./watching.ts";

/** A request that kills engines must not kill them all: the second one is the last. */
const TRIES_MAX = 2;
/** For errors and the ends of streams to reach their clients. */
const LAST_WORDS_SECONDS = 1;

export interface GatewayOptions
  extends Pick<Config, "engines" | "holdMax" | "holdBytes" | "holdSeconds" | "firstByteSeconds"> {
  readonly controller: ControllerView;
  readonly registry: Registry;
  readonly recorder?: TraceRecorder;
  /** Is told, in sentences, why engines can't be used. */
  readonly say?: (sentence: string) => void;
  /** @default by captures, graphs and load */
  readonly choose?: Choose;
}

export class Gateway {
  readonly server: Server;
  readonly #options: GatewayOptions;
  readonly #engines: Engines;
  readonly #room: WaitingRoom;
  readonly #underWay = new UnderWay();
  readonly #metrics: GatewayMetrics;
  readonly #stops: readonly (() => void)[];
  #draining = false;

  constructor(options: GatewayOptions) {
    this.#options = options;
    const { controller, registry, holdMax, holdBytes } = options;
    this.#room = new WaitingRoom(holdMax, holdBytes, () => this.#engines.announceHeld(1));
    const onReady = () => this.#room.release();
    const { engines, choose: chosen = choose, say = () => undefined } = options;
    this.#engines = new Engines(engines, controller, chosen, onReady, say);
    this.#stops = [
      onEvent("lazygraph:engine:join", ({ engine }) => {
        this.#engines.announceHeld(this.#room.size, engine);
      }),
      // Those who wait arrive the moment the engine is ready: let it begin with them.
      onEvent("lazygraph:engine:ready", ({ engine }) => {
        if (this.#room.size > 0) this.#engines.tell(engine, 0.5, this.#room.size);
      }),
    ];
    this.#metrics = new GatewayMetrics(registry, this.#room);
    const { fetch } = this.#routes();
    this.server = createServer(fetch);
    this.server.once("listening", () => {
      // From now on one connection's, as without memory or files to open.
      this.server.on("error", ({ message }) => say(`A connection could not be taken: ${message}`));
    });
  }

  /** Engines are no longer what a controller elsewhere said last. */
  enginesChanged(): void {
    this.#engines.changed();
  }

  /** Takes no new requests, lets those under way end for so long, and ends. */
  async close(drainSeconds: number): Promise<void> {
    this.#draining = true;
    this.#room.close();
    await this.#underWay.idle(drainSeconds);
    this.#underWay.abort("the gateway is stopping");
    await this.#underWay.idle(LAST_WORDS_SECONDS);
    await closeServer(this.server, LAST_WORDS_SECONDS);
    for (const stop of this.#stops) stop();
    await this.#engines.close();
  }

  #routes(): Hono<{ Bindings: HttpBindings }> {
    const app = new Hono<{ Bindings: HttpBindings }>();
    app.get("/livez", (c) => c.text("ok\n"));
    app.get("/readyz", (c) => {
      const ready = this.#engines.anyReady && !this.#draining;
      const its = { draining: this.#draining, held: this.#room.size };
      return c.json({ ready, ...its, engines: this.#engines.describe() }, ready ? 200 : 503);
    });
    app.get("/metrics", async (c) => {
      const { registry } = this.#options;
      return c.body(await registry.metrics(), 200, { "content-type": registry.contentType });
    });
    app.all("/v1/*", async (c) => {
      const incoming = c.env.incoming as IncomingMessage;
      const outgoing = c.env.outgoing as ServerResponse;
      const path = forwardedPath(incoming.url ?? "");
      if (path === undefined) return c.notFound();
      const relay = (signal: AbortSignal) => this.#relay(incoming, outgoing, path, signal);
      await this.#underWay.run(incoming, outgoing, relay);
      return RESPONSE_ALREADY_SENT;
    });
    return app;
  }

  async #relay(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    path: string,
    signal: AbortSignal,
  ): Promise<void> {
    const stay = this.#room.stay();
    try {
      if (this.#draining) throw new Turned(STOPPING);
      const first = this.#engines.pick();
      // Before the body: without a place it takes no memory, and captures are put off in time.
      if (first === undefined) stay.enter();
      else this.#engines.announce(first, 1);
      const body = await bodyOf(incoming, stay.hold);
      if (body !== undefined)
        return await this.#answer(incoming, outgoing, { path, body }, stay, signal);
      const message = `Expected a body of at most ${BODY_BYTES_MAX} bytes, got more.`;
      refuse(outgoing, 413, "invalid_request_error", message, { connection: "close" });
    } catch (error) {
      turnAway(outgoing, error);
    } finally {
      dropRest(incoming);
      stay.leave();
    }
  }

  async #answer(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    { path, body }: { readonly path: string; readonly body: Buffer },
    stay: Stay,
    signal: AbortSignal,
  ): Promise<void> {
    const { headers, method = "GET" } = incoming;
    const { recorder } = this.#options;
    const generates = isGenerating(method, path);
    const recorded = generates ? recorder?.arrived() : undefined;
    if (!generates) recorder?.passed();
    recorded?.body(body.length);
    const startedAtMs = performance.now();
    const { firstByteSeconds, holdSeconds } = this.#options;
    const heldUntilMs = performance.now() + holdSeconds * 1000;
    const common = { method, path, headers, body, outgoing, firstByteSeconds, signal, recorded };
    const tried = new Set<Engine>();
    try {
      while (tried.size < TRIES_MAX) {
        const engine = this.#engines.pick(tried);
        if (engine === undefined) {
          if (tried.size > 0) break;
          stay.enter();
          await this.#room.wait(heldUntilMs, signal);
          continue;
        }
        stay.leave();
        tried.add(engine);
        this.#engines.next();
        const onAnswer = generates
          ? (answer: Answer) => this.#metrics.answer(engine.name, answer, startedAtMs)
          : undefined;
        const outcome = await exchange({ ...common, engine, onAnswer });
        this.#metrics.request(engine.name, outcome);
        if (outcome === "unreachable" || outcome === "broken") this.#engines.failed(engine);
        if (outcome !== "unreachable") return settle(recorded, outcome);
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

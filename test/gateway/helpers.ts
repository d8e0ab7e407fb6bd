import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import OpenAI from "openai";
import { Registry } from "prom-client";
import { onTestFinished } from "vitest";
import { Gateway, type GatewayOptions } from "../../examples/gateway/src/gateway.ts";
import { type Controller, createController } from "../../src/controller/controller.ts";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { type SimulatedServer, startSimulatedServer } from "../../src/sim/live/server.ts";
import type { SimulatedServerOptions } from "../../src/sim/live/server-options.ts";
import { listening } from "../helpers/listening.ts";

/**
 * More than a test's engine makes before a test gives up waiting (20 times as fast, some 4,000
 * tokens a second): a request of so many ends only because somebody ended it.
 */
export const LONG_TOKENS = 400_000;

export function urlOf(server: Server): string {
  const { port } = server.address() as AddressInfo;
  return `http://127.0.0.1:${port}`;
}

export async function startController(): Promise<Controller> {
  const controller = createController({ mode: "idle", heartbeatMs: 100, plan: false });
  onTestFinished(() => controller.close());
  await controller.start();
  return controller;
}

export interface Running {
  readonly gateway: Gateway;
  readonly url: string;
  readonly registry: Registry;
  readonly controller: Controller;
}

/** A gateway on a free port, closed with the test without further ado. */
export async function startGateway(
  engines: Readonly<Record<string, string>>,
  options: Partial<GatewayOptions> & { readonly controller?: Controller } = {},
): Promise<Running> {
  const controller = options.controller ?? (await startController());
  const registry = new Registry();
  const servers = new Map(
    Object.entries(engines).map(([name, url]) => [name, new ServerAddress(new URL(url))]),
  );
  const limits = { holdMax: 512, holdBytes: 64 << 20, holdSeconds: 100, firstByteSeconds: 100 };
  const gateway = new Gateway({ ...limits, registry, controller, ...options, engines: servers });
  let closing: Promise<void> | undefined;
  const close = gateway.close.bind(gateway);
  gateway.close = (seconds) => {
    closing ??= close(seconds);
    return closing;
  };
  onTestFinished(() => gateway.close(0));
  gateway.server.listen(0, "127.0.0.1");
  await once(gateway.server, "listening");
  return { gateway, url: urlOf(gateway.server), registry, controller };
}

export async function startEngine(
  engine: string,
  options: SimulatedServerOptions = {},
): Promise<SimulatedServer> {
  const server = await startSimulatedServer({ speed: 20, engine, model: "sim", ...options });
  onTestFinished(() => server.close());
  return server;
}

/** An upstream that does what the test says; healthy unless it says otherwise. */
export async function startStub(listener: RequestListener, healthy = (): boolean => true) {
  const server = createServer((request, response) => {
    // A URL with a path has its health below it.
    if (request.url?.endsWith("/health") === true) response.writeHead(healthy() ? 200 : 503).end();
    else listener(request, response);
  });
  return { server, url: await listening(server) };
}

/** A connection on which requests are sent without waiting for answers. */
export async function connection(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  onTestFinished(() => void socket.destroy());
  await once(socket, "connect");
  return socket;
}

export function openai(url: string): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 110_000 });
}

export interface Ready {
  readonly ready: boolean;
  readonly draining: boolean;
  readonly held: number;
  readonly engines: Record<
    string,
    { ready: boolean; inFlight: number; phase: string; settled?: boolean }
  >;
}

export async function readyz(url: string): Promise<Ready & { status: number }> {
  const response = await fetch(`${url}/readyz`);
  return { status: response.status, ...((await response.json()) as Ready) };
}

export function completion(url: string, body: object, signal?: AbortSignal): Promise<Response> {
  return fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "sim", prompt: "one two", ...body }),
    ...(signal === undefined ? {} : { signal }),
  });
}

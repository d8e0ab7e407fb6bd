import { expect, test } from "vitest";
import { metricsOf } from "../../src/cli/metrics.ts";
import type { Controller } from "../../src/controller/controller.ts";
import { createHttpServer } from "../../src/http/server.ts";
import { lazygraph } from "../cli/helpers/command.ts";
import { listening } from "../helpers/listening.ts";
import { controllerOf, recordOf } from "./helpers.ts";

async function serve(withMetrics: boolean): Promise<string> {
  const controller = controllerOf([recordOf()]) as Controller;
  const options = withMetrics ? { metrics: metricsOf(controller) } : {};
  return listening(createHttpServer(controller, options));
}

test("GET /metrics answers in Prometheus' text format", async () => {
  const url = await serve(true);
  const response = await fetch(`${url}/metrics`);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
  const text = await response.text();
  expect(text).toContain("# TYPE lazygraph_steps_total counter");
  expect(text).toContain('lazygraph_engine_connected{engine="engine-0"} 1');
  expect((await fetch(`${url}/metrics`, { method: "POST" })).status).toBe(405);
});

test("lazygraph serve answers it, without any engine too", async () => {
  const options = ["--endpoint", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--json"];
  const running = lazygraph(["serve", ...options]);
  const { http } = JSON.parse(await running.line("stdout", /^\{/)) as { http: string };
  const text = await (await fetch(`${http}/metrics`)).text();
  expect(text).toContain("# HELP lazygraph_engine_info Always 1; what the engine is.");
  running.process.kill("SIGTERM");
  expect(await running.finished).toMatchObject({ code: 0 });
});

test("where none are collected it says so", async () => {
  const response = await fetch(`${await serve(false)}/metrics`);
  expect(response.status).toBe(404);
  expect(await response.json()).toEqual({
    error: { code: "ERR_HTTP_NOT_FOUND", message: "No metrics are collected here." },
  });
});

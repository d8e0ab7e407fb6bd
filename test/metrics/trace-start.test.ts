/** A start as OpenTelemetry spans, from the files that its processes wrote. */

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { expect, test } from "vitest";
import { monotonicSeconds } from "../../src/startup/spans.ts";
import { traceStart } from "../../src/tracing.ts";
import { temporaryFolder } from "../helpers/folder.ts";

async function traced(files: Readonly<Record<string, readonly object[]>>, options = {}) {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  const folder = await temporaryFolder();
  for (const [name, lines] of Object.entries(files)) {
    await writeFile(join(folder, name), lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  }
  const count = await traceStart(folder, { tracer: provider.getTracer("test"), ...options });
  const spans = exporter.getFinishedSpans();
  const nameOf = new Map(spans.map((span) => [span.spanContext().spanId, span.name]));
  const parents = spans.map(({ name, parentSpanContext: parent }) => [
    name,
    parent === undefined ? undefined : nameOf.get(parent.spanId),
  ]);
  return { count, spans, parents };
}

const ms = ([seconds, nanos]: ReadableSpan["startTime"]): number => seconds * 1000 + nanos / 1e6;

test("phases of a process lie in each other, those of others beside them, all in one start", async () => {
  const { count, spans, parents } = await traced({
    "spans-7.jsonl": [
      { name: "imports", begin: 1, end: 9 },
      { name: "engine client", begin: 10, end: 30 },
      { name: "API server", begin: 30, end: 31 },
    ],
    "spans-8.jsonl": [
      { name: "device", begin: 12, end: 13 },
      { name: "weights", begin: 13, end: 16, bytes: 1024, loader: "safetensors" },
      { name: "profile run", begin: 18, end: 20 },
      { name: "memory sizing", begin: 17, end: 22 },
    ],
  });
  expect(count).toBe(7);
  expect(parents).toEqual([
    ["lazygraph.start.imports", "lazygraph.start"],
    ["lazygraph.start.engine client", "lazygraph.start"],
    ["lazygraph.start.device", "lazygraph.start"],
    ["lazygraph.start.weights", "lazygraph.start"],
    ["lazygraph.start.memory sizing", "lazygraph.start"],
    ["lazygraph.start.profile run", "lazygraph.start.memory sizing"],
    ["lazygraph.start.API server", "lazygraph.start"],
    ["lazygraph.start", undefined],
  ]);
  expect(spans[3]?.attributes).toEqual({
    ...{ "process.pid": 8, "lazygraph.bytes": 1024, "lazygraph.loader": "safetensors" },
  });
  const root = spans.at(-1) as ReadableSpan;
  expect(ms(root.endTime) - ms(root.startTime)).toBeCloseTo(30_000, 0);
});

test("times are the wall's, of the spawn and of ready where they are given", async () => {
  const now = monotonicSeconds();
  const lines = [{ name: "imports", begin: now - 5, end: now - 3 }];
  const before = Date.now();
  const told = { spawnedAtUnixMs: before - 6000, readyAtUnixMs: before };
  const { spans } = await traced({ "spans-7.jsonl": lines }, told);
  const [imports, root] = spans as [ReadableSpan, ReadableSpan];
  expect(ms(root.startTime)).toBe(told.spawnedAtUnixMs);
  expect(ms(root.endTime)).toBe(told.readyAtUnixMs);
  expect(ms(imports.endTime) - ms(imports.startTime)).toBeCloseTo(2000, 0);
  expect(Math.abs(ms(imports.startTime) - (before - 5000))).toBeLessThan(60_000);
});

test("a folder without phases makes no span", async () => {
  const { count, spans } = await traced({ "spans-7.jsonl": [] });
  expect({ count, spans }).toEqual({ count: 0, spans: [] });
});

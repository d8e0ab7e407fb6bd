import { context, ROOT_CONTEXT, SpanStatusCode, trace } from "@opentelemetry/api";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { toldSession } from "../../src/controller/told-session.ts";
import { publish } from "../../src/engine/events.ts";
import { traceCaptures, traceStart } from "../../src/tracing.ts";

const exporter = new InMemorySpanExporter();
const provider = new BasicTracerProvider({
  spanProcessors: [new SimpleSpanProcessor(exporter)],
});
let stop: () => void;

beforeEach(() => {
  exporter.reset();
  stop = traceCaptures({ tracer: provider.getTracer("test") });
  onTestFinished(() => stop());
});

const base = { engine: "e", session: "s", atUnixMs: 1_800_000_000_000 };
const later = { ...base, atUnixMs: 1_800_000_000_050 };

function start(graph: string): void {
  publish("lazygraph:capture:start", { ...base, graph, whenIdle: true, reason: "the fill" });
}

test("a capture is a span from its command to its answer", () => {
  start("FULL:8");
  const counts = { graphsCaptured: 3, graphsPlanned: 8 };
  publish("lazygraph:capture:end", {
    ...later,
    graph: "FULL:8",
    ms: 30,
    stallMs: 45,
    bytes: 99,
    ...counts,
  });
  const [span] = exporter.getFinishedSpans();
  expect(span?.name).toBe("lazygraph.capture");
  expect(span?.startTime).toEqual([1_800_000_000, 0]);
  expect(span?.endTime).toEqual([1_800_000_000, 50_000_000]);
  expect(span?.attributes).toEqual({
    "lazygraph.engine": "e",
    // What HTTP tells as well: the session itself would let who sees it pass for the engine.
    "lazygraph.session": toldSession("s"),
    "lazygraph.graph": "FULL:8",
    "lazygraph.reason": "the fill",
    "lazygraph.when_idle": true,
    "lazygraph.outcome": "captured",
    "lazygraph.capture_ms": 30,
    "lazygraph.stall_ms": 45,
    "lazygraph.bytes": 99,
  });
  expect(span?.status.code).toBe(SpanStatusCode.UNSET);
});

test("an outcome that is none is told with its reason; only a failure is an error", () => {
  for (const outcome of ["deferred", "refused", "failed"] as const) {
    start("FULL:8");
    publish(`lazygraph:capture:${outcome}`, { ...later, graph: "FULL:8", reason: "because" });
  }
  const spans = exporter.getFinishedSpans();
  expect(spans.map(({ attributes }) => attributes["lazygraph.outcome"])).toEqual([
    "deferred",
    "refused",
    "failed",
  ]);
  expect(spans.map(({ status }) => status.code)).toEqual([
    SpanStatusCode.UNSET,
    SpanStatusCode.UNSET,
    SpanStatusCode.ERROR,
  ]);
  for (const span of spans) expect(span.attributes["lazygraph.outcome_reason"]).toBe("because");
});

test("a lost engine ends its spans, and the end of tracing all of them", () => {
  start("FULL:8");
  publish("lazygraph:engine:lost", { ...later, session: "other", code: "X", reason: "gone" });
  expect(exporter.getFinishedSpans()).toHaveLength(0);
  publish("lazygraph:engine:lost", { ...later, code: "X", reason: "gone" });
  start("FULL:4");
  stop();
  const spans = exporter.getFinishedSpans();
  expect(spans.map(({ status }) => status.message)).toEqual(["gone", "Tracing was ended."]);
  start("FULL:2");
  expect(exporter.getFinishedSpans()).toHaveLength(2);
});

test("a capture has no parent", () => {
  const active = trace.setSpan(ROOT_CONTEXT, provider.getTracer("test").startSpan("x"));
  const run = (_: unknown, call: () => void) => call();
  context.setGlobalContextManager({ active: () => active, with: run, disable() {} } as never);
  onTestFinished(() => context.disable());
  start("FULL:8");
  stop();
  expect(exporter.getFinishedSpans()[0]).toMatchObject({ parentSpanContext: undefined });
});

test("unanswered captures make room for later ones", () => {
  for (let count = 0; count <= 1024; count++) start(`FULL:${count}`);
  const [span, ...others] = exporter.getFinishedSpans();
  expect([span?.status.message, others.length]).toEqual(["No answer was seen.", 0]);
});

test("a wrong or unknown option is refused at once", async () => {
  expect(() => traceCaptures({ tracr: 1 } as object)).toThrow("tracer?");
  await expect(traceStart("/", { readyAtUnixMs: Number.NaN })).rejects.toThrow("Expected");
});

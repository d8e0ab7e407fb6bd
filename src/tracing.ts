/**
 * Exports of `lazygraph/tracing`: captures, and starts, as OpenTelemetry spans.
 *
 * Needs `@opentelemetry/api`, which whoever has OpenTelemetry set up has. Without a tracer provider
 * the spans go nowhere and cost next to nothing.
 */

import { context, type Span, SpanStatusCode, type Tracer, trace } from "@opentelemetry/api";
import {
  checkOption,
  checkOptions,
  type OptionRules,
  textRule,
  withMethods,
} from "./base/check-options.ts";
import { number } from "./base/schema.ts";
import { toldSession } from "./controller/told-session.ts";
import { type EngineEventBase, onEvent } from "./engine/events.ts";
import { monotonicSeconds, readSpans, type Span as Timed } from "./startup/spans.ts";

export interface TracingOptions {
  /** @default the global provider's tracer of the name `lazygraph` */
  readonly tracer?: Tracer;
}

/** Spans open at once; the engines of a process have one capture each under way. */
const SPANS_MAX = 1024;

export interface StartTracingOptions extends TracingOptions {
  /** @default when the first process began, as far as it told */
  readonly spawnedAtUnixMs?: number;
  /** @default when the last span ended */
  readonly readyAtUnixMs?: number;
}

const time = number(0, 8.64e15);
const OPTIONS: OptionRules<TracingOptions> = {
  tracer: withMethods("a tracer of OpenTelemetry", ["startSpan"]),
};
const START_OPTIONS: OptionRules<StartTracingOptions> = {
  ...OPTIONS,
  spawnedAtUnixMs: time,
  readyAtUnixMs: time,
};

/**
 * Makes spans of a start from what its processes have written into the folder that
 * `LAZYGRAPH_STARTUP_DIR` names: `lazygraph.start`, and in it a span of each phase, those of a
 * process in each other as they ran. To be called on the same host, once the server is ready.
 *
 * @returns how many phases there were; with none there is no span at all
 * @throws OptionError for arguments of other types; the system's error for a folder that can't be read
 */
export async function traceStart(
  folder: string,
  options: StartTracingOptions = {},
): Promise<number> {
  checkOption("folder", folder, textRule("the path of a folder"));
  checkOptions(options, START_OPTIONS);
  const tracer = options.tracer ?? trace.getTracer("lazygraph");
  const phases = await readSpans(folder);
  const [first] = phases;
  if (first === undefined) return 0;
  const zeroUnixMs = Date.now() - monotonicSeconds() * 1000;
  const unixMs = (seconds: number): number => zeroUnixMs + seconds * 1000;
  const startTime = options.spawnedAtUnixMs ?? unixMs(first.begin);
  const root = tracer.startSpan("lazygraph.start", { startTime });
  // By process, those that are still open where the next one begins: the last of them holds it.
  const open = new Map<number, { readonly end: number; readonly span: Span }[]>();
  for (const phase of phases) {
    const outer = (open.get(phase.pid) ?? []).filter(({ end }) => end >= phase.end);
    const parent = trace.setSpan(context.active(), outer.at(-1)?.span ?? root);
    const about = { startTime: unixMs(phase.begin), attributes: attributesOf(phase) };
    const span = tracer.startSpan(`lazygraph.start.${phase.name}`, about, parent);
    span.end(unixMs(phase.end));
    open.set(phase.pid, [...outer, { end: phase.end, span }]);
  }
  const last = phases.reduce((end, phase) => Math.max(end, phase.end), first.end);
  root.end(options.readyAtUnixMs ?? unixMs(last));
  return phases.length;
}

function attributesOf({ pid, detail }: Timed): Attributes {
  const { bytes, loader, simulated } = detail;
  return {
    "process.pid": pid,
    ...(typeof bytes === "number" ? { "lazygraph.bytes": bytes } : {}),
    ...(typeof loader === "string" ? { "lazygraph.loader": loader } : {}),
    ...(typeof simulated === "boolean" ? { "lazygraph.simulated": simulated } : {}),
  };
}

type CaptureEvent = EngineEventBase & { readonly graph: string };

/**
 * Makes a span `lazygraph.capture` of each capture command of this process's controllers, from its
 * start to its answer, with engine, graph, reason, outcome, milliseconds and bytes as attributes.
 *
 * @returns a function that ends this, and the spans that are open
 */
export function traceCaptures(options: TracingOptions = {}): () => void {
  checkOptions(options, OPTIONS);
  const spans = new CaptureSpans(options.tracer ?? trace.getTracer("lazygraph"));
  const stops = [
    onEvent("lazygraph:capture:start", (event) => {
      const { whenIdle, reason } = event;
      spans.start(event, { "lazygraph.when_idle": whenIdle, "lazygraph.reason": reason });
    }),
    onEvent("lazygraph:capture:end", (event) => {
      const { ms, stallMs, bytes } = event;
      spans.end(event, "captured", {
        "lazygraph.capture_ms": ms,
        "lazygraph.stall_ms": stallMs,
        "lazygraph.bytes": bytes,
      });
    }),
    onEvent("lazygraph:capture:deferred", (event) => spans.end(event, "deferred", why(event))),
    onEvent("lazygraph:capture:refused", (event) => spans.end(event, "refused", why(event))),
    onEvent("lazygraph:capture:failed", (event) => {
      spans.end(event, "failed", why(event), event.reason);
    }),
    onEvent("lazygraph:engine:lost", ({ session, reason }) => spans.lost(session, reason)),
  ];
  return () => {
    for (const stop of stops) stop();
    spans.close();
  };
}

type Attributes = Readonly<Record<string, string | number | boolean>>;

function why({ reason }: { readonly reason: string }): Attributes {
  return { "lazygraph.outcome_reason": reason };
}

class CaptureSpans {
  readonly #tracer: Tracer;
  readonly #open = new Map<string, { readonly span: Span; readonly session: string }>();

  constructor(tracer: Tracer) {
    this.#tracer = tracer;
  }

  start(event: CaptureEvent, attributes: Attributes): void {
    const { engine, session, graph, atUnixMs } = event;
    // Those of a controller that was closed are answered by nobody.
    const [oldest] = this.#open;
    if (oldest !== undefined && this.#open.size >= SPANS_MAX) {
      this.#abandon(oldest[0], oldest[1].span, "No answer was seen.");
    }
    const span = this.#tracer.startSpan("lazygraph.capture", {
      startTime: atUnixMs,
      // What is active here was so when the controller was started.
      root: true,
      attributes: {
        "lazygraph.engine": engine,
        "lazygraph.session": toldSession(session),
        "lazygraph.graph": graph,
        ...attributes,
      },
    });
    this.#open.set(keyOf(event), { span, session });
  }

  end(event: CaptureEvent, outcome: string, attributes: Attributes, error?: string): void {
    const key = keyOf(event);
    const span = this.#open.get(key)?.span;
    if (span === undefined) return;
    this.#open.delete(key);
    span.setAttributes({ ...attributes, "lazygraph.outcome": outcome });
    if (error !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: error });
    span.end(event.atUnixMs);
  }

  /** Nobody will answer for what this session had under way. */
  lost(session: string, reason: string): void {
    for (const [key, open] of this.#open) {
      if (open.session === session) this.#abandon(key, open.span, reason);
    }
  }

  close(): void {
    for (const [key, { span }] of this.#open) this.#abandon(key, span, "Tracing was ended.");
  }

  #abandon(key: string, span: Span, message: string): void {
    this.#open.delete(key);
    span.setAttribute("lazygraph.outcome", "lost");
    span.setStatus({ code: SpanStatusCode.ERROR, message });
    span.end();
  }
}

function keyOf({ session, graph }: CaptureEvent): string {
  return `${session} ${graph}`;
}

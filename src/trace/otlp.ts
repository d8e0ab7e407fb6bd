/**
 * Requests to a model among OpenTelemetry's spans: OTLP in JSON, as the collector's file exporter
 * writes it, with the attributes of the semantic conventions for generative AI.
 */

import { quoted, traceError } from "./error.ts";
import { field, listOf, type Place, tokensOf } from "./values.ts";

/** The conventions' names, and the older ones that vLLM's own spans have. */
const PROMPT_KEYS = ["gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"];
const OUTPUT_KEYS = ["gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"];
/**
 * Operations that are one request to a model. Spans of agents and tools sum up the requests below
 * them, which would count twice.
 */
const OPERATIONS = ["chat", "text_completion", "generate_content"];
const STATUS_ERROR = [2, "STATUS_CODE_ERROR"];

export interface SpanRequest {
  readonly startNanos: bigint;
  readonly promptTokens: number;
  readonly outputTokens: number;
}

export type SpanEntry = SpanRequest | { readonly skip: "failed request" | "other span" };

type Attributes = ReadonlyMap<string, unknown>;

export function isSpanBatch(object: object): object is { readonly resourceSpans: unknown } {
  return "resourceSpans" in object;
}

/** @throws LazygraphError `ERR_LAZYGRAPH_TRACE` for what is no OTLP, or has wrong tokens or times */
export function* spanEntries(
  place: Place,
  batch: { readonly resourceSpans: unknown },
): Generator<SpanEntry> {
  for (const resource of listOf(place, batch, "resourceSpans")) {
    for (const scope of listOf(place, resource, "scopeSpans")) {
      for (const span of listOf(place, scope, "spans")) yield spanEntry(place, span);
    }
  }
}

function spanEntry(place: Place, span: unknown): SpanEntry {
  const attributes = attributesOf(place, span);
  const operation = attributes.get("gen_ai.operation.name");
  const prompt = firstOf(attributes, PROMPT_KEYS);
  const output = firstOf(attributes, OUTPUT_KEYS);
  const isRequest =
    operation === undefined
      ? prompt !== undefined || output !== undefined
      : OPERATIONS.some((name) => name === operation);
  if (!isRequest) return { skip: "other span" };
  if (isFailed(span) || prompt === undefined || output === undefined) {
    return { skip: "failed request" };
  }
  const promptTokens = tokensOf(place, prompt);
  const outputTokens = tokensOf(place, output);
  if (promptTokens === 0 || outputTokens === 0) return { skip: "failed request" };
  return { startNanos: startOf(place, span), promptTokens, outputTokens };
}

function attributesOf(place: Place, span: unknown): Attributes {
  return new Map(
    listOf(place, span, "attributes").map((attribute) => [
      String(field(attribute, "key")),
      scalarOf(field(attribute, "value")),
    ]),
  );
}

/** Of OTLP's typed values the numbers and texts; JSON writes 64-bit integers as texts. */
function scalarOf(value: unknown): unknown {
  return field(value, "intValue") ?? field(value, "doubleValue") ?? field(value, "stringValue");
}

function firstOf(attributes: Attributes, keys: readonly string[]): unknown {
  return keys.map((key) => attributes.get(key)).find((value) => value !== undefined);
}

function isFailed(span: unknown): boolean {
  const code = field(field(span, "status"), "code");
  return STATUS_ERROR.some((known) => known === code);
}

function startOf({ file, line }: Place, span: unknown): bigint {
  const start = field(span, "startTimeUnixNano");
  if (typeof start === "string" && /^\d{1,20}$/.test(start)) return BigInt(start);
  if (typeof start === "number" && Number.isInteger(start) && start >= 0) return BigInt(start);
  const got = quoted(JSON.stringify(start) ?? "nothing");
  throw traceError(file, line, '"startTimeUnixNano" to be whole nanoseconds', got);
}

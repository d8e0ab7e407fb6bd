#!/bin/sh
# One format, two spellings. OTLP's JSON follows Protobuf's JSON mapping, by which 64-bit integers
# are texts, but for ids, which it wants in hex. OpenTelemetry's JavaScript serializer writes
# integer attributes as JSON numbers; Protobuf's own printer, on OpenTelemetry's own messages,
# writes texts, and ids in base64. A reader that takes one of them misses the other.
# Seen with @opentelemetry/otlp-transformer 0.223.1 and opentelemetry-proto 1.45.2 with
# protobuf 7.36.2: 210 and "210"; 32 hex digits and 24 of base64.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit @opentelemetry/api@1.9.1 \
  @opentelemetry/otlp-transformer@0.223.1 @opentelemetry/sdk-trace-base@2.12.1 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q opentelemetry-proto==1.45.2 protobuf==7.36.2

cat >span.mjs <<'JS'
import { JsonTraceSerializer } from "@opentelemetry/otlp-transformer";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
const memory = new InMemorySpanExporter();
const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(memory)] });
const attributes = { "gen_ai.usage.input_tokens": 210 };
provider.getTracer("example").startSpan("chat", { attributes }).end();
const bytes = JsonTraceSerializer.serializeRequest(memory.getFinishedSpans());
const { spans } = JSON.parse(new TextDecoder().decode(bytes)).resourceSpans[0].scopeSpans[0];
console.log(typeof spans[0].attributes[0].value.intValue, spans[0].traceId.length);
JS
cat >span.py <<'PY'
import json
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

request = ExportTraceServiceRequest()
span = request.resource_spans.add().scope_spans.add().spans.add()
span.trace_id = bytes(range(16))
attribute = span.attributes.add()
attribute.key = "gen_ai.usage.input_tokens"
attribute.value.int_value = 210
(span,) = json.loads(MessageToJson(request))["resourceSpans"][0]["scopeSpans"][0]["spans"]
print(type(span["attributes"][0]["value"]["intValue"]).__name__, len(span["traceId"]))
PY
{ node span.mjs; python/bin/python span.py; } | tee output
printf 'number 32\nstr 24\n' | cmp - output

#!/bin/sh
# By OpenTelemetry's openai-v2, `gen_ai.client.operation.duration` of a streamed chat ends with its head:
# 0 s for 1 s. A chat whose reader leaves the loop has no span, and told to follow the latest conventions,
# by which others are right, no duration. Its successor of another name, genai-openai, tells all.
# Seen with opentelemetry-instrumentation-openai-v2 2.4b0 on opentelemetry-util-genai 0.4b0 (pip's
# choice, 1.3b0, it can't import), -genai-openai 1.3b0 and openai 3.51.0: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
common='httpx==0.28.1 openai==3.51.0 opentelemetry-sdk==1.45.2'
python3 -m venv old
old/bin/pip install -q $common opentelemetry-instrumentation-openai-v2==2.4b0 opentelemetry-util-genai==0.4b0
python3 -m venv new
new/bin/pip install -q $common opentelemetry-instrumentation-genai-openai==1.3b0

cat >chats.py <<'PY'
import http.server
import sys
import threading
import time

import openai
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

try:
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
except ImportError:
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        for _ in "ab":
            time.sleep(0.5)
            self.wfile.write(b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n')


class Spans(SpanProcessor):
    def on_end(self, span):
        print(f" span {(span.end_time - span.start_time) / 1e9:.1f}", end="")


server = http.server.HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}")
traces, reader = TracerProvider(), InMemoryMetricReader()
traces.add_span_processor(Spans())
OpenAIInstrumentor().instrument(tracer_provider=traces, meter_provider=MeterProvider([reader]))
print(*sys.argv[1:], end=":")
for _ in client.chat.completions.create(model="m", messages=[], stream=True):
    if "left" in sys.argv[1]:
        break
if data := reader.get_metrics_data():
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        if metric.name == "gen_ai.client.operation.duration":
            print(f" duration {metric.data.data_points[0].sum:.1f}", end="")
print()
PY
for how in read left; do
  old/bin/python chats.py $how
  OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental old/bin/python chats.py $how, latest
  new/bin/python chats.py $how, successor
done 2>server.log | tee output
cat >expected <<'TXT'
read: span 1.0 duration 0.0
read, latest: span 1.0 duration 1.0
read, successor: span 1.0 duration 1.0
left: duration 0.0
left, latest:
left, successor: span 0.5 duration 0.5
TXT
cmp expected output

#!/bin/sh
# By OpenTelemetry's openai-v2, the `gen_ai.client.operation.duration` of a streamed chat ends with its
# head: 0 s for an answer of 1 s. A chat whose reader leaves the loop early has no span, and told to follow
# the latest conventions, by which others are right, no duration either.
# Seen with opentelemetry-instrumentation-openai-v2 2.4b0, the newest, on opentelemetry-util-genai 0.4b0
# (1.3b0, which pip takes, can't be imported by it), and openai 3.51.0: the output below. Its successor of
# another name, opentelemetry-instrumentation-genai-openai 1.3b0, tells all.
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
from importlib import import_module

import openai
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(2):
            time.sleep(0.5)
            self.wfile.write(b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n')

    def log_message(self, *_):
        pass


class Spans(SpanProcessor):
    def on_end(self, span):
        print(f" span {(span.end_time - span.start_time) / 1e9:.1f}", end="")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}")
traces, reader = TracerProvider(), InMemoryMetricReader()
traces.add_span_processor(Spans())
instrumentor = import_module(f"opentelemetry.instrumentation.{sys.argv[1]}").OpenAIInstrumentor()
instrumentor.instrument(tracer_provider=traces, meter_provider=MeterProvider([reader]))
print(*sys.argv[1:], end=":")
for _ in client.chat.completions.create(model="m", messages=[], stream=True):
    if sys.argv[2] == "left":
        break
if data := reader.get_metrics_data():
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        if metric.name == "gen_ai.client.operation.duration":
            print(f" duration {metric.data.data_points[0].sum:.1f}", end="")
print()
PY
for how in read left; do
  old/bin/python chats.py openai_v2 $how
  OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental old/bin/python chats.py openai_v2 $how latest
  new/bin/python chats.py genai.openai $how
done | tee output
cat >expected <<'TXT'
openai_v2 read: span 1.0 duration 0.0
openai_v2 read latest: span 1.0 duration 1.0
genai.openai read: span 1.0 duration 1.0
openai_v2 left: duration 0.0
openai_v2 left latest:
genai.openai left: span 0.5 duration 0.5
TXT
cmp expected output

#!/bin/sh
# OpenLLMetry's span of a chat whose stream breaks off has status OK, and its duration no
# `error.type`: it ends the span and sets the error afterwards.
# Seen with opentelemetry-instrumentation-openai 0.62.4: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q openai==2.54.0 opentelemetry-instrumentation-openai==0.62.4 \
  opentelemetry-sdk==1.45.2

cat >chat.py <<'PY'
import http.server
import threading

import openai
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider, export
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.send_header("content-length", 999)
        self.end_headers()
        self.wfile.write(b'data: {"choices": [{"delta": {"content": "a"}, "index": 0}]}\n\n')


class Spans(SpanProcessor):
    def on_end(self, span):
        print("span:", span.status.status_code.name)


server = http.server.HTTPServer(("", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
traces, reader = TracerProvider(), export.InMemoryMetricReader()
traces.add_span_processor(Spans())
OpenAIInstrumentor().instrument(tracer_provider=traces, meter_provider=MeterProvider([reader]))
client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}")
try:
    list(client.chat.completions.create(model="m", messages=[], stream=True))
except Exception as error:
    print(type(error).__name__)
for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics:
    if "duration" in metric.name:
        print("error.type", "error.type" in metric.data.data_points[0].attributes)
PY
python/bin/python chat.py 2>log | tee output
cat >expected <<'TXT'
span: OK
RemoteProtocolError
error.type False
TXT
cmp expected output

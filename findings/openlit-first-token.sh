#!/bin/sh
# OpenLIT's clock of a streamed chat starts with its head. SGLang sends that with the first token: 1 s is 0.
# Its server metrics take events for tokens: with 8 in each, 0.5 s are above 4 s.
# Seen with openlit 1.45.0, five events, the first after 1 s: as below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps openlit==1.45.0
python/bin/pip install -q openai==2.54.0 opentelemetry-instrumentation==0.66b2 \
  opentelemetry-exporter-otlp==1.45.2 xmltodict==1.0.4 2>log

cat >chat.py <<'PY'
import http.server
import sys
import threading
from time import sleep

import openai
import openlit
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider, export

CHUNK = b"""data: {"choices": [{"delta": {}, "index": 0}],
data: "usage": {"completion_tokens": 40, "prompt_tokens": 9}}

"""
head = sys.argv[1]


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        sleep(head == "late")
        self.send_response(200)
        self.end_headers()
        sleep(head != "late")
        for _ in range(5):
            self.wfile.write(CHUNK)
            sleep(0.12)


server = http.server.HTTPServer(("", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
reader = export.InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
openlit.init(disable_events=True)
api = openai.OpenAI(api_key="-", base_url=f"http://127.0.0.1:{server.server_port}").chat
list(api.completions.create(model="m", messages=[], stream=True))
data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0]
sums = {metric.name[14:]: int(metric.data.data_points[0].sum) for metric in data.metrics}
print(head, sums["time_to_first_token"], sums["request.duration"])
PY
export OTEL_TRACES_EXPORTER=none
for head in early late; do python/bin/python chat.py $head 2>log; done | tee output
printf 'early 1 5\nlate 0 4\n' | cmp - output

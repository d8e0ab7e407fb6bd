#!/bin/sh
# Of a request to /v1/responses, SMG makes one with sampling of its own: temperature 1, no top-k. vLLM takes
# it for the client's: behind SMG, what a model's generation_config.json says holds for chats only. And it
# reranks by a model "unknown", whichever is asked for.
# Seen with smg 1.13.0 before a server that prints what it gets: the output below.
set -eu
folder=$(mktemp -d)
trap 'kill -9 $engine $smg; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q smg==1.13.0

cat >engine.py <<'PY'
import http.server
import json


class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if length := self.headers["content-length"]:
            body = json.loads(self.rfile.read(int(length)))
            keys = ["model", "temperature", "top_k"]
            print(self.path, {key: body.get(key) for key in keys}, flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"object": "list", "data": [{"id": "m"}]}')

    do_POST = do_GET


http.server.HTTPServer(("127.0.0.1", 18931), Engine).serve_forever()
PY
python/bin/python engine.py >output 2>log &
engine=$!
sleep 2
python/bin/smg launch --port 18932 --prometheus-port 18933 --worker-urls http://127.0.0.1:18931 >log 2>&1 &
smg=$!
sleep 9
ask() {
  curl -s -H 'content-type: application/json' \
    "http://127.0.0.1:18932/v1/$1" -d "{\"model\": \"m\", $2}" >>log
}
ask chat/completions '"messages": [{"role": "user", "content": "a"}]'
ask responses '"input": "a"'
ask rerank '"query": "a", "documents": ["b"]'
cat output
cat >expected <<'TXT'
/v1/chat/completions {'model': 'm', 'temperature': None, 'top_k': None}
/v1/responses {'model': 'm', 'temperature': 1.0, 'top_k': -1}
/v1/rerank {'model': 'unknown', 'temperature': None, 'top_k': None}
TXT
cmp expected output

#!/bin/sh
# Asked for `continuous_usage_stats` among `stream_options`, vLLM and SGLang put the usage so far on each
# chunk of a stream. LangChain and smolagents add it all up: of a prompt of 1,000 tokens and an answer of
# two they tell 4,000 and 5.
# Seen with langchain-openai 1.7.4 and smolagents 1.26.0 on chunks like vLLM 0.33.0's: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q langchain-core==1.8.3 langchain-openai==1.7.4 openai==3.57.0 \
  pydantic==2.14.4 smolagents==1.26.0 2>pip.log

cat >ask.py <<'PY'
import http.server
import json
import threading

from langchain_openai import ChatOpenAI
from smolagents import ChatMessage, OpenAIModel
from smolagents.models import agglomerate_stream_deltas


class Engine(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        for done, text in (0, ""), (1, "Yes"), (2, "."), (2, None):
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            choice = {"index": 0, "delta": {"content": text}}
            chunk["choices"] = [choice] * (text is not None)
            if text is None or b"continuous" in asked:
                usage = {"completion_tokens": done, "total_tokens": 1000 + done}
                chunk["usage"] = {"prompt_tokens": 1000, **usage}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())


engine = http.server.HTTPServer(("127.0.0.1", 0), Engine)
threading.Thread(target=engine.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{engine.server_port}/v1"
for more in {}, {"continuous_usage_stats": True}:
    body = {"stream_options": {"include_usage": True, **more}}
    first, *rest = ChatOpenAI(model="m", base_url=url, api_key="k", extra_body=body).stream("?")
    usage = sum(rest, first).usage_metadata
    print(*more, "LangChain:", usage["input_tokens"], usage["output_tokens"])
    model = OpenAIModel("m", url, api_key="k")
    deltas = model.generate_stream([ChatMessage("user", "?")], extra_body=body)
    usage = agglomerate_stream_deltas(list(deltas)).token_usage
    print(*more, "smolagents:", usage.input_tokens, usage.output_tokens)
PY
python/bin/python ask.py 2>log | tee output
cat >expected <<'TXT'
LangChain: 1000 2
smolagents: 1000 2
continuous_usage_stats LangChain: 4000 5
continuous_usage_stats smolagents: 4000 5
TXT
cmp expected output

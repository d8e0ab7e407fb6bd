#!/bin/sh
# Models write U+2028 and U+0085; JSON allows them bare inside texts, and vLLM's servers send them so.
# For server-sent events they end no line, for Python's str.splitlines they do. Of two benchmarks,
# GuideLLM, whose httpx splits by the latter, fails such an answer. AIPerf reads it where an event is
# its data line alone; where it has a line `event:` too, as all events of the Responses and Messages
# APIs have, it puts the halves together again around a line feed: another text, without a word.
# Seen with guidellm 0.8.1 on httpx 0.28.1, and aiperf 0.13.0: the output below. Both are installed
# without what their clients don't import, which would be torch and more.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv guidellm
guidellm/bin/pip install -q --no-deps guidellm==0.8.1
guidellm/bin/pip install -q click==8.4.0 culsans==0.10.0 faker==40.63.0 ftfy==6.3.1 h2==4.4.1 \
  httpx==0.28.1 jinja2==3.1.6 loguru==0.7.3 more-itertools==11.2.1 msgpack==1.2.4 numpy==2.4.6 \
  protobuf==7.36.2 pydantic==2.14.4 pydantic-settings==2.16.3 pyyaml==6.0.4 rich==15.0.0 \
  sanic==25.12.1 tabulate==0.10.0 uvloop==0.23.0 websockets==17.4 2>pip.log
python3 -m venv aiperf
aiperf/bin/pip install -q --no-deps aiperf==0.13.0
aiperf/bin/pip install -q cyclopts==4.5.0 jinja2==3.1.6 msgspec==0.22.0 numpy==2.3.5 \
  orjson==3.11.7 pydantic==2.14.4 pydantic-settings==2.16.3 pyyaml==6.0.4 ruamel.yaml==0.18.17 2>>pip.log

cat >answers.py <<'PY'
"""One completion and one event of the Responses API, for each of three characters."""
import json

CHARACTERS = {"plain": "-", "U+2028": "\u2028", "U+0085": "\u0085"}


def event(value, name=None):
    line = f"event: {name}\n" if name else ""
    return f"{line}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def completion(name):
    text = f"a{CHARACTERS[name]}b"
    choice = {"index": 0, "text": text, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 3}
    return event({"choices": [choice]}) + event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"


def delta(name, with_name):
    value = {"type": "response.output_text.delta", "delta": f"a{CHARACTERS[name]}b"}
    return event(value, value["type"] if with_name else None)
PY
cat >with-guidellm.py <<'PY'
import asyncio
import http.server
import json
import threading

from answers import CHARACTERS, completion
from guidellm.backends.openai.http import OpenAIHTTPBackend
from guidellm.schemas import GenerationRequest, RequestInfo
from guidellm.schemas.backends.openai_http import OpenAIHTTPBackendArgs


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(completion(asked["model"]))

    def log_message(self, *_):
        pass


async def main(port):
    for name in CHARACTERS:
        target = f"http://127.0.0.1:{port}"
        backend = OpenAIHTTPBackend(
            OpenAIHTTPBackendArgs(target=target, model=name, request_format="/v1/completions")
        )
        await backend.process_startup()
        told = "nothing"
        try:
            request = GenerationRequest(columns={"text_column": ["x"]})
            async for response, _ in backend.resolve(request, RequestInfo()):
                told = ascii(response.text) if response else told
        except json.JSONDecodeError:
            told = "failed"
        print(f"guidellm, {name}: {told}")
        await backend.process_shutdown()


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asyncio.run(main(server.server_port))
    server.shutdown()
PY
cat >with-aiperf.py <<'PY'
import asyncio
import json

from aiperf.transports.sse_utils import AsyncSSEStreamReader
from answers import CHARACTERS, delta


async def pieces(data):
    yield data


async def main():
    for with_name in (False, True):
        for name in CHARACTERS:
            reader = AsyncSSEStreamReader(pieces(delta(name, with_name)))
            (message,) = await reader.read_complete_stream()
            told = json.loads(message.extract_data_content())["delta"]
            lines = "event and data" if with_name else "data"
            print(f"aiperf, {lines}, {name}: {ascii(told)}")


asyncio.run(main())
PY
{
  guidellm/bin/python with-guidellm.py 2>guidellm.log
  aiperf/bin/python with-aiperf.py
} | tee output
cat >expected <<'TXT'
guidellm, plain: 'a-b'
guidellm, U+2028: failed
guidellm, U+0085: failed
aiperf, data, plain: 'a-b'
aiperf, data, U+2028: 'a\u2028b'
aiperf, data, U+0085: 'a\x85b'
aiperf, event and data, plain: 'a-b'
aiperf, event and data, U+2028: 'a\nb'
aiperf, event and data, U+0085: 'a\nb'
TXT
cmp expected output

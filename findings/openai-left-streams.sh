#!/bin/sh
# Who breaks out of a stream of OpenAI's client for Python goes on being sent the answer, and an engine
# computes it to its end; of Anthropic's, while a variable has the stream. Close it, as `with` does.
# Seen with openai 3.51.0, anthropic 2.10.0, ten events in 2 s: whether all are sent, as below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q anthropic==2.10.0 openai==3.51.0

cat >leave.py <<'PY'
import asyncio
import http.server
import threading
import time

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

EVENT = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        Server.sent = 0
        self.send_response(200)
        self.end_headers()
        for _ in range(10):
            self.wfile.write(EVENT)
            Server.sent += 1
            time.sleep(0.2)


server = http.server.ThreadingHTTPServer(("", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()


async def leave():
    options = {"api_key": "-", "base_url": f"http://127.0.0.1:{server.server_port}"}
    for api in AsyncOpenAI(**options).chat.completions, AsyncAnthropic(**options).messages:
        for how in "held", "dropped", "closed":
            stream = await api.create(model="m", messages=[], max_tokens=9, stream=True)
            async for _ in stream:
                break
            if how == "closed":
                await stream.close()
            if how == "dropped":
                del stream
            await asyncio.sleep(3)
            print(type(api).__name__, how, Server.sent == 10)


asyncio.run(leave())
PY
python/bin/python leave.py 2>log | tee output
cat >expected <<'TXT'
AsyncCompletions held True
AsyncCompletions dropped True
AsyncCompletions closed False
AsyncMessages held True
AsyncMessages dropped False
AsyncMessages closed False
TXT
cmp expected output

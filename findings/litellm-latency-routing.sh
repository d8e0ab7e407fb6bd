#!/bin/sh
# By LiteLLM's `latency-based-routing` a new engine has latency 0, and gets all there is until its first
# answer: 40 of 40 chats at once, beside two warm ones. A timeout counts as 1,000 s, but not for streamed
# chats: they go by the time to the first token, of which a hung engine gets no more. And a second Router
# of a process, with the same settings, draws lots: its observer passes for the first one's, and isn't
# added. Nothing is said of it.
# Seen with litellm 1.110.2, cooldowns off: the output below, of whole answers, then of streams.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q litellm==1.110.2 openai==3.57.0 httpx==0.28.1 pydantic==2.14.4 2>log

cat >route.py <<'PY'
import asyncio
import collections
import http.server
import json
import sys
import threading
from time import sleep

import litellm

stream = sys.argv[1] == "streamed"
seconds = {"fast": 0, "slow": 0.3, "new": 1}
served = collections.Counter()


class Engine(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        name = self.path.split("/")[1]
        served[name] += 1
        sleep(seconds[name])
        text = {"delta" if stream else "message": {"content": "x"}}
        data = json.dumps({"choices": [{"index": 0, **text, "finish_reason": "stop"}]})
        self.send_response(200)
        self.end_headers()
        self.wfile.write((f"data: {data}\n\n" if stream else data).encode())


http.server.ThreadingHTTPServer.request_queue_size = 40
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
threading.Thread(target=server.serve_forever, daemon=True).start()


def engine(name):
    url = f"http://127.0.0.1:{server.server_port}/{name}/v1"
    params = {"model": "hosted_vllm/m", "api_base": url}
    return dict(model_name="m", litellm_params=params, model_info={"id": name})


async def chat(ask, model="m", **more):
    try:
        answer = await ask(model=model, messages=[], stream=stream, **more)
        if stream:
            _ = [chunk async for chunk in answer]
    except litellm.Timeout:
        pass
    await asyncio.sleep(0.1)  # It's counted now.


async def main():
    await chat(litellm.acompletion, **engine("fast")["litellm_params"])  # It takes longer.
    settings = {"num_retries": 0, "timeout": 5, "disable_cooldowns": True}
    for which in ("first", "second"):
        engines = [engine("fast"), engine("slow")]
        router = litellm.Router(engines, routing_strategy="latency-based-routing", **settings)
        served.clear()
        for _ in range(30):
            await chat(router.acompletion)
        print(which, "learns" if served["slow"] < 6 else "draws lots")
        if which == "second":
            break
        seconds["fast"] = 6
        served.clear()
        for _ in range(3):
            await chat(router.acompletion)
        print("hung:", served["fast"], "of 3")
        seconds["fast"] = 0
        router.add_deployment(litellm.types.router.Deployment(**engine("new")))
        await asyncio.gather(*(chat(router.acompletion) for _ in range(40)))
        print("new:", served["new"], "of 40")


asyncio.run(main())
PY
export LITELLM_LOCAL_MODEL_COST_MAP=True
for how in whole streamed; do timeout 120 python/bin/python route.py $how >$how 2>log.$how & done
wait
cat whole streamed | tee output
cat >expected <<'TXT'
first learns
hung: 1 of 3
new: 40 of 40
second draws lots
first learns
hung: 3 of 3
new: 40 of 40
second draws lots
TXT
cmp expected output

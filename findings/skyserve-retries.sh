#!/bin/sh
# SkyServe's load balancer takes a replica for lost that hasn't answered within `stream_timeout_seconds`, by
# default 120, and sends the request again, three times in all, before it answers 500. With a chat that
# isn't streamed that's the time of the whole answer: of one that takes 130 s three replicas compute 120 s
# each, and it never comes.
# Seen with skypilot 0.14.1, the time being 1 s: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q skypilot==0.14.1 aiohttp==3.14.3 fastapi==0.136.1 httpx==0.28.1 2>log

cat >chat.py <<'PY'
import asyncio
import http.server
import json
import threading
from time import sleep

import httpx
from sky.serve import load_balancer


class Server(http.server.BaseHTTPRequestHandler):
    """SkyServe's controller, which names the replicas, and the only one of them."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        served.append(self.path)
        sleep(asked.get("seconds", 0))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"replica_info": {url: {}}}).encode())


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
served = []


async def main():
    balancer = load_balancer.SkyServeLoadBalancer(url, 0, stream_timeout_seconds=1)
    await balancer._sync_with_controller_once()
    app = balancer._app
    app.add_api_route("/{path:path}", balancer._proxy_with_retries, methods=["POST"])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=url, timeout=60) as client:
        for seconds in (0, 2):
            served.clear()
            answer = await client.post("/v1/chat/completions", json={"seconds": seconds})
            print(f"answer of {seconds} s: {answer.status_code}, sent {len(served)} times")


asyncio.run(main())
PY
HOME=$folder timeout 60 python/bin/python chat.py 2>log | grep answer | tee output
cat >expected <<'TXT'
answer of 0 s: 200, sent 1 times
answer of 2 s: 500, sent 3 times
TXT
cmp expected output

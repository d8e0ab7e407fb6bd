#!/bin/sh
# LiteLLM's cache of answers has a key of OpenAI's parameters, top_k and a few more. What else it passes
# on to vLLM is in no key: a chat that must answer "yes" or "no", is not to think, or ends nowhere but at
# max_tokens, gets the answer that was kept for the same messages without that, and a caller that parses
# it gets free text.
# Seen with litellm 1.110.2 before a server that numbers its answers: the output below. With
# `enable_caching_on_provider_specific_optional_params` all of them are in the key, even in `extra_body`.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q litellm==1.110.2 fastapi==0.165.0 orjson==3.13.0 soundfile==0.14.0 2>log

cat >ask.py <<'PY'
import http.server
import json
import threading

import litellm

litellm.suppress_debug_info = True  # It prints advice.
answers = 0


class Engine(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global answers
        answers += 1
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": f"answer {answers}"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        common = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({**common, "choices": choices}).encode())


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"
call = {"model": "hosted_vllm/m", "api_base": url, "api_key": "k", "max_retries": 0, "caching": True}
SILENT = {"chat_template_kwargs": {"enable_thinking": False}}
for more in (False, True):
    litellm.cache = litellm.Cache(type="local")
    litellm.enable_caching_on_provider_specific_optional_params = more
    print("all in the key:" if more else "as it comes:")
    for asked in (
        {},
        {"seed": 1},
        {"top_k": 1},
        {"min_p": 0.5},
        {"ignore_eos": True},
        {"structured_outputs": {"choice": ["yes", "no"]}},
        SILENT,
        {"extra_body": SILENT},
    ):
        answer = litellm.completion(messages=[{"role": "user", "content": "So?"}], **call, **asked)
        print(answer.choices[0].message.content, *asked)
PY
LITELLM_LOCAL_MODEL_COST_MAP=True timeout 120 python/bin/python ask.py 2>log | tee output
cat >expected <<'TXT'
as it comes:
answer 1
answer 2 seed
answer 3 top_k
answer 1 min_p
answer 1 ignore_eos
answer 1 structured_outputs
answer 1 chat_template_kwargs
answer 1 extra_body
all in the key:
answer 4
answer 5 seed
answer 6 top_k
answer 7 min_p
answer 8 ignore_eos
answer 9 structured_outputs
answer 10 chat_template_kwargs
answer 11 extra_body
TXT
cmp expected output

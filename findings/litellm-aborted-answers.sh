#!/bin/sh
# A vLLM engine that is put to sleep, paused or stopped ends what it has under way, by default, with half
# an answer and the finish reason `abort`. LiteLLM makes an error of it where a chat is streamed, and
# "stop" of all others: but for a warning in LiteLLM's log, half an answer has become a whole one.
# Seen with litellm 1.110.2 before a server that answers as vLLM does, whose aborts bring no more text:
# as below, whole and streamed. When vLLM 0.33.0 aborts is in its sources (vllm/v1/engine/core.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q litellm==1.110.2 2>pip.log

cat >ask.py <<'PY'
import http.server
import json
import threading

import litellm
import openai

litellm.suppress_debug_info = True  # It prints advice.


class Engine(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        streamed, chat = asked.get("stream"), "messages" in asked
        kind = "chat.completion" if chat else "text_completion"
        common = {"id": "1", "object": kind, "created": 1, "model": "m"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}

        def choice(text, reason):
            content = {"text": text}
            if chat:
                content = {"delta" if streamed else "message": {"content": text}}
            return {"index": 0, **content, "finish_reason": reason, "stop_reason": None}

        if streamed:
            common["object"] += ".chunk" if chat else ""
            choices = [choice("half", None), choice("", asked["model"])]
            chunks = [json.dumps({**common, "choices": [one]}) for one in choices]
            data = "".join(f"data: {chunk}\n\n" for chunk in [*chunks, "[DONE]"])
        else:
            choices = [choice("half", asked["model"])]
            data = json.dumps({**common, "choices": choices, "usage": usage})
        self.send_response(200)
        kind = "text/event-stream" if streamed else "application/json"
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(data.encode())


def ask(model, call, asked, streamed):
    try:
        answer = call(model=model, api_base=url, api_key="k", max_retries=0, stream=streamed, **asked)
        return (list(answer)[-1] if streamed else answer).choices[0].finish_reason
    except openai.APIError:
        return "error"


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"
CALLS = (
    ("chat", litellm.completion, {"messages": [{"role": "user", "content": "x"}]}),
    ("text", litellm.text_completion, {"prompt": "x"}),
)
for reason in ("length", "abort"):
    for provider in ("hosted_vllm", "openai"):
        for name, call, asked in CALLS:
            whole, streamed = (ask(f"{provider}/{reason}", call, asked, how) for how in (False, True))
            print(f"{reason}, {provider}, {name}: {whole}, {streamed}")
PY
LITELLM_LOCAL_MODEL_COST_MAP=True timeout 120 python/bin/python ask.py 2>log | tee output
cat >expected <<'TXT'
length, hosted_vllm, chat: length, length
length, hosted_vllm, text: length, length
length, openai, chat: length, length
length, openai, text: length, length
abort, hosted_vllm, chat: stop, error
abort, hosted_vllm, text: stop, stop
abort, openai, chat: stop, error
abort, openai, text: stop, stop
TXT
cmp expected output

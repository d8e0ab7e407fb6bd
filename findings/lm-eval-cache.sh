#!/bin/sh
# With `--use_cache`, by its README for runs of the same (model, task), lm-eval keeps an answer by what was
# asked alone: with one path for two models, or for one before and after its quantization, the second isn't
# asked at all, and has the first's score to the last digit. Repetitions at a temperature aren't either,
# unless the task says `do_sample`.
# Seen with lm-eval 0.4.13 before a server that counts what it is asked: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q "lm_eval[api]==0.4.13" datasets==5.2.0 2>pip.log

echo '{"question": "2 + 2 =", "answer": "4"}' >sums.jsonl
cat >sums.yaml <<'YAML'
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\n"], temperature: 0.7}
metric_list: [{metric: exact_match}]
YAML
cat >evaluate_models.py <<'PY'
import http.server
import json
import threading

import lm_eval

asked = []


class Engine(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        answer = {"right": "4", "wrong": "5"}[asked[-1]["model"]]
        choice = {"index": 0, "message": {"role": "assistant", "content": answer}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [choice]}).encode())


server = http.server.HTTPServer(("127.0.0.1", 0), Engine)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
for model, cache in ("right", "cache"), ("right", "cache"), ("wrong", "cache"), ("wrong", None):
    asked.clear()
    results = lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args={"model": model, "base_url": url},
        tasks=["sums"],
        task_manager=lm_eval.tasks.TaskManager(include_path="."),
        apply_chat_template=True,
        use_cache=cache,
    )["results"]
    print(model, cache, results["sums"]["exact_match,none"], [body["temperature"] for body in asked])
PY
HF_HOME=home HF_HUB_OFFLINE=1 python/bin/python evaluate_models.py 2>log | tee output
cat >expected <<'TXT'
right cache 1.0 [0.7]
right cache 1.0 []
wrong cache 1.0 []
wrong None 0.0 [0.7]
TXT
cmp expected output

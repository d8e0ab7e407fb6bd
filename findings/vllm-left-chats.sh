#!/bin/sh
# A chat whose client gives up is no failure to vLLM's metrics. With an answer that isn't streamed it's a
# 2xx of http_requests_total: behind a gateway that times out, an overloaded engine has no errors. And
# none of vLLM's histograms has it, nor vllm:request_success_total by the reason `abort`: the longest times
# are missing.
# Seen with vLLM 0.33.0 and prometheus-fastapi-instrumentator 8.1.0: as below. What watches clients and
# what counts requests is taken from vLLM's wheel; the rest of vLLM, which needs torch, are mocks.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q fastapi==0.136.1 starlette==1.3.1 prometheus-fastapi-instrumentator==8.1.0 \
  prometheus_client==0.26.0 msgspec==0.21.0 numpy==2.3.5 orjson==3.11.7 2>log
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >leave.py <<'PY'
import asyncio
import builtins
import glob
import sys
import time
import types
import zipfile
from unittest.mock import AsyncMock, MagicMock

from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator

wheel = zipfile.ZipFile(glob.glob("vllm-*.whl")[0])
taken = {}


def import_(name, *more):
    mocked = name.startswith(("vllm", "torch"))
    return taken.get(name, MagicMock()) if mocked else __import__(name, *more)


for file in "metrics/stats", "engine/__init__", "engine/output_processor":
    name = "vllm.v1." + file.removesuffix("/__init__").replace("/", ".")
    taken[name] = sys.modules[name] = types.ModuleType(name)
    space = vars(taken[name])
    space["__builtins__"] = {**vars(builtins), "__import__": import_}
    exec(wheel.read(f"vllm/v1/{file}.py"), space)
utils = {"__builtins__": space["__builtins__"]}
exec(wheel.read("vllm/entrypoints/serve/utils/api_utils.py"), utils)
metrics, engine, output = taken.values()

output.RequestState.make_request_output = MagicMock()
processor = output.OutputProcessor(None, log_stats=True)
stats = metrics.IterationStats()
app = FastAPI()
registry = CollectorRegistry()
Instrumentator(registry=registry).add().instrument(app)


@app.post("/{id}")
@utils["with_cancellation"]
async def chat(id: str, raw_request: Request):
    asked = MagicMock(request_id=id, external_req_id=id, resumable=False, arrival_time=time.time())
    asked.sampling_params.configure_mock(extra_args=None, stream_interval=None)
    processor.add_request(asked, None, queue=MagicMock())
    processor.request_states[id].detokenizer.update.return_value = None
    try:
        await asyncio.sleep(60 * (id == "left"))
    except asyncio.CancelledError:  # As vLLM's AsyncLLM.generate().
        processor.abort_requests([id], internal=False)
        raise
    done = engine.EngineCoreOutput(id, [1], finish_reason=engine.FinishReason.STOP)
    processor.process_outputs([done], time.time(), stats)


async def receive():
    await asyncio.sleep(1)
    return {"type": "http.disconnect"}


for id in ("answered", "left"):
    scope = {"type": "http", "method": "POST", "path": f"/{id}", "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, AsyncMock()))
    labels = {"method": "POST", "handler": "/{id}", "status": "2xx"}
    http = registry.get_sample_value("http_requests_total", labels)
    print(f"{id}: 2xx {http:g}, vLLM {len(stats.finished_requests)}")
PY
timeout 60 python/bin/python leave.py | tee output
printf 'answered: 2xx 1, vLLM 1\nleft: 2xx 2, vLLM 1\n' | cmp - output

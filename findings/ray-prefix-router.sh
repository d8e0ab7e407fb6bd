#!/bin/sh
# Ray Serve LLM's prefix-aware router weighs a match against load by a threshold that is infinite unless
# it is given: it takes the replica that knows most of a prompt, however many chats that has. A tenth of
# the prompt will do, such as the system prompt that all chats have. If one came before the others, they
# all go where it went, and other replicas, those that autoscaling adds for them too, get none. Nor does
# a limit help: Ray Serve LLM has that of 1,000,000,000 chats a replica.
# Seen with ray 2.60.0, three replicas that take a second a chat, and 60 chats 20 ms apart after a first
# one: the output below. With `imbalanced_threshold` in `request_router_kwargs` they are spread.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q "ray[serve]==2.60.0" 2>pip.log

cat >route.py <<'PY'
import asyncio
from collections import Counter
from types import SimpleNamespace

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

ROUTER = (
    "ray.llm._internal.serve.routing_policies.prefix_aware.prefix_aware_router"
    ":PrefixCacheAffinityRouter"
)
SYSTEM = "You are a helpful assistant. " * 3


@serve.deployment(num_replicas=3, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.1})
class Engine:
    async def __call__(self, _):
        await asyncio.sleep(1)
        return serve.get_replica_context().replica_id.unique_id


async def ask(engines, system):
    def chat(number):
        question = {"role": "user", "content": f"{number:03} " * 100}
        messages = [{"role": "system", "content": system}, question]
        return engines.remote(SimpleNamespace(messages=messages))

    async def later(number):
        await asyncio.sleep(number / 50)
        return await chat(number)

    await chat(100)
    return Counter(await asyncio.gather(*map(later, range(60))))


ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
serve.start(proxy_location="Disabled")
for name, system, weighed in (
    ("no system prompt", "", {}),
    ("a system prompt", SYSTEM, {}),
    ("a system prompt and a threshold", SYSTEM, {"imbalanced_threshold": 5}),
):
    router = RequestRouterConfig(request_router_class=ROUTER, request_router_kwargs=weighed)
    app = Engine.options(request_router_config=router).bind()
    engines = serve.run(app, name=name, route_prefix=None)
    chats = asyncio.run(ask(engines, system))
    most = max(chats.values())
    print(f"{name}: {'under 30' if most < 30 else most} of 60 chats in one replica")
    serve.delete(name)
ray.shutdown()
PY
RAY_USAGE_STATS_ENABLED=0 RAY_TMPDIR="$folder" timeout 240 python/bin/python route.py 2>ray.log | tee output
cat >expected <<'TXT'
no system prompt: under 30 of 60 chats in one replica
a system prompt: 60 of 60 chats in one replica
a system prompt and a threshold: under 30 of 60 chats in one replica
TXT
cmp expected output

#!/bin/sh
# GuideLLM's Poisson load is none: each of its processes, ten by default, draws gaps between requests from
# a generator of its own, all with one seed, and adds them to a clock that they share. So every gap comes
# ten times, mostly in a row: where two requests come close, ten do, and requests in half a second vary
# eight times as much. Queues, batch sizes and the tail of times to first token are of another load.
# Seen with guidellm 0.8.1, by its scheduler before a backend that does nothing: the output below, for
# 41 and 382 gaps. GUIDELLM__MAX_WORKER_PROCESSES=1 has Poisson's.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps guidellm==0.8.1
python/bin/pip install -q culsans==0.10.0 loguru==0.7.3 msgpack==1.2.4 pydantic==2.14.4 \
  pydantic-settings==2.16.3 pyyaml==6.0.4 uvloop==0.23.0 2>pip.log

cat >load.py <<'PY'
import asyncio

from guidellm.scheduler import AsyncPoissonStrategy, Scheduler
from guidellm.scheduler.schemas.conversation import ConversationGraph, ConversationNode


class Backend:
    processes_limit = requests_limit = None
    info = {}

    async def nothing(self):
        pass

    process_startup = validate = process_shutdown = nothing

    async def resolve(self, request, info, history=None):
        yield None, info


def chat(name):
    node = ConversationNode(node_id=name, agent_id="user", request=name)
    return ConversationGraph(graph_id=name, nodes={name: node})


async def main():
    chats = [chat(str(index)) for index in range(401)]
    times = []
    load = Scheduler().run(chats, Backend(), AsyncPoissonStrategy(rate=40), None)
    async for _, _, info, state in load:
        if info.status == "completed":
            times.append(info.timings.targeted_start - state.start_time)
    times.sort()
    gaps = {round(later - time, 5) for time, later in zip(times, times[1:])}
    number = ">350" if len(gaps) > 350 else "<60"
    print(f"processes: {state.num_processes}, different gaps among 400: {number}")


if __name__ == "__main__":
    asyncio.run(main())
PY
for GUIDELLM__MAX_WORKER_PROCESSES in 10 1; do
  export GUIDELLM__MAX_WORKER_PROCESSES
  python/bin/python load.py 2>load.log
done | tee output
cat >expected <<'TXT'
processes: 10, different gaps among 400: <60
processes: 1, different gaps among 400: >350
TXT
cmp expected output

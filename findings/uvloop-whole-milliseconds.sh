#!/bin/sh
# uvloop keeps time in whole milliseconds, and rounds to the nearest: `asyncio.sleep` of less than
# half of one doesn't wait at all, one of 1.4 ms ends after one, and `loop.time()` has no fraction.
# A client that spaces its requests by sleeping sends 2,500 a second at once; asyncio's own loop
# doesn't wake early. GuideLLM 0.8.1 takes uvloop where it is installed, and spaces requests in this
# way; and vLLM's server runs on it, where `loop.time()` would tell latencies in whole milliseconds.
# Seen with uvloop 0.23.0 under Python 3.11: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q uvloop==0.23.0

cat >sleep.py <<'PY'
import asyncio
import time

import uvloop

REQUESTS = 200


async def seconds(gap):
    """What the shortest and all together took."""
    began = time.perf_counter()
    taken = []
    for _ in range(REQUESTS):
        before = time.perf_counter()
        await asyncio.sleep(gap)
        taken.append(time.perf_counter() - before)
    return min(taken), time.perf_counter() - began


async def main():
    now = asyncio.get_running_loop().time() * 1000
    print("  loop.time() is", "whole milliseconds" if abs(now - round(now)) < 1e-5 else "finer")
    for gap in (0.0004, 0.0014):
        shortest, together = await seconds(gap)
        print(f"  sleep({gap}) ends", "early" if shortest < gap else "in time", end=", ")
        print(REQUESTS, "of them", "early" if together < REQUESTS * gap / 2 else "in time")


print("asyncio")
asyncio.run(main())
print("uvloop")
uvloop.run(main())
PY
python/bin/python sleep.py | tee output
cat >expected <<'TXT'
asyncio
  loop.time() is finer
  sleep(0.0004) ends in time, 200 of them in time
  sleep(0.0014) ends in time, 200 of them in time
uvloop
  loop.time() is whole milliseconds
  sleep(0.0004) ends early, 200 of them early
  sleep(0.0014) ends early, 200 of them in time
TXT
cmp expected output

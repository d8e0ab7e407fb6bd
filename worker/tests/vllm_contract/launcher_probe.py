"""What a forked process has of vLLM: called in the place of its ``main``."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def echo(queue: Any) -> None:
    queue.put([os.getpid(), "vllm.v1.engine.core" in sys.modules])


def main() -> None:
    import numpy
    import torch
    import vllm.envs as envs
    from vllm import plugins
    from vllm.utils.system_utils import get_mp_context

    context = get_mp_context()
    queue = context.Queue()
    rank = context.Process(target=echo, args=(queue,))
    rank.start()
    told = queue.get(timeout=60)
    rank.join(60)
    facts = {
        "argv": sys.argv[1:],
        "method": context.get_start_method(),
        "ownPid": os.getpid(),
        "rank": told,
        "rankEnded": rank.exitcode,
        "plugins": plugins.plugins_loaded,
        "cuda": torch.cuda.is_initialized(),
        "root": envs.VLLM_CACHE_ROOT,
        "draws": [numpy.random.random(), torch.rand(1).item()],
        "inductorThreads": os.environ.get("TORCHINDUCTOR_COMPILE_THREADS"),
    }
    print(json.dumps(facts), flush=True)

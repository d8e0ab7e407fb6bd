"""How long vLLM waits for its ranks."""

from __future__ import annotations

import os

STEP = "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"
# vLLM's own default.
STEP_SECONDS = 300


def step_seconds() -> int:
    """Seconds that vLLM waits for a step's answer, as its variable says."""
    return int(os.environ.get(STEP) or STEP_SECONDS)

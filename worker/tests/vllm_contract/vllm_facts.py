"""What differs between the versions of vLLM that these tests run against, and since when."""

from __future__ import annotations

from importlib.metadata import version

# Of the wheel: what vLLM itself says is doctored in some tests.
AT = tuple(int(part) for part in version("vllm").split(".")[:2])

# The warm-up is a call of its own, after the KV cache is there, and counts all memory of torch.
WARMS_UP_SEPARATELY = COUNTS_ALL_MEMORY = AT >= (0, 27)
# ``profile_cudagraph_memory`` captures; FULL graphs are captured on their context's stream.
PROFILES_BY_CAPTURING = FULL_ON_CONTEXT_STREAM = AT >= (0, 29)
# vLLM freezes the heap and turns the collector off around its capture, and thaws it after.
FREEZES_HEAP = AT >= (0, 30)
# Asleep is who has a tag that sleeps; ``is_sleeping`` can't be assigned.
SLEEPS_BY_TAG = AT >= (0, 31)
# What kernels keep by stream is to be made on the capture stream, before the first capture.
WARMS_UP_ON_CAPTURE_STREAM = AT >= (0, 31)
# Attention breaks a recording whenever there is one, not only where the switch was on at import.
BREAKS_BY_NEED = AT >= (0, 33)

"""Inductor's patterns of attention and of padded products, which vLLM has made in its warm-up.

They are made by device, of tensors that hold nothing. Each is the same on every GPU, and what torch
has once it doesn't add again; it only must not look whether there is a GPU, since CUDA's driver
would be initialised by that. Patterns that differ between GPUs are left to the servers.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

RANKS = 8
"""Each of a server's ranks on a host has a GPU of its own, by its number."""


def keep_patterns() -> None:
    """Make them where torch keeps them, for the ranks of a server.

    Raises:
        AttributeError: this torch makes them otherwise.
        ImportError: likewise.
    """
    torch = importlib.import_module("torch")
    padding = importlib.import_module("torch._inductor.fx_passes.pad_mm")
    attention = importlib.import_module("torch._inductor.fx_passes.fuse_attention")
    matcher = importlib.import_module("torch._inductor.pattern_matcher")

    @matcher.init_once_fakemode  # type: ignore[untyped-decorator]
    def make(input_device: object = None) -> None:
        # In the order of torch's own, which finds them made by these very arguments.
        padding._pad_mm_init(input_device)
        attention._sfdp_init(input_device)

    with without_gpu():
        for index in range(RANKS):
            make(torch.device(f"cuda:{index}"))


@contextlib.contextmanager
def without_gpu() -> Iterator[None]:
    """Let torch believe that there is none, and let it not remember that."""
    cuda: Any = importlib.import_module("torch.cuda")
    fake = importlib.import_module("torch._subclasses.fake_tensor")
    asked, looked = cuda.is_available, fake.init_gpu_context
    cuda.is_available = lambda: False
    try:
        yield
    finally:
        cuda.is_available = asked
        looked.cache_clear()

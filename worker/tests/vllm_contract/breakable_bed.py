"""Breakable graphs on the CPU: vLLM's own wrapper, break points and managers, and a CUDA graph that
replays (``replaying``), so that an attention that doesn't break is found out by its results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import replaying
from builders import HIDDEN, Wrapper, bring_up_rank, serve, step
from builders import make_config as with_a_compiler
from builders import make_runner as plain_runner

LAYERS = 3
# vLLM's: a CUDA graph up to each attention, and one after the last.
PARTS = LAYERS + 1
VOCABULARY = 32


class Model:
    """Layers with an attention that reads what the batch is from the forward context."""

    def __init__(self, config: Any, breaks: Callable[[Any], Any]) -> None:
        """Without a compiler: nothing of it is cut into pieces.

        Args:
            config: what of a ``VllmConfig`` there is.
            breaks: vLLM's decorator of break points, or none.
        """
        self.config = config
        self.ran: list[int] = []
        self.attention = breaks(self._attention)
        self.attended: list[int] = []
        self.fail_in_layer: int | None = None
        self.fail_in_attention: int | None = None

    def _attention(self, query: Any, output: Any, layer: int) -> None:
        from vllm.forward_context import get_forward_context

        self.attended.append(layer)
        if self.fail_in_attention == layer:
            raise RuntimeError(f"attention {layer} failed")
        batch = get_forward_context().attn_metadata
        output.copy_(query * batch["scale"] + batch["prefills"])

    def modules(self) -> Iterator[Any]:
        """As of an ``nn.Module``: nothing was compiled."""
        return iter(())

    def __call__(self, input_ids: Any, positions: Any, **_: Any) -> Any:
        import torch

        self.ran.append(len(input_ids))
        x = input_ids.float()[:, None].expand(-1, HIDDEN) + positions.float()[:, None]
        for layer in range(LAYERS):
            if self.fail_in_layer == layer:
                raise RuntimeError(f"layer {layer} failed")
            query = x * 1.25 + layer
            output = torch.empty_like(query)
            self.attention(query, output, layer)
            x = output + 1
        return x * 0.5


def install(gpu: Any, patch: Any, *, breaks: bool = True) -> None:
    """Turn breakable graphs on, over the CUDA stand-in; ``patch`` is pytest's ``monkeypatch``.

    Args:
        gpu: the stand-in.
        patch: undoes everything after a test.
        breaks: vLLM's attention was imported with the switch on, which decides to 0.32.
    """
    from vllm.compilation import breakable_cudagraph
    from vllm.model_executor.layers.attention import attention

    import cuda_stand_in

    patch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
    breakable_cudagraph.BreakableCUDAGraphWrapper._all_instances.clear()
    patch.setattr(breakable_cudagraph.BreakableCUDAGraphCapture._tls, "active", None, raising=False)

    replaying.install(patch)
    platform = SimpleNamespace(get_global_graph_pool=lambda: cuda_stand_in.POOL)
    for name, value in (
        ("current_platform", platform),
        ("weak_ref_tensor", lambda value: value),
        ("weak_ref_tensors", lambda value: value),
        ("set_graph_pool_id", lambda _: None),  # to 0.31
    ):
        if hasattr(breakable_cudagraph, name):
            patch.setattr(breakable_cudagraph, name, value)
    if not _IMPORTED:
        _IMPORTED.append(attention.unified_attention_with_output)
    own = _undecorated(attention.unified_attention_with_output)
    if breaks:
        own = breakable_cudagraph.eager_break_during_capture(own)
    patch.setattr(attention, "unified_attention_with_output", own)


def imported_with_breaks() -> bool:
    """Whether vLLM's attention ends a recording as it was imported here."""
    from vllm.compilation import breakable_cudagraph

    return bool(_IMPORTED[0].__code__.co_filename == breakable_cudagraph.__file__)


# vLLM's attention before anything was replaced in it.
_IMPORTED: list[Any] = []


def _undecorated(function: Any) -> Any:
    from vllm.compilation import breakable_cudagraph

    while function.__code__.co_filename == breakable_cudagraph.__file__:
        function = function.__wrapped__
    return function


def make_config(mode: str = "FULL_AND_PIECEWISE", **config: Any) -> Any:
    """As vLLM leaves it where breakable graphs are on: nothing is compiled."""
    made = with_a_compiler(mode, **config)
    made.compilation_config.mode = 0
    return made


def make_runner(config: Any, breaks: Callable[[Any], Any] | None = None) -> Any:
    """A runner whose attention takes a batch's numbers from metadata, as steps make it."""
    import torch
    from vllm.compilation.breakable_cudagraph import eager_break_during_capture

    runner = plain_runner(config)
    runner.model = Model(config, breaks or eager_break_during_capture)
    # What kernels read is in memory that stays; what Python decides by is not.
    scale = torch.ones(1)
    runner.model_state.prepare_attn = lambda *_, **__: {"scale": scale, "prefills": 0}

    def execute(scheduled: Any, **kwargs: Any) -> Any:
        lengths = list(scheduled.num_scheduled_tokens.values())
        scale.fill_(1 + sum(lengths) / 8)
        metadata = {"scale": scale, "prefills": sum(n > 1 for n in lengths)}
        return serve(runner, scheduled, metadata, **kwargs)

    runner.execute_model = execute
    return runner


def start(
    mode: str = "FULL_AND_PIECEWISE",
    first: list[str] | None = None,
    tiers: tuple[tuple[str, ...], ...] = (),
    guard_margin: int | None = None,
    verify: bool = False,
    **config: Any,
) -> Any:
    """One rank through start-up as the engine drives it."""
    wrapper = Wrapper(make_runner(make_config(mode, **config)))
    bring_up_rank(wrapper, first, tiers, guard_margin, verify)
    return wrapper


def entries(runner: Any) -> dict[int, Any]:
    """What vLLM's wrapper holds, by tokens."""
    from lazygraph_vllm.vllm.breakable import batch_of

    held = runner.cudagraph_manager.breakable_cg_runner.entries
    return {batch_of(key).num_tokens: entry for key, entry in held.items()}


def rows(runner: Any, *lengths: int) -> Any:
    """One step's hidden states, those of its tokens."""
    import torch

    count = sum(lengths)
    draw = torch.Generator().manual_seed(count + len(lengths))
    buffers = runner.input_buffers
    size = min(count, len(buffers.input_ids))
    buffers.input_ids[:size] = torch.randint(0, VOCABULARY, (size,), generator=draw)
    buffers.positions[:size] = torch.arange(size)
    return runner.execute_model(step(*lengths))[:count].clone()


@contextlib.contextmanager
def ungraphed(runner: Any) -> Iterator[None]:
    """Steps inside are vLLM's own without any graph."""
    manager = runner.cudagraph_manager
    ours, manager.lazygraph_dispatch = getattr(manager, "lazygraph_dispatch", None), None
    before, manager._graphs_captured = manager._graphs_captured, False
    try:
        yield
    finally:
        manager._graphs_captured = before
        if ours is None:
            del manager.lazygraph_dispatch
        else:
            manager.lazygraph_dispatch = ours

"""Sizes for which vLLM's compiler has code of its own run once before capture."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

import builders
from builders import Wrapper, bring_up_rank, make_config, make_runner
from lazygraph_vllm.rank import calls as rank

pytestmark = pytest.mark.usefixtures("pristine")


class Code:
    """A compiled range: Inductor tunes its kernels at the first run, and waits for the device."""

    def __init__(self, gpu: Any) -> None:
        self.gpu = gpu
        self.ran = False

    def __call__(self, _: int, x: Any) -> Any:
        if not self.ran and self.gpu.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.ran = True
        return x + 1


@pytest.fixture
def make(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A runner whose pieces are vLLM's own ``PiecewiseBackend``, as loaded from its cache."""
    from types import SimpleNamespace

    from vllm.compilation.piecewise_backend import PiecewiseBackend
    from vllm.config.compilation import CompilationConfig

    def piece(model: Any, index: int) -> Any:
        compilation = model.config.compilation_config
        ranges = [str(r) for r in compilation.get_compile_ranges()]
        singles = [str(type(compilation.get_compile_ranges()[0])(n, n)) for n in
                   compilation.compile_sizes]  # fmt: skip
        codes = {name: Code(gpu) for name in (*ranges, *singles)}
        backend = PiecewiseBackend(
            None,
            model.config,
            index,
            builders.PIECES,
            [0],
            SimpleNamespace(is_encoder=False),
            returns_tuple=True,
            compiled_runnables=codes,
        )
        model.__dict__.setdefault("codes", []).append(codes)
        return lambda x: backend(x.shape[0], x)

    monkeypatch.setattr(builders.Model, "_piece", piece)

    def made(ends: list[int], sizes: list[int]) -> Any:
        config = make_config()
        compilation = config.compilation_config
        compilation.compile_ranges_endpoints = ends
        compilation.compile_sizes = sizes
        compilation.get_compile_ranges = functools.partial(
            CompilationConfig.get_compile_ranges, compilation
        )
        return make_runner(config)

    return made


CASES = [([64], []), ([4, 64], []), ([2, 4, 8, 64], []), ([64], [1, 4]), ([4, 64], [1, 2, 8, 16])]


@pytest.mark.parametrize(("ends", "sizes"), CASES)
def test_stock_runs_all_code_before_it_is_captured(
    make: Any, ends: list[int], sizes: list[int]
) -> None:
    """Positive control: vLLM warms up before each capture."""
    make(ends, sizes).capture_model()


@pytest.mark.parametrize(("ends", "sizes"), CASES)
def test_so_do_we_in_any_order(make: Any, ends: list[int], sizes: list[int]) -> None:
    for smallest_first in (True, False):
        wrapper = Wrapper(make(ends, sizes))
        assert len(bring_up_rank(wrapper)["captured"]) == 2
        for graph in sorted(wrapper.graphs, key=lambda g: g.tokens, reverse=not smallest_first):
            answer = rank.capture(wrapper, graph.id)
            assert "error" not in answer, (graph.id, answer)


def test_no_step_after_ready_is_the_first_of_its_range(make: Any) -> None:
    wrapper = Wrapper(make([4, 64], [2]))
    bring_up_rank(wrapper)
    for codes in wrapper.worker.model_runner.model.codes:
        assert [name for name, code in codes.items() if not code.ran and "2, 2" not in name] == []

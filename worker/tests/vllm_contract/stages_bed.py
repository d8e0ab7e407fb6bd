"""A pipeline of two stages on the CPU: vLLM's own managers and wrappers, a few layers on each.

What vLLM's worker does between stages is done here in one process: what a stage hands on is copied
into the next one's buffers, as in ``GPUModelRunner.execute_model``. With CUDA graphs that replay
(``replaying``) a wrong one is found out by its results.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

from breakable_bed import ungraphed
from builders import HIDDEN, Model, Wrapper, bring_up_rank, make_config, make_runner, serve, step
from cuda_stand_in import Group

VOCABULARY = 32
STAGES = 2
TOKENS_MAX = 64
NAMES = ("hidden_states", "residual")


class Stage:
    """One stage's layers: two pieces with attention between them, of which no graph has anything.

    Attributes:
        ran: tokens of each run.
        in_place: a stage writes over what it is handed.
    """

    in_place = True

    def __init__(self, config: Any, number: int, gpu: Any) -> None:
        """Cut into pieces where there are PIECEWISE graphs, by vLLM's own wrapper."""
        from vllm.compilation.cuda_graph import CUDAGraphOptions, CUDAGraphWrapper
        from vllm.config.compilation import CUDAGraphMode

        self.number = number
        self.ran: list[int] = []
        self._gpu = gpu
        self.pieces: list[Any] = [self._embed if number == 0 else self._take, self._leave]
        if config.compilation_config.cudagraph_mode.has_piecewise_cudagraphs():
            self.pieces = [
                CUDAGraphWrapper(
                    piece,
                    config,
                    CUDAGraphMode.PIECEWISE,
                    CUDAGraphOptions(debug_log_enable=False, gc_disable=True, weak_ref_output=i),
                )
                for i, piece in enumerate(self.pieces)
            ]

    def _embed(self, input_ids: Any, positions: Any) -> Any:
        import torch

        x = input_ids.float()[:, None].expand(-1, HIDDEN) + positions.float()[:, None]
        return x * 1.25, x * 0.5, torch.empty_like(x)

    def _take(self, hidden: Any, residual: Any) -> Any:
        import torch

        # In place, as a fused norm does.
        x = residual.add_(hidden) if self.in_place else residual + hidden
        return x * 1.25 + self.number, x * 0.5, torch.empty_like(x)

    def _leave(self, attended: Any, residual: Any) -> Any:
        return attended + 1, residual + attended * 0.25

    def _attend(self, query: Any, output: Any) -> None:
        from vllm.forward_context import get_forward_context

        batch = get_forward_context().attn_metadata
        output.copy_(query * batch["scale"] + batch["prefills"])

    modules = Model.modules

    def __call__(
        self, input_ids: Any, positions: Any, intermediate_tensors: Any = None, **_: Any
    ) -> Any:
        from vllm.sequence import IntermediateTensors

        self._gpu.note("run", self.number, len(positions))
        self.ran.append(len(positions))
        first, last = self.pieces
        if self.number == 0:
            query, residual, attended = first(input_ids, positions)
        else:
            assert input_ids is None, "only the first stage has tokens"
            query, residual, attended = first(*(intermediate_tensors[name] for name in NAMES))
        self._attend(query, attended)
        hidden, residual = last(attended, residual)
        if self.number < STAGES - 1:
            return IntermediateTensors({"hidden_states": hidden, "residual": residual})
        return hidden + residual


class Pipeline:
    """All stages of an engine in one process, each with graphs of its own.

    Attributes:
        at: the stage whose process this is meant to be.
        wrappers: what holds each stage's worker.
    """

    def __init__(self, gpu: Any, patch: Any, mode: str = "FULL_AND_PIECEWISE") -> None:
        """Nothing is captured before ``start``; ``patch`` is pytest's ``monkeypatch``."""
        from vllm.distributed import parallel_state
        from vllm.v1.worker.gpu import cudagraph_utils

        self.at = 0
        pipeline = self

        class StageGroup(Group):
            world_size = STAGES
            is_first_rank = property(lambda _: pipeline.at == 0)  # type: ignore[assignment]
            is_last_rank = property(lambda _: pipeline.at == STAGES - 1)  # type: ignore[assignment]

        self.everybody = Group(gpu, "world")
        self.everybody.world_size, self.everybody.cpu_group = STAGES, "all stages"  # type: ignore[attr-defined]
        for owner in (cudagraph_utils, parallel_state):
            patch.setattr(owner, "get_pp_group", lambda: StageGroup(gpu, "pp"))
        patch.setattr(parallel_state, "get_world_group", lambda: self.everybody)
        # One stage runs after the other here: what all agree on is each one's own word.
        patch.setattr("torch.distributed.all_reduce", lambda *_, **__: None)
        self._instances: list[Any] = [weakref.WeakSet() for _ in range(STAGES)]
        self.wrappers: list[Any] = []
        for number in range(STAGES):
            with self.on(number):
                self.wrappers.append(Wrapper(make_stage(gpu, number, mode), rank=number))

    @contextlib.contextmanager
    def on(self, number: int) -> Iterator[None]:
        """Inside, vLLM's globals are those of this stage's process."""
        from vllm.compilation.cuda_graph import CUDAGraphWrapper

        before = self.at, CUDAGraphWrapper._all_instances
        self.at, CUDAGraphWrapper._all_instances = number, self._instances[number]
        try:
            yield
        finally:
            self.at, CUDAGraphWrapper._all_instances = before

    @property
    def runners(self) -> list[Any]:
        """VLLM's, by stage."""
        return [wrapper.worker.model_runner for wrapper in self.wrappers]

    def call(self, method: Any, *args: Any) -> list[Any]:
        """A collective RPC: what each stage answers."""
        answers = []
        for number, wrapper in enumerate(self.wrappers):
            with self.on(number):
                answers.append(method(wrapper, *args))
        return answers

    def start(self, **options: Any) -> list[dict[str, Any]]:
        """All stages through start-up as the engine drives it; ``bring_up_rank``'s options."""
        return self.call(lambda wrapper: bring_up_rank(wrapper, **options))

    def rows(self, *lengths: int) -> Any:
        """One step through all stages: hidden states of its tokens, as the last one has them."""
        import torch

        count, scheduled = sum(lengths), step(*lengths)
        draw = torch.Generator().manual_seed(count + len(lengths))
        handed = None
        for number, runner in enumerate(self.runners):
            buffers = runner.input_buffers
            if number == 0:
                drawn = torch.randint(0, VOCABULARY, (count,), generator=draw)
                buffers.input_ids[:count] = drawn
            buffers.positions[:count] = torch.arange(count)
            with self.on(number):
                handed = runner.execute_model(scheduled, handed)
        return handed[:count].clone()

    def served(self) -> list[str]:
        """By which graph each stage took the last step."""
        return [runner.lazygraph.dispatch.last_served for runner in self.runners]

    def ungraphed(self, *lengths: int) -> Any:
        """As ``rows``, without any graph."""
        with contextlib.ExitStack() as stack:
            for runner in self.runners:
                stack.enter_context(ungraphed(runner))
            return self.rows(*lengths)


def make_stage(gpu: Any, number: int, mode: str) -> Any:
    """A stage's runner, around a real manager."""
    import torch
    from vllm.sequence import IntermediateTensors
    from vllm.v1.worker.gpu.input_batch import InputBuffers

    config = make_config(mode)
    config.parallel_config.pipeline_parallel_size = STAGES
    # The stand-in model's layers, of which the last stage has more.
    config.model_config.get_num_layers = lambda _: 2 + number
    config.model_config.dtype = torch.float32
    runner = make_runner(config)
    requests = config.scheduler_config.max_num_seqs
    runner.model = Stage(config, number, gpu)
    runner.input_buffers = InputBuffers(requests, TOKENS_MAX, runner.device)
    runner.is_first_pp_rank, runner.is_last_pp_rank = number == 0, number == STAGES - 1
    if number > 0:
        empty = {name: torch.zeros(TOKENS_MAX, HIDDEN) for name in NAMES}
        runner.intermediate_tensors = IntermediateTensors(empty)
    # What kernels read is in memory that stays; what Python decides by is not.
    scale = torch.ones(1)
    runner.model_state.prepare_attn = lambda *_, **__: {"scale": scale, "prefills": 0}

    def execute(scheduled: Any, handed: Any = None, **_: Any) -> Any:
        lengths = list(scheduled.num_scheduled_tokens.values())
        scale.fill_(1 + sum(lengths) / 8)
        metadata = {"scale": scale, "prefills": sum(n > 1 for n in lengths)}
        return serve(runner, scheduled, metadata, handed)

    runner.execute_model = execute
    return runner

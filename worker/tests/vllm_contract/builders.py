"""vLLM's own runner parts, put together on the CPU: real managers, real wrappers, a tiny model."""

from __future__ import annotations

import collections
import contextlib
import inspect
import queue
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from vllm_facts import WARMS_UP_SEPARATELY

HIDDEN = 4
PIECES = 3


def make_config(
    mode: str = "FULL_AND_PIECEWISE",
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16),
    max_num_seqs: int = 8,
) -> Any:
    """What manager, wrappers and forward context read of a ``VllmConfig``."""
    import torch
    from vllm.config.compilation import CUDAGraphMode

    model = SimpleNamespace(
        runner_type="generate",
        enforce_eager=False,
        is_moe=False,
        is_hybrid=False,
        is_encoder_decoder=False,
        is_multimodal_model=False,
        multimodal_config=None,
        served_model_name="tiny",
        model="tiny",
        get_num_layers=lambda _: PIECES - 1,
        get_vocab_size=lambda: 32,
        get_hidden_size=lambda: HIDDEN,
        dtype=torch.bfloat16,
    )
    return SimpleNamespace(
        model_config=model,
        cache_config=SimpleNamespace(
            num_gpu_blocks=100,
            block_size=16,
            kv_cache_size_tokens=1600,
            kv_offloading_size=None,
            kv_cache_memory_bytes=None,
            gpu_memory_utilization=0.9,
            use_kda_recoverssm=False,
            kv_sharing_fast_prefill=False,
        ),
        use_cumem_cudagraph_pool=False,
        load_config=None,
        device_config=None,
        observability_config=None,
        use_v2_model_runner=True,
        lora_config=None,
        speculative_config=None,
        kv_transfer_config=None,
        ec_transfer_config=None,
        offload_config=None,
        shutdown_timeout=0,
        scheduler_config=SimpleNamespace(max_num_seqs=max_num_seqs, max_num_batched_tokens=64),
        compilation_config=SimpleNamespace(
            mode=3,
            cudagraph_mode=CUDAGraphMode[mode],
            cudagraph_capture_sizes=list(sizes),
            max_cudagraph_capture_size=max(sizes),
            static_forward_context={},
            fast_moe_cold_start=False,
            compilation_time=0.0,
            encoder_compilation_time=0.0,
        ),
        parallel_config=SimpleNamespace(
            data_parallel_size=1,
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            distributed_executor_backend="uni",
            use_sequence_parallel_moe=False,
            is_moe_model=False,
            enable_fault_tolerance=False,
        ),
    )


class Model:
    """Compiled code cut into pieces: each in vLLM's own ``CUDAGraphWrapper``, as by its backend."""

    def __init__(self, config: Any, piecewise: bool = True) -> None:
        from vllm.compilation.cuda_graph import CUDAGraphOptions, CUDAGraphWrapper
        from vllm.config.compilation import CUDAGraphMode

        self.config = config
        self.ran: list[int] = []
        self.fail_in_piece: int | None = None
        self.pieces: list[Any] = [self._piece(i) for i in range(PIECES)]
        if piecewise:
            self.pieces = [
                CUDAGraphWrapper(
                    piece,
                    config,
                    CUDAGraphMode.PIECEWISE,
                    CUDAGraphOptions(
                        debug_log_enable=i == 0,
                        gc_disable=i != 0,
                        weak_ref_output=i == PIECES - 1,
                    ),
                )
                for i, piece in enumerate(self.pieces)
            ]

    def _piece(self, index: int) -> Any:
        def piece(x: Any) -> Any:
            if self.fail_in_piece == index:
                raise RuntimeError(f"piece {index} failed")
            return x + 1

        return piece

    def modules(self) -> Iterator[Any]:
        """As of an ``nn.Module``: vLLM looks there whether anything was compiled."""
        from vllm.compilation.wrapper import TorchCompileWithNoGuardsWrapper

        compiled = TorchCompileWithNoGuardsWrapper.__new__(TorchCompileWithNoGuardsWrapper)
        compiled.do_not_compile = False
        yield compiled

    def __call__(self, input_ids: Any, positions: Any, **_: Any) -> Any:
        self.ran.append(len(input_ids))
        x = input_ids.float()[:, None].expand(-1, HIDDEN) + positions.float()[:, None]
        for piece in self.pieces:
            x = piece(x)
        return x


def make_runner(config: Any) -> Any:
    """vLLM's V2 ``GPUModelRunner`` without its constructor, around a real graph manager."""
    import torch
    from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager
    from vllm.v1.worker.gpu.input_batch import InputBuffers
    from vllm.v1.worker.gpu.kv_connector import NO_OP_KV_CONNECTOR
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner
    from vllm.v1.worker.workspace import init_workspace_manager

    device = torch.device("cpu")
    init_workspace_manager(device)
    mode = config.compilation_config.cudagraph_mode
    runner = GPUModelRunner.__new__(GPUModelRunner)
    largest = config.compilation_config.max_cudagraph_capture_size
    tables = torch.zeros(config.scheduler_config.max_num_seqs, 2, dtype=torch.int32)
    slots = torch.zeros(1, largest, dtype=torch.int64)
    for name, value in {
        "vllm_config": config,
        "device": device,
        "model": Model(config, mode.has_piecewise_cudagraphs()),
        "lora_config": None,
        "speculator": None,
        "model_state": SimpleNamespace(
            prepare_dummy_inputs=lambda *_: {},
            prepare_attn=lambda *_, **__: {"attention": True},
            supports_mm_inputs=False,
            capture_inner_cudagraphs=lambda *_: None,
        ),
        "input_buffers": InputBuffers(config.scheduler_config.max_num_seqs, largest, device),
        "intermediate_tensors": None,
        "block_tables": SimpleNamespace(
            cp_size=1,
            get_dummy_block_tables=lambda n: (tables[:n],),
            get_dummy_slot_mappings=lambda n: slots.fill_(-1)[:, :n],
        ),
        "attn_groups": [],
        "kv_connector": NO_OP_KV_CONNECTOR,
        "pcp_manager": None,
        "adaptive_verification": None,
        "eplb": SimpleNamespace(suppress=contextlib.nullcontext),
        "compilation_config": config.compilation_config,
        "kv_cache_config": SimpleNamespace(kv_cache_groups=[]),
        "use_aux_hidden_state_outputs": False,
        "cudagraph_manager": ModelCudaGraphManager(config, device, mode, decode_query_len=1),
        "decode_query_len": 1,
    }.items():
        setattr(runner, name, value)
    runner.execute_model = lambda scheduled, **kwargs: serve(runner, scheduled, **kwargs)
    runner.sample_tokens = lambda *_: "tokens"
    return runner


def step(*lengths: int, computed: int = 10) -> Any:
    """A ``SchedulerOutput`` with so many tokens for each request."""
    return SimpleNamespace(
        num_scheduled_tokens={f"r{i}": n for i, n in enumerate(lengths)},
        total_num_scheduled_tokens=sum(lengths),
        scheduled_cached_reqs=SimpleNamespace(num_computed_tokens=[computed] * len(lengths)),
    )


def uniform_count(requests: int, tokens: int, longest: int) -> int | None:
    """What the runner tells dispatch of a step: its requests' common length, if they have one."""
    from vllm.v1.worker import utils
    from vllm.v1.worker.gpu import cudagraph_utils

    if hasattr(cudagraph_utils, "get_uniform_token_count"):  # to 0.27
        return cudagraph_utils.get_uniform_token_count(requests, tokens, longest)
    # A step with a prefill is never uniform there; here more than one token is a prefill.
    return utils.get_uniform_decode_token_count(requests, tokens, longest, longest == 1)


def is_compatible(desc: Any, requests: int, tokens: int, uniform: int | None) -> bool:
    """vLLM's own rule whether a graph can serve a step without LoRA and microbatches."""
    from vllm.v1.worker.gpu.cudagraph_utils import _is_compatible

    later = {"max_query_len": None, "num_ubatches": 1}  # from 0.28 and from 0.30 on
    known = inspect.signature(_is_compatible).parameters
    options = {name: value for name, value in later.items() if name in known}
    return bool(_is_compatible(desc, requests, tokens, uniform, 0, **options))


def serve(runner: Any, scheduled: Any, metadata: Any = None, handed: Any = None, **_: Any) -> Any:
    """The graph part of ``GPUModelRunner.execute_model``: dispatch by vLLM's function, then run.

    Args:
        runner: vLLM's.
        scheduled: what of a ``SchedulerOutput`` it looks at.
        metadata: of attention, for what of the model asks for it.
        handed: what the stage before hands on, where there is one.
    """
    import torch
    from vllm.forward_context import BatchDescriptor, set_forward_context
    from vllm.v1.worker.gpu.dp_utils import dispatch_cg_and_sync_dp

    lengths = scheduled.num_scheduled_tokens.values()
    requests, tokens = len(lengths), scheduled.total_num_scheduled_tokens
    uniform = uniform_count(requests, tokens, max(lengths))
    manager = runner.cudagraph_manager
    desc, _ = dispatch_cg_and_sync_dp(manager, requests, tokens, uniform, dp_size=1, dp_rank=0)
    runner.last_desc = desc
    with torch.inference_mode():
        taken = {} if handed is None else _take(runner, handed, desc.num_tokens)
        if desc.cg_mode.name == "FULL":
            return manager.run_fullgraph(desc)
        inputs = {
            "input_ids": runner.input_buffers.input_ids[: desc.num_tokens],
            "positions": runner.input_buffers.positions[: desc.num_tokens],
        }
        if len(inputs["input_ids"]) < desc.num_tokens:  # a prefill beyond the largest graph
            inputs = {k: torch.zeros(desc.num_tokens, dtype=v.dtype) for k, v in inputs.items()}
        inputs |= taken
        with set_forward_context(
            metadata or {},
            runner.vllm_config,
            num_tokens=desc.num_tokens,
            cudagraph_runtime_mode=desc.cg_mode,
            batch_descriptor=BatchDescriptor(num_tokens=desc.num_tokens, has_lora=False),
        ):
            if desc.cg_mode.name == "PIECEWISE":
                return manager.run_pw_graph(runner.model, inputs)
            return runner.model(**inputs)


def _take(runner: Any, handed: Any, padded: int) -> dict[str, Any]:
    """A stage's input, in the buffers that graphs read: as vLLM's runner copies it there."""
    from vllm.sequence import IntermediateTensors

    taken = {
        k: v[:padded].copy_(handed.tensors[k][:padded])
        for k, v in runner.intermediate_tensors.tensors.items()
    }
    return {"input_ids": None, "intermediate_tensors": IntermediateTensors(taken)}


class Wrapper:
    """What ``collective_rpc`` calls on a rank, in the place of ``WorkerWrapperBase``."""

    def __init__(self, runner: Any, rank: int = 0) -> None:
        self.global_rank = rank
        self.calls: list[str] = []
        self.lacks: set[str] = set()
        self.fails_to_sleep = self.fails_to_reload = False
        spec = SimpleNamespace(page_size_bytes=16 << 10, block_size=16)
        self.worker = SimpleNamespace(
            model_runner=runner,
            peak_activation_memory=1 << 30,
            get_kv_cache_spec=lambda: {"layer.0": spec, "layer.1": spec},
        )

    def initialize_from_config(self, _: Any) -> None:
        self.calls.append("initialize_from_config")

    def compile_or_warm_up_model(self) -> Any:
        self.calls.append("compile_or_warm_up_model")
        self.worker.model_runner.capture_model()
        return SimpleNamespace(language_model=1.0, encoder=0.0)

    # Sleep mode's part of a worker, without cuMem.

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")
        self.lacks = {"weights", "kv_cache"}
        if self.fails_to_sleep:
            raise AssertionError("Memory usage increased after sleeping.")

    def wake_up(self, tags: list[str] | None) -> None:
        self.calls.append(f"wake_up {','.join(tags or ['all'])}")
        self.lacks -= {*(tags or self.lacks)}

    def reload_weights(self) -> None:
        self.calls.append("reload_weights")
        if self.fails_to_reload:
            raise OSError("no such checkpoint")

    def synchronize_device(self) -> None:
        self.calls.append("synchronize_device")

    def execute_model(self, scheduled: Any) -> Any:
        return self.worker.model_runner.execute_model(scheduled)

    def sample_tokens(self, grammar: Any) -> Any:
        return self.worker.model_runner.sample_tokens(grammar)


def bring_up_rank(
    wrapper: Any,
    first: list[str] | None = None,
    tiers: tuple[tuple[str, ...], ...] = (),
    guard_margin: int | None = None,
    verify: bool = False,
) -> dict[str, Any]:
    """One rank through start-up as the engine drives it; what it answered.

    Args:
        wrapper: holds its worker.
        first: graphs before ready; none given: the largest of each kind.
        tiers: see ``rank.prepare``, as of the others.
        guard_margin: in bytes.
        verify: whether first replays are held against runs without graphs.
    """
    from lazygraph_vllm.rank import calls as rank
    from lazygraph_vllm.rules.local_fill import top_graphs

    facts = rank.describe(wrapper)
    assert "unsupported" not in facts, facts
    wrapper.graphs = facts["graphs"]
    names = [g.id for g in top_graphs(wrapper.graphs)] if first is None else first
    rank.prepare(wrapper, names, verify, tiers, guard_margin)
    wrapper.compile_or_warm_up_model()
    answer: dict[str, Any] = rank.finish_start(wrapper)
    return answer


def start(
    mode: str = "FULL_AND_PIECEWISE",
    first: list[str] | None = None,
    tiers: tuple[tuple[str, ...], ...] = (),
    guard_margin: int | None = None,
    **config: Any,
) -> tuple[Any, dict[str, Any]]:
    """A rank that has started: the wrapper, and what it answered."""
    wrapper = Wrapper(make_runner(make_config(mode, **config)))
    return wrapper, bring_up_rank(wrapper, first, tiers, guard_margin)


def uniform_of(tokens: int, requests: int) -> list[int | None]:
    """What ``get_uniform_token_count`` may say of so many tokens of so many requests."""
    found: list[int | None] = [] if requests == 1 or tokens == requests else [None]
    return [*found, tokens // requests] if tokens % requests == 0 else found


def shapes(config: Any) -> list[tuple[int, int, int | None]]:
    """Every (tokens, requests, uniform length) a step can have, and some beyond all graphs."""
    largest = config.compilation_config.max_cudagraph_capture_size
    return [
        (tokens, requests, uniform)
        for tokens in range(1, largest + 4)
        for requests in range(1, min(tokens, config.scheduler_config.max_num_seqs) + 1)
        for uniform in uniform_of(tokens, requests)
    ]


def wrong_dispatches(runner: Any, dispatch: Any) -> list[str]:
    """Steps that ``dispatch`` sends to a graph that isn't there or can't serve them."""
    from vllm.forward_context import BatchDescriptor

    wrong = []
    for tokens, requests, uniform in shapes(runner.vllm_config):
        desc = dispatch(requests, tokens, uniform, 0)
        what = f"{tokens} tokens, {requests} requests, uniform {uniform}: {desc}"
        if desc.cg_mode.name == "NONE":
            if (desc.num_tokens, desc.num_reqs) != (tokens, requests):
                wrong.append(f"padded without a graph: {what}")
            continue
        if desc.cg_mode.name == "FULL":
            exists = desc in runner.cudagraph_manager.graphs
        else:
            key = BatchDescriptor(num_tokens=desc.num_tokens, has_lora=False)
            entries = [p.concrete_cudagraph_entries.get(key) for p in runner.model.pieces]
            exists = all(e is not None and e.cudagraph is not None for e in entries)
        if not exists:
            wrong.append(f"not captured: {what}")
        if not is_compatible(desc, requests, tokens, uniform):
            wrong.append(f"not compatible: {what}")
        if uniform is None and desc.uniform_token_count is not None:
            wrong.append(f"uniform graph for a mixed step: {what}")
    return wrong


class Scheduler:
    """The part of vLLM's scheduler that its engine loop asks: requests of so many steps each."""

    def __init__(self, timeline: list[tuple[Any, ...]]) -> None:
        from vllm.v1.core.sched.interface import PauseState

        self.timeline = timeline
        self.left: dict[str, int] = {}
        self.queued: dict[str, int] = {}  # what came in a pause
        self.pause_state = PauseState.UNPAUSED
        self.connector = None
        self.idle = threading.Event()
        self.stepped = threading.Condition()
        self.steps = 0

    def add_request(self, request: Any) -> None:
        paused = self.pause_state.name != "UNPAUSED"
        (self.queued if paused else self.left)[request.request_id] = request.steps

    def set_pause_state(self, state: Any) -> None:
        self.pause_state = state
        if state.name == "UNPAUSED":
            self.left |= self.queued
            self.queued = {}

    def has_requests(self) -> bool:
        return bool(self.left)

    def get_request_counts(self) -> tuple[int, int]:
        return len(self.left), 0

    def get_num_unfinished_requests(self) -> int:
        return len(self.left)

    def finish_requests(self, ids: Any, _: Any) -> list[Any]:
        for name in list(self.left) if ids is None else ids:
            self.left.pop(name, None)
        return []

    def schedule(self, _: bool) -> Any:
        self.timeline.append(("step", tuple(self.left)))
        scheduled = step(*[1] * len(self.left))
        scheduled.pending_structured_output_tokens = False
        scheduled.names = tuple(self.left)
        return scheduled

    def get_grammar_bitmask(self, _: Any) -> None:
        return None

    def update_from_output(self, scheduled: Any, _: Any) -> dict[int, Any]:
        for name in scheduled.names:
            if name in self.left:
                self.left[name] -= 1
                if self.left[name] <= 0:
                    del self.left[name]
        self.timeline.append(("step end", scheduled.names))
        with self.stepped:
            self.steps += 1
            self.stepped.notify_all()
        return {}

    def wait_for_steps(self, count: int, seconds: float = 10) -> None:
        with self.stepped:
            assert self.stepped.wait_for(lambda: self.steps >= count, seconds), "no such step"


def make_executor(config: Any, wrapper: Any) -> Any:
    """vLLM's ``UniProcExecutor`` with a rank of ours in the place of the worker it would build."""
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    class Executor(UniProcExecutor):
        def _init_executor(self) -> None:
            self.driver_worker = wrapper

    return Executor(config)


def bring_up(executor: Any) -> None:
    """The executor's part of ``EngineCore._initialize_kv_caches``, in its order."""
    executor.initialize_from_config([None])
    if WARMS_UP_SEPARATELY:
        executor.compile_or_warm_up_model()


def make_core(executor: Any, timeline: list[tuple[Any, ...]], in_flight: int = 2) -> Any:
    """vLLM's ``EngineCoreProc`` without its sockets: its own loop, queues and step functions."""
    from vllm.v1.engine.core import EngineCoreProc, EngineShutdownState

    core = EngineCoreProc.__new__(EngineCoreProc)
    config = executor.vllm_config
    config.observability_config = SimpleNamespace(enable_logging_iteration_details=False)
    for name, value in {
        "vllm_config": config,
        "model_executor": executor,
        "scheduler": Scheduler(timeline),
        "batch_queue": collections.deque(maxlen=in_flight) if in_flight > 1 else None,
        "batch_queue_size": in_flight,
        "input_queue": queue.Queue(),
        "output_queue": queue.Queue(),
        "aborts_queue": queue.Queue(),
        "_idle_state_callbacks": [],
        "process_input_queue_block": True,
        "shutdown_state": EngineShutdownState.RUNNING,
        "engines_running": False,
        "is_ec_consumer": True,
        "is_pooling_model": False,
        "is_mm_encoder_only": False,
        "enable_fault_tolerance": False,
        "publish_dp_lb_stats": False,
        "_weight_version": "default",
        "reject_new_requests": False,
        "_reset_caches": lambda **_: timeline.append(("caches reset",)),
        "_set_kv_connector_handshake_metadata": lambda: None,
        "check_for_draft_tokens": False,
        "async_scheduling": in_flight > 1,
        "use_spec_decode": False,
        "log_stats": False,
    }.items():
        setattr(core, name, value)
    core.step_fn = core.step if core.batch_queue is None else core.step_with_batch_queue
    return core


def request(name: str, steps: int) -> Any:
    """What a client sends: type and payload, as they lie in the engine's input queue."""
    from vllm.v1.engine import EngineCoreRequestType

    body = SimpleNamespace(
        request_id=name,
        steps=steps,
        pooling_params=None,
        kv_transfer_params=None,
        ec_transfer_params=None,
        abort_immediately=False,
    )
    return EngineCoreRequestType.ADD, (body, 0)

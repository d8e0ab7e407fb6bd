"""What the plugin needs of a vLLM generation, and what all of them have in common.

An adapter holds no state of an engine: it translates. In EngineCore's process and on each rank.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from . import breakable, connectors, drafts, lora, stages, weights
from .states import States, borrow


class StepCall(NamedTuple):
    """A step as vLLM asks its dispatch about it, before padding.

    Attributes:
        requests: how many it has.
        tokens: scheduled tokens.
        uniform: tokens of each request of a decode step where all have as many.
        loras: active LoRA adapters.
        query_length: largest number of tokens of one request; ``None``: not limited, or a prefill.
        microbatches: how many the step is split into.
    """

    requests: int
    tokens: int
    uniform: int | None
    loras: int
    query_length: int | None = None
    microbatches: int = 1


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give ``owner.name`` another value for a while.

    Never used for ``torch.cuda.Stream``: torch builds its answer to ``current_stream()`` with that
    name, so whoever asks meanwhile is handed the replacement and stays on it.
    """
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class Adapter(ABC):
    """One vLLM generation.

    Attributes:
        name: for the log, the hand-shake and the drift check.
        modules: names that must exist in vLLM's modules on a rank.
        signatures: parameters, in their order, of what is replaced or called by position.
        descriptor_fields: fields of vLLM's descriptor of a graph.
        captures_on_one_stream: FULL and PIECEWISE graphs alike.
        captures_twice: vLLM sizes the KV cache by capturing graphs and throwing them away.
    """

    name: ClassVar[str]
    modules: ClassVar[Mapping[str, tuple[str, ...]]]
    signatures: ClassVar[Mapping[str, tuple[str, ...]]]
    descriptor_fields: ClassVar[tuple[str, ...]]
    captures_twice: ClassVar[bool]
    captures_on_one_stream: ClassVar[bool]

    def __init__(self) -> None:
        # One capture stream for each device and process, for good: see ``graph_capture``.
        self._contexts: dict[Any, Any] = {}

    # -------------------------------------------------------------- EngineCore's process

    @abstractmethod
    def warm_up_hook(self, executor_class: Any) -> str | None:
        """What the executor lacks of the call that warms up and captures, as a sentence."""

    @abstractmethod
    def wrap_warm_up(self, executor_class: Any, around: Callable[[Any, Any], Any]) -> None:
        """Have ``around(executor, warm_up)`` called in the place of that call.

        Args:
            executor_class: vLLM's base class of executors; it is changed.
            around: gets the executor, and a function without arguments that does vLLM's own work.
        """

    # -------------------------------------------------------------- is it the vLLM we know?

    def missing(self) -> str | None:
        """What this vLLM lacks, or has changed, of the hooks on a rank, as a sentence."""
        for path, names in self.modules.items():
            try:
                module = importlib.import_module(path)
            except ImportError:
                return f"this vLLM lacks {path}"
            for name in names:
                if not hasattr(module, name):
                    return f"this vLLM lacks {path}.{name}"
        return self._changed_signature() or self._changed_descriptor()

    def _changed_signature(self) -> str | None:
        for path, expected in self.signatures.items():
            module, _, name = path.partition(":")
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part, None)
                if found is None:
                    return f"this vLLM lacks {module}.{name}"
            # Ours, where it is in place already, wraps vLLM's own.
            parameters = tuple(inspect.signature(inspect.unwrap(found)).parameters)
            if parameters != expected:
                return (
                    f"this vLLM's {name} takes ({', '.join(parameters)}), expected "
                    f"({', '.join(expected)})"
                )
        return None

    def _changed_descriptor(self) -> str | None:
        from vllm.v1.worker.gpu.cudagraph_utils import BatchExecutionDescriptor

        fields = BatchExecutionDescriptor.__dataclass_fields__
        if gone := [name for name in self.descriptor_fields if name not in fields]:
            return f"this vLLM's descriptor of a graph lacks {gone[0]}"
        return None  # A field that is new is looked at graph by graph: it may be at its default.

    def unsupported_runner(self, runner: Any) -> str | None:
        """Why this runner's graphs can't be controlled; ``None`` if they can."""
        manager = getattr(runner, "cudagraph_manager", None)
        if manager is None:
            return "this vLLM's model runner has no cudagraph_manager"
        reason = (
            missing_hook(manager, MANAGER_HOOKS + MANAGER_FIELDS)
            or missing_hook(runner, RUNNER_HOOKS)
            or self.missing()
            or graph_mode_reason(manager.cudagraph_mode)
        )
        reason = reason or self.breakable_reason(runner)
        reason = reason or lora.missing(runner) or drafts.missing(runner)
        reason = reason or connectors.missing(runner) or stages.missing(runner)
        if reason is None and not any(self.planned(manager).values()):
            reason = "vLLM has no graph to capture here"
        return reason

    def breakable_reason(self, runner: Any) -> str | None:
        """Why this runner's breakable graphs can't be captured by need; ``None`` if they can."""
        if breakable.in_use(runner.cudagraph_manager):
            return "not supported: breakable CUDA graphs"
        return None

    # -------------------------------------------------------------- graphs

    def planned(self, manager: Any) -> Mapping[Any, list[Any]]:
        """VLLM's descriptors of all graphs, by mode, in the order in which it captures them."""
        planned: Mapping[Any, list[Any]] = manager._capture_descs
        return planned

    def planning_manager(self, runner: Any) -> Any:
        """A manager that only says which graphs vLLM's own will have, before there is one."""
        from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager

        config = runner.vllm_config
        mode = config.compilation_config.cudagraph_mode
        cases = getattr(runner, "lora_capture_cases", None)
        return ModelCudaGraphManager(
            config, runner.device, mode, runner.decode_query_len, lora_capture_cases=cases
        )

    def wrappers(self) -> list[Any]:
        """What holds PIECEWISE graphs: one piece of each, or whole ones."""
        from vllm.compilation.cuda_graph import CUDAGraphWrapper

        return list(CUDAGraphWrapper._all_instances)

    def recorded(self) -> list[dict[Any, Any]]:
        """What each of them has recorded, by vLLM's descriptor of a batch."""
        return [wrapper.concrete_cudagraph_entries for wrapper in self.wrappers()]

    def forget(self, manager: Any, desc: Any) -> None:
        """Drop what was recorded of one graph."""
        manager.graphs.pop(desc, None)
        if desc.cg_mode.name != "PIECEWISE":
            return
        for entries in self.recorded():
            for key in list(entries):
                batch = breakable.batch_of(key)
                loras = getattr(batch, "num_active_loras", desc.num_active_loras)
                if (batch.num_tokens, loras) == (desc.num_tokens, desc.num_active_loras):
                    del entries[key]

    def compiled_code(self, config: Any, tokens: int) -> tuple[int, int]:
        """Which code of vLLM's compiler runs so many tokens: (size, 0), or (0, range).

        It compiles ranges of sizes apart, and single sizes where it is told to. With several ranks
        a fused all-reduce ends a range: at 128 tokens for a 70B on four H200s.
        """
        compilation = config.compilation_config
        if tokens in (getattr(compilation, "compile_sizes", None) or ()):
            return tokens, 0
        ends = getattr(compilation, "compile_ranges_endpoints", None) or ()
        return 0, bisect_left(sorted(set(ends)), tokens)

    def is_breakable(self, manager: Any) -> bool:
        """Whether a PIECEWISE graph is recorded in one go, of a model without a compiler."""
        return breakable.in_use(manager)

    def drafter(self, runner: Any, identify: Callable[[Any], str]) -> drafts.Drafter | None:
        """The graphs of this runner's drafter; ``None`` where it drafts without any, or not.

        Args:
            runner: vLLM's ``GPUModelRunner``.
            identify: a descriptor's id.
        """
        if drafts.speculator_of(runner) is None:
            return None
        return drafts.Drafter(drafts.speculator_of(runner), runner, identify)

    def planning_drafter(
        self, runner: Any, identify: Callable[[Any], str]
    ) -> drafts.Drafter | None:
        """One that only says which graphs vLLM's own will have, before there is one."""
        if drafts.speculator_of(runner) is None:
            return None
        return drafts.Drafter(drafts.planning_speculator(runner), runner, identify)

    def draft_vocabulary(self, config: Any) -> int:
        """Tokens that a drafter with graphs chooses from; 0: there is none."""
        return drafts.vocabulary(config)

    # -------------------------------------------------------------- steps

    def effective(self, manager: Any, call: StepCall) -> StepCall:
        """The step by the LoRA case that graphs are captured for."""
        if call.loras <= 0:
            return call
        return call._replace(loras=manager._resolve_effective_loras(call.loras))

    @abstractmethod
    def serves(self, desc: Any, call: StepCall) -> bool:
        """VLLM's own rule whether a graph can serve a step."""

    @abstractmethod
    def ungraphed(self, desc: Any, call: StepCall) -> Any:
        """What vLLM's dispatch answers where no graph serves; ``desc`` is any one of its kind."""

    # -------------------------------------------------------------- memory

    def activation_peak(self, worker: Any) -> int:
        """Bytes that the profile run had allocated at its peak beyond what stayed; 0: not known."""
        measured = getattr(worker.model_runner, "lazygraph_activation_peak", 0)
        return int(getattr(worker, "peak_activation_memory", 0) or measured)

    def subtracts_estimate(self) -> bool:
        """Whether vLLM takes what graphs need off its KV cache."""
        from vllm import envs

        return bool(envs.VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS)

    def attention_splits(self, config: Any) -> int:
        """Splits that FlashAttention 3 gets buffers for in every captured step; 0 for others."""
        from vllm import envs
        from vllm.v1.attention.backends.fa_utils import get_flash_attn_version

        if envs.VLLM_BATCH_INVARIANT:
            return 0  # one split, and no buffers
        layers = config.compilation_config.static_forward_context.values()
        names = {each.attn_backend.get_name() for each in layers if hasattr(each, "attn_backend")}
        if not names or not names <= {"FLASH_ATTN", "FLASH_ATTN_MLA"}:
            return 0
        if get_flash_attn_version() != 3:
            return 0
        return int(config.attention_config.flash_attn_max_num_splits_for_cuda_graph)

    def workspaces(self) -> tuple[int, int]:
        """Bytes of the scratch that kernels share, and how many buffers they keep for good.

        What asks for more after a graph was captured would free what that graph points to, or
        fail. Nothing is known of vLLM before 0.30, which doesn't lock them.
        """
        return (0, 0)

    @abstractmethod
    def uncounted_bytes(self, worker: Any, allocated: int) -> int:
        """What torch has allocated and vLLM's sum for the KV cache leaves out."""

    # -------------------------------------------------------------- capture

    @abstractmethod
    def graph_capture(self, device: Any) -> contextlib.AbstractContextManager[Any]:
        """VLLM's context around captures, on one stream for good.

        A stream made anew for each would cost a cuBLAS workspace each and keep the pool from
        reusing its blocks (2.4 GiB for 100 graphs of an 8B); and what kernels keep by stream
        (Marlin's locks) could not be made any more once vLLM has locked its workspaces.
        """

    @abstractmethod
    def warm_up_context(self, device: Any) -> contextlib.AbstractContextManager[Any]:
        """Where the warm-up run belongs: on the stream whose buffers it is to make."""

    def capturing(self, runner: Any) -> contextlib.AbstractContextManager[Any]:
        """What must hold in vLLM while a capture is under way, and must not outside it."""
        return _capturing(runner)

    def absent_weights(self, runner: Any) -> int:
        """How many weights and buffers are on no device: for ``why_not_now``."""
        return weights.absent(runner)

    def why_not_now(self, worker: Any, absent_weights: int) -> str | None:
        """Why nothing can be captured between these two steps, as a sentence.

        Args:
            worker: vLLM's ``Worker``.
            absent_weights: what ``absent_weights`` was when the engine came up.
        """
        runner = worker.model_runner
        return weights.why_not_now(worker, absent_weights) or connectors.why_not_now(runner)

    def why_never(self, runner: Any) -> str | None:
        """Why nothing can be captured on this engine any more, as a sentence."""
        return connectors.why_never(runner)

    def between_steps(self, runner: Any) -> contextlib.AbstractContextManager[None]:
        """What a capture between two steps, and its check, must leave as serving had it."""
        return lora.metadata_only(runner)

    @contextlib.contextmanager
    def without_collection(self, runner: Any) -> Iterator[None]:
        """Keep vLLM's ``capture_model`` from collecting garbage: 0.3 s of a start each time.

        Nor may it freeze the heap and thaw it: that thaws what a launcher froze before the fork,
        all that it has imported, and the collection after the warm-up would look through it, 0.7 s
        and 190 MiB of pages that were shared. vLLM turns the collector off for that long anyway.
        """
        import gc

        with (
            replaced(gc, "collect", lambda *_: 0),
            replaced(gc, "freeze", lambda: None),
            replaced(gc, "unfreeze", lambda: None),
        ):
            yield

    @contextlib.contextmanager
    def capture_streams(self, device: Any) -> Iterator[tuple[Any, ...]]:
        """The streams that graphs are captured on, inside ``graph_capture``."""
        import torch

        with self.graph_capture(device):
            yield (torch.cuda.current_stream(device),)

    def custom_all_reduce(self) -> Any:
        """The communicator whose all-reduce registers its buffers with other ranks, if any."""
        from vllm.distributed.parallel_state import get_tp_group

        communicator = getattr(get_tp_group(), "device_communicator", None)
        return getattr(communicator, "ca_comm", None)

    def cpu_group(self) -> tuple[int, Any]:
        """How many ranks capture in lockstep, and the group over which they agree on the CPU.

        Those of all stages of a pipeline: a step that is padded otherwise on one of them than on
        the next can't be handed on.
        """
        from vllm.distributed import parallel_state

        group = parallel_state.get_tp_group()
        if parallel_state.get_pp_group().world_size > 1:
            group = parallel_state.get_world_group()
        return int(group.world_size), getattr(group, "cpu_group", None)

    # -------------------------------------------------------------- what a run answers

    def output_buffers(self, manager: Any) -> list[Any]:
        """What a FULL graph writes, on the last stage of a pipeline and on any other."""
        return stages.buffers(manager)

    def answer(self, output: Any) -> list[Any]:
        """What a run of the model returned, in the order of ``output_buffers``."""
        return stages.answer(output)

    def only_a_run_sizes(self, runner: Any) -> bool:
        """Whether those buffers can't be made before the model has answered once."""
        return stages.only_a_run_tells(runner)

    def size_outputs(self, runner: Any, tokens: int) -> None:
        """Make those buffers for so many tokens, whatever size has run before."""
        stages.size_buffers(runner, tokens)

    # -------------------------------------------------------------- checking a graph

    def borrowed_states(
        self, runner: Any, requests: int
    ) -> contextlib.AbstractContextManager[States]:
        """Recurrent states that a check may write, put back afterwards.

        Args:
            runner: vLLM's ``GPUModelRunner``.
            requests: of the dummy batch that is built inside.
        """
        return borrow(runner, requests)

    def fill_inputs(self, runner: Any, requests: int, tokens: int) -> None:
        """Draw what a step's inputs are: the dummy batch is all zeros, which hides mixed-up rows.

        The same at every call with as many tokens, on all ranks.
        Its rows also say that they are padding, which a mixture of experts leaves out.
        """
        import torch

        generator = torch.Generator(device="cpu").manual_seed(tokens)
        vocabulary = runner.vllm_config.model_config.get_vocab_size()
        ids = torch.randint(0, vocabulary, (tokens,), generator=generator)
        positions = torch.arange(tokens) % 97
        buffers = runner.input_buffers
        buffers.input_ids[:tokens].copy_(ids)
        buffers.positions[:tokens].copy_(positions)
        if (padding := getattr(buffers, "is_padding", None)) is not None:
            padding[:tokens].fill_(False)
        # Multimodal decoders read embeddings, and some positions of several axes.
        for name, buffer in runner.model_state.prepare_dummy_inputs(requests, tokens).items():
            if name == "inputs_embeds":
                drawn = torch.randn(buffer.shape, generator=generator) * 0.02
                buffer.copy_(drawn)
            elif name == "positions":
                buffer.copy_(positions.expand(buffer.shape))
        stages.draw_handed(runner, tokens, generator)

    def clear_inputs(self, runner: Any, tokens: int) -> None:
        """Take back what of that vLLM's next dummy batch would leave as it is."""
        stages.clear_handed(runner, tokens)

    def end_captures(self) -> None:
        """Make a capture in a real step an error, as vLLM does after its start."""
        from vllm.compilation import monitor

        monitor.set_cudagraph_capturing_enabled(False)


@contextlib.contextmanager
def _capturing(runner: Any) -> Iterator[None]:
    from vllm.compilation import monitor
    from vllm.utils import jit_monitor
    from vllm.v1.worker.gpu import cudagraph_utils

    with contextlib.ExitStack() as stack:
        # First: it may refuse, and nothing is changed yet.
        stack.enter_context(connectors.apart(runner))
        # A first-time Triton specialisation here is expected, not a fault of serving.
        stack.enter_context(replaced(jit_monitor, "_mode", "warn"))
        # One progress bar per call is noise with one graph per call.
        stack.enter_context(replaced(cudagraph_utils, "tqdm", lambda items, **_: items))
        # Dummy rows are no load of experts.
        eplb = getattr(runner, "eplb", None)
        if (suppress := getattr(eplb, "suppress", None)) is not None:
            stack.enter_context(suppress())
        monitor.set_cudagraph_capturing_enabled(True)
        stack.callback(monitor.set_cudagraph_capturing_enabled, False)
        yield


# ------------------------------------------------------------------ hooks by name

MANAGER_HOOKS = ("capture", "dispatch", "run_fullgraph", "needs_capture")
MANAGER_FIELDS = (
    "_capture_descs",
    "_candidates",
    "_graphs_captured",
    "graphs",
    "decode_query_len",
    "pool",
)
RUNNER_HOOKS = (
    "capture_model",
    "profile_cudagraph_memory",
    "execute_model",
    "sample_tokens",
    "device",
    "vllm_config",
)


def missing_hook(owner: Any, names: tuple[str, ...]) -> str | None:
    """The first name that ``owner`` lacks, as a sentence."""
    for name in names:
        if not hasattr(owner, name):
            return f"this vLLM lacks {getattr(owner, '__name__', type(owner).__name__)}.{name}"
    return None


def graph_mode_reason(mode: Any) -> str | None:
    """Why this final cudagraph mode has nothing to capture; ``None`` if it has."""
    name = getattr(mode, "name", str(mode))
    if name in ("FULL", "PIECEWISE", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"):
        return None
    return f"not supported: cudagraph_mode {name}"

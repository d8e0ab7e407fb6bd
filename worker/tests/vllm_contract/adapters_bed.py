"""vLLM's own LoRA managers, metadata and runner mixin, on the CPU around one small layer.

What is in the place of something: the layer (slots of one weight each, filled and cleared as
vLLM's are), and loading from disk. An adapter's path is the factor it stands for.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from builders import Wrapper, bring_up_rank, make_config, make_runner

LAYER = "model.layers.0.mlp"
TOKENS_MAX = 64


class Slots:
    """A layer with adapters: a weight for each slot."""

    def __init__(self, slots: int) -> None:
        import torch

        self.weights = torch.zeros(slots)

    def set_lora(self, index: int, lora_a: Any, lora_b: Any) -> None:
        self.weights[index] = float(lora_a[0]) * float(lora_b[0])

    def reset_lora(self, index: int) -> None:
        self.weights[index] = 0


def make_adapter_config(max_loras: int, max_cpu_loras: int, **options: Any) -> Any:
    config = make_config(**options)
    config.compilation_config.cudagraph_specialize_lora = True
    config.lora_config = SimpleNamespace(
        max_loras=max_loras,
        max_cpu_loras=max_cpu_loras,
        max_lora_rank=8,
        specialize_active_lora=False,
        fully_sharded_loras=False,
    )
    return config


def make_manager(config: Any) -> Any:
    """vLLM's ``LRUCacheWorkerLoRAManager`` and what it holds, without their constructors."""
    import torch
    from vllm.lora import model_manager, worker_manager
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.lora_weights import LoRALayerWeights
    from vllm.lora.ops.triton_ops.lora_kernel_metadata import LoRAKernelMeta
    from vllm.lora.punica_wrapper import punica_gpu
    from vllm.utils import torch_utils

    punica_gpu.LoRAKernelMeta = LoRAKernelMeta  # it is imported there only where Triton is
    for module in (model_manager, torch_utils):  # there is no device to pin memory for
        module.PIN_MEMORY = False
        module.is_pin_memory_available = lambda: False  # to 0.32

    def model(number: int, factor: float) -> Any:
        weights = LoRALayerWeights(LAYER, 1, 1, torch.tensor([factor]), torch.tensor([1.0]))
        return LoRAModel(number, 1, {LAYER: weights})

    lora = config.lora_config
    manager = model_manager.LRUCacheLoRAModelManager.__new__(model_manager.LRUCacheLoRAModelManager)
    for name, value in {
        "lora_config": lora,
        "modules": {LAYER: Slots(lora.max_loras)},
        "packed_modules": {},
        "is_pooling_model": False,
        "supports_mm": False,
        "vocab_size": 32,
        "_enable_mixed_moe_lora_format": False,
        "_classification_head": None,
        "_last_mapping": None,
        "_last_slot_layout": None,
        "lora_index_to_id": [None] * lora.max_loras,
        "create_dummy_lora": lambda number, rank, modules: model(number, 0.0),
        "get_dummy_lora_warmup_rank": lambda rank: rank,
    }.items():
        setattr(manager, name, value)
    cache = model_manager.AdapterLRUCache
    manager._registered_adapters = cache(lora.max_cpu_loras, manager.deactivate_adapter)
    manager._active_adapters = cache(lora.max_loras, manager._deactivate_adapter)
    wrapper = punica_gpu.PunicaWrapperGPU(TOKENS_MAX, 8, "cpu", lora_config=lora)
    manager.punica_wrapper_mapping = {model_manager.DEFAULT_LANGUAGE_WRAPPER_KEY: wrapper}

    worker = worker_manager.LRUCacheWorkerLoRAManager.__new__(
        worker_manager.LRUCacheWorkerLoRAManager
    )
    worker.embedding_modules = {}
    worker._cached_dummy_lora = False
    worker._adapter_manager = manager

    def load(request: Any) -> Any:
        return model(request.lora_int_id, float(request.lora_path))

    worker._load_adapter = load
    return worker


def start_with_adapters(
    max_loras: int = 2, max_cpu_loras: int = 4, first: list[str] | None = None, **options: Any
) -> Any:
    """One rank through start-up; the wrapper, as ``builders.start`` gives it."""
    import torch
    from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager
    from vllm.v1.worker.gpu.lora_utils import LoraState, get_lora_capture_cases

    config = make_adapter_config(max_loras, max_cpu_loras, **options)
    runner = make_runner(config)
    runner.lora_config = config.lora_config
    runner.lora_manager = make_manager(config)
    runner.lora_state = LoraState(config.scheduler_config.max_num_seqs)
    runner.lora_capture_cases = get_lora_capture_cases(
        config.lora_config, config.compilation_config
    )
    mode = config.compilation_config.cudagraph_mode
    runner.cudagraph_manager = ModelCudaGraphManager(
        config, torch.device("cpu"), mode, 1, lora_capture_cases=runner.lora_capture_cases
    )
    wrapper = Wrapper(runner)
    bring_up_rank(wrapper, first)
    return wrapper


def adapter(number: int, factor: float) -> Any:
    """What a request brings along of its adapter."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=f"user {number}", lora_int_id=number, lora_path=str(factor))


def answer(runner: Any, requests: list[Any]) -> tuple[list[float], Any]:
    """One decode step of these requests' adapters (``None``: the base model).

    Mapping, activation and metadata are vLLM's; the dispatch is what stands in its place. What the
    layer would add comes from metadata and slots, as its kernels find it.

    Returns:
        The weight that each row meets, and the descriptor of the graph.
    """
    import numpy as np
    from vllm.v1.worker.gpu.lora_utils import get_num_active_loras_for_dispatch

    names = [f"r{i}" for i in range(len(requests))]
    for index, request in enumerate(requests):
        runner.lora_state.add_request(names[index], index, request)
    active = get_num_active_loras_for_dispatch(
        runner.lora_config, runner.lora_state, names, dummy_run=False
    )
    count = len(requests)
    desc = runner.cudagraph_manager.dispatch(count, count, 1, active)
    inputs = runner.lora_state.make_lora_inputs(names, np.arange(count), np.ones(count, np.int32))
    runner._set_active_loras(*inputs)
    for name in names:
        runner.lora_state.remove_request(name)
    return rows(runner, count), desc


def rows(runner: Any, count: int) -> list[float]:
    """What LoRA's kernels would add to each of so many rows."""
    meta = kernel_metadata(runner)
    added = [0.0] * count
    if bool(meta.no_lora_flag_cpu[0]):
        return added
    weights = runner.lora_manager._adapter_manager.modules[LAYER].weights
    for place in range(int(meta.default_num_active_loras_cpu[0])):
        slot = int(meta.active_lora_ids[place])
        if slot < 0:
            continue
        begin = int(meta.lora_token_start_loc[place])
        for at in range(begin, begin + int(meta.num_tokens_per_lora[place])):
            added[int(meta.token_indices_sorted_by_lora_ids[at])] = float(weights[slot])
    return added


def kernel_metadata(runner: Any) -> Any:
    wrappers = runner.lora_manager._adapter_manager.punica_wrapper_mapping
    return next(iter(wrappers.values())).token_mapping_meta


def adapter_state(runner: Any) -> dict[str, Any]:
    """Everything about users' adapters that a capture must leave alone, with the order of use."""
    manager = runner.lora_manager._adapter_manager
    return {
        "registered": list(manager._registered_adapters.cache),
        "active": list(manager._active_adapters.cache),
        "pinned": sorted(manager._active_adapters.pinned_items),
        "slots": list(manager.lora_index_to_id),
        "weights": manager.modules[LAYER].weights.tolist(),
    }

"""vLLM's own KV connectors that offload to host memory, on the CPU around a small KV cache.

Connector, worker, handlers, queue and thread are vLLM's, and so is what hangs in an attention
layer. In the place of something: streams, events, and the copies, which are done when the device
gets to them. So what is under way is under way, and whoever writes a block too early is found.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from builders import Model, Wrapper, bring_up_rank, make_config, serve
from builders import make_runner as plain_runner

OFFLOADING, SIMPLE = "OffloadingConnector", "SimpleCPUOffloadConnector"
LAYER = "layer.0"
BLOCKS, BLOCK_TOKENS, CHUNKS = 24, 4, 8
PAGE = BLOCK_TOKENS * 16  # bytes of a block


class Device:
    """Streams, events and copies; all copies are done in the order in which they were begun."""

    def __init__(self, gpu: Any) -> None:
        self.gpu = gpu
        self.begun: list[Callable[[], None]] = []
        self.done = 0
        self.threads: set[int] = set()
        self.in_capture: list[str] = []
        self.before_copy: Callable[[], None] = lambda: None

    def called(self, name: str) -> None:
        """A call of CUDA by a connector."""
        self.threads.add(threading.get_ident())
        if self.gpu.capturing is not None:
            self.in_capture.append(name)

    def copy(self, work: Callable[[], None]) -> None:
        self.called("copy")
        self.begun.append(work)

    @property
    def under_way(self) -> int:
        return len(self.begun) - self.done

    def run(self, until: int | None = None) -> None:
        """Do what was begun, up to so many copies from the start."""
        end = len(self.begun) if until is None else until
        while self.done < end:
            self.begun[self.done]()
            self.done += 1


def install(gpu: Any, patch: Any) -> Device:
    """Put the stand-ins in; ``patch`` is pytest's ``monkeypatch``."""
    import torch
    from vllm import _custom_ops as ops
    from vllm.distributed.kv_transfer import kv_transfer_state
    from vllm.v1.kv_offload.cpu import gpu_worker
    from vllm.v1.simple_kv_offload import copy_backend

    device = Device(gpu)

    class Stream:
        cuda_stream = 7

        def wait_stream(self, _: Any) -> None:
            device.called("wait_stream")

        def wait_event(self, _: Any) -> None:
            device.called("wait_event")

        def __enter__(self) -> None: ...

        def __exit__(self, *_: Any) -> None: ...

    class Event:
        def __init__(self, **_: Any) -> None:
            device.called("event")
            self.at = 0

        def record(self, _: Any = None) -> None:
            device.called("record")
            self.at = len(device.begun)

        def query(self) -> bool:
            device.called("query")
            return device.done >= self.at

        def synchronize(self) -> None:
            device.called("event synchronize")
            device.run(self.at)

        def elapsed_time(self, _: Any) -> float:
            return 1.0

    def swap(src: Any, dst: Any, sizes: Any, **_: Any) -> None:
        jobs = list(zip(src.tolist(), dst.tolist(), sizes.tolist(), strict=True))
        device.copy(lambda: [ctypes.memmove(to, of, size) for of, to, size in jobs])

    def copy_blocks(src: list[int], dst: list[int], params: Any) -> None:
        if not src:
            return  # as vLLM's own
        device.before_copy()

        def work() -> None:
            for of, to in zip(src, dst, strict=True):
                params[1][to] = params[0][of]

        device.copy(work)

    def build_params(src: dict[str, Any], dst: dict[str, Any], *_: Any, **__: Any) -> Any:
        return src[LAYER], dst[LAYER]

    synchronize = torch.cuda.synchronize

    def synchronize_all(*_: Any) -> None:
        synchronize()
        device.run()

    platform = SimpleNamespace(
        Stream=Stream,
        stream=lambda stream: stream,
        current_stream=lambda: gpu.current,
        set_device=lambda _: device.called("set_device"),
        is_xpu=lambda: False,
        is_rocm=lambda: False,
        is_cuda_alike=lambda: True,
    )
    for owner, name, value in (
        (torch, "Event", Event),
        (torch.cuda, "synchronize", synchronize_all),
        (ops, "swap_blocks_batch", swap),
        (gpu_worker, "current_platform", platform),
        (gpu_worker, "PIN_MEMORY", False),
        (copy_backend, "current_platform", platform),
        (copy_backend, "copy_blocks", copy_blocks),
        (copy_backend, "build_params", build_params),
        (kv_transfer_state, "_KV_CONNECTOR_AGENT", None),
    ):
        patch.setattr(owner, name, value)
    device.stream = Stream  # type: ignore[attr-defined]
    return device


class ModelWithAttention(Model):
    """Its attention writes each token's slot, through vLLM's own decorator around such layers."""

    def __init__(self, config: Any) -> None:
        from vllm.model_executor.layers.attention.kv_transfer_utils import maybe_transfer_kv_layer

        super().__init__(config)

        def attention(rows: int, layer_name: str) -> None:
            from vllm.forward_context import get_forward_context

            context = get_forward_context()
            slots = context.slot_mapping.get(layer_name, ())
            cache = context.no_compile_layers[layer_name].kv_cache
            for slot in list(slots)[:rows]:
                if slot >= 0:
                    cache[int(slot) // BLOCK_TOKENS].fill_(99)

        self.attention = maybe_transfer_kv_layer(attention)

    def __call__(self, input_ids: Any, positions: Any, **more: Any) -> Any:
        self.attention(len(input_ids), LAYER)
        return super().__call__(input_ids, positions, **more)


def make_runner(kind: str, device: Device, **options: Any) -> Any:
    """A runner with a connector; ``runner.jobs`` are the copies that its next steps bring along."""
    import torch
    from vllm.distributed.kv_transfer import kv_transfer_state
    from vllm.v1.worker.gpu.block_table import BlockTables
    from vllm.v1.worker.gpu.kv_connector import ActiveKVConnector

    config = make_config(**options)
    config.kv_transfer_config = SimpleNamespace(
        kv_connector=kind,
        kv_connector_module_path=None,
        kv_connector_extra_config={"cpu_bytes_to_use": CHUNKS * PAGE},
        kv_role="kv_both",
    )
    draw = torch.Generator().manual_seed(3)
    cache = torch.randint(-100, 90, (BLOCKS, PAGE), generator=draw, dtype=torch.int8)
    config.compilation_config.static_forward_context[LAYER] = SimpleNamespace(kv_cache=cache)
    runner = plain_runner(config)
    runner.model = ModelWithAttention(config)
    tables = BlockTables.__new__(BlockTables)
    largest = config.compilation_config.max_cudagraph_capture_size
    requests = config.scheduler_config.max_num_seqs
    # Of the step before: a capture that used them would write into blocks of requests.
    tables.input_block_tables = [torch.full((requests, 4), 3, dtype=torch.int32)]
    tables.slot_mappings = torch.full((1, largest), 3 * BLOCK_TOKENS, dtype=torch.int64)
    tables._num_dirty_rows, tables.cp_size = requests, 1
    runner.block_tables = tables
    runner.kv_cache_config = SimpleNamespace(
        kv_cache_groups=[SimpleNamespace(layer_names=[LAYER], kv_cache_spec=None)]
    )
    metadata = {LAYER: True}
    runner.model_state.prepare_attn = lambda *_, **__: metadata
    host = torch.zeros(CHUNKS, PAGE, dtype=torch.int8)
    make = _offloading if kind == OFFLOADING else _simple
    connector = make(config, cache, host, device)
    connector._connector_metadata = None
    active = ActiveKVConnector.__new__(ActiveKVConnector)
    active.vllm_config, active.kv_connector = config, connector
    active._pending_load_kwargs, active._disabled = None, False
    kv_transfer_state._KV_CONNECTOR_AGENT = connector
    runner.kv_connector, runner.jobs = active, []
    runner.cache, runner.host = cache, host_of(connector, host)

    def execute(scheduled: Any, **kwargs: Any) -> Any:
        jobs = runner.jobs.pop(0) if runner.jobs else no_job(kind)
        active.pre_forward(scheduler_output(jobs))
        result = serve(runner, scheduled, metadata, **kwargs)
        active.finish_forward()
        return result

    def sample(*_: Any) -> str:
        runner.told = active.post_forward(set())
        return "tokens"

    runner.execute_model, runner.sample_tokens = execute, sample
    return runner


def _offloading(config: Any, cache: Any, host: Any, device: Device) -> Any:
    import torch
    from vllm.distributed.kv_transfer.kv_connector.v1 import offloading_connector
    from vllm.v1.kv_offload.base import (
        CanonicalKVCacheRef,
        CanonicalKVCaches,
        CanonicalKVCacheTensor,
    )
    from vllm.v1.kv_offload.cpu.gpu_worker import CPUOffloadingWorker

    class OnGpu(torch.Tensor):
        is_cuda = True

    tensors = [CanonicalKVCacheTensor(cache.as_subclass(OnGpu), PAGE)]
    spec = SimpleNamespace(replicated_layout=False)
    worker = offloading_connector.OffloadingConnectorWorker(spec, config, None)
    refs = [[CanonicalKVCacheRef(0, PAGE)]]
    worker.worker = CPUOffloadingWorker(CanonicalKVCaches(tensors, refs), 1, CHUNKS)
    connector = offloading_connector.OffloadingConnector.__new__(
        offloading_connector.OffloadingConnector
    )
    connector.connector_worker, connector.connector_scheduler = worker, None
    return connector


def _simple(config: Any, cache: Any, host: Any, device: Device) -> Any:
    from vllm.distributed.kv_transfer.kv_connector.v1 import simple_cpu_offload_connector as simple
    from vllm.v1.simple_kv_offload.copy_backend import DmaCopyBackend
    from vllm.v1.simple_kv_offload.worker import SimpleCPUOffloadWorker

    handler = SimpleCPUOffloadWorker(config, None, CHUNKS * PAGE)
    handler._backend = DmaCopyBackend()
    stream: Any = device.stream  # type: ignore[attr-defined]
    handler._backend.init({LAYER: cache}, {LAYER: host}, "cpu", stream(), stream())
    connector = simple.SimpleCPUOffloadConnector.__new__(simple.SimpleCPUOffloadConnector)
    connector.worker_handler, connector.scheduler_manager = handler, None
    return connector


def host_of(connector: Any, own: Any) -> Any:
    """The host's side of the offloaded blocks."""
    worker = getattr(connector, "connector_worker", None)
    return own if worker is None else worker.worker._load_handler.src_tensors[0]


def scheduler_output(metadata: Any) -> Any:
    return SimpleNamespace(
        kv_connector_metadata=metadata, has_sync_kv_loads=False, finished_req_ids=set()
    )


_numbers = iter(range(1, 1_000_000))


def no_job(kind: str) -> Any:
    return jobs(kind)


def jobs(kind: str, load: dict[int, int] | None = None, store: dict[int, int] | None = None) -> Any:
    """What a step tells the connector: chunks to load into blocks, and blocks to store."""
    number = next(_numbers)
    if kind == SIMPLE:
        from vllm.v1.simple_kv_offload.metadata import SimpleCPUOffloadMetadata

        return SimpleCPUOffloadMetadata(
            load_event=number if load else -1,
            load_cpu_blocks=list(load or {}),
            load_gpu_blocks=list((load or {}).values()),
            load_event_to_reqs={number: ["r0"]} if load else {},
            store_event=number if store else -1,
            store_gpu_blocks=list(store or {}),
            store_cpu_blocks=list((store or {}).values()),
        )
    from vllm.distributed.kv_transfer.kv_connector.v1.offloading import common
    from vllm.v1.kv_offload.base import GPULoadStoreSpec
    from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec

    def gpu(blocks: Any) -> Any:
        return GPULoadStoreSpec(list(blocks), [len(list(blocks))], [0])

    loads = stores = {}
    if load:
        job = common.TransferJob("r0", CPULoadStoreSpec(list(load)), gpu(load.values()))
        loads = {number: job}
    if store:
        job = common.TransferJob("r0", gpu(store), CPULoadStoreSpec(list(store.values())))
        stores = {number + 500_000: job}
    return common.OffloadingConnectorMetadata(loads, stores, None)


def start(kind: str, device: Device, **options: Any) -> Any:
    """One rank through start-up; the wrapper, as ``builders.start`` gives it."""
    wrapper = Wrapper(make_runner(kind, device, **options))
    bring_up_rank(wrapper)
    return wrapper


def one_step(wrapper: Any, *lengths: int) -> Any:
    """A step of these requests, with the copies that are next."""
    from builders import step

    wrapper.execute_model(step(*(lengths or (1,))))
    wrapper.sample_tokens(None)
    return wrapper.worker.model_runner.told

"""KV offloading to host memory: what a capture switches off, and whom it waits for.

That no other thread calls CUDA, and that a copy of no block is none, is the contract tests' to see.
"""

from __future__ import annotations

from ..hooks import Body, Called, Hook
from . import paths
from .paths import names

_ACTIVE = "v1/worker/gpu/kv_connector.py"
_OFFLOADING = "distributed/kv_transfer/kv_connector/v1/offloading_connector.py"
_COPIES = "v1/simple_kv_offload/copy_backend.py"

CONNECTORS: tuple[Hook, ...] = (
    *names(
        "config/kv_transfer.py",
        "KVTransferConfig",
        "kv_connector kv_role kv_connector_extra_config kv_connector_module_path",
        "the allow-list",
    ),
    Body(
        "config/vllm.py",
        "VllmConfig._post_init_kv_transfer_config",
        "a size of the offloaded KV cache is a connector by the time we look",
        order=(
            "envs.VLLM_USE_SIMPLE_KV_OFFLOAD",
            'config_connector = "SimpleCPUOffloadConnector"',
            'config_connector = "OffloadingConnector"',
            "self.kv_transfer_config.kv_connector = config_connector",
        ),
    ),
    *names(paths.MODEL_RUNNER, "GPUModelRunner", "kv_connector", "switched off in a capture"),
    *names(_ACTIVE, "ActiveKVConnector", "_disabled kv_connector", "switched off in a capture"),
    Called(_ACTIVE, "ActiveKVConnector.set_disabled", "switched off in a capture", "self, _"),
    Body(
        _ACTIVE,
        "ActiveKVConnector.set_disabled",
        "attention finds no connector in a capture, and the same one after it",
        order=(
            "kv_transfer_state._KV_CONNECTOR_AGENT = None if disabled else self.kv_connector",
            "self._disabled = disabled",
        ),
    ),
    Body(
        paths.MODEL_RUNNER,
        "GPUModelRunner._dummy_run",
        "vLLM itself switches the connector off for runs that are nobody's",
        order=(
            "self.kv_connector.set_disabled(True)",
            "self.execute_model(...)",
            "self.kv_connector.set_disabled(False)",
        ),
    ),
    Body(
        _ACTIVE,
        "ActiveKVConnector.post_forward",
        "between two steps no metadata is left, and attention calls nothing",
        order=(
            "self.kv_connector.wait_for_save()",
            "self.kv_connector.clear_connector_metadata()",
        ),
    ),
    Body(
        "model_executor/layers/attention/kv_transfer_utils.py",
        "maybe_transfer_kv_layer",
        "what hangs in attention asks for a connector with metadata first",
        order=(
            "has_kv_transfer_group()",
            "connector.has_connector_metadata()",
            "connector.wait_for_layer_load(layer_name)",
        ),
    ),
    *(
        Body(_OFFLOADING, f"OffloadingConnector.{hook}", "no graph has it", never=("_(...)",))
        for hook in ("wait_for_layer_load", "save_kv_layer")
    ),
    Body(
        "v1/worker/gpu/block_table.py",
        "BlockTables.get_dummy_slot_mappings",
        "a capture writes no block of the KV cache",
        order=("self.slot_mappings.fill_(PAD_SLOT_ID)",),
    ),
    *names(_OFFLOADING, "OffloadingConnector", "connector_worker", "is it known?"),
    *names(_COPIES, "DmaCopyBackend", "_thread", "is waited for"),
    Called(
        _COPIES,
        "DmaCopyBackend.launch_copy",
        "a copy of no block says that those before it were begun",
        "self, _, _, is_store=_, event_idx=_, events_list=_",
    ),
    Body(
        _COPIES,
        "DmaCopyBackend._copy_loop",
        "one thread, in the order of its queue, whose last act is the list",
        order=(
            "q.get()",
            "copy_blocks(src_blocks, dst_blocks, params)",
            "event.record(stream)",
            "events_list.append((event_idx, event))",
        ),
    ),
    Body(
        _COPIES,
        "DmaCopyBackend.init",
        "as above",
        order=("threading.Thread(...)",),
        times=(("threading.Thread(...)", 1),),
    ),
)

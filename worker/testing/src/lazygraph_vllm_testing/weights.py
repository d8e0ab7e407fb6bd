"""Dummy weights that make layers matter, the same in every process.

vLLM's own (±0.001, norms included, equal on all ranks) hide faults: a model without layers answers
nearly the same. Packed integers it leaves as they are in memory, so that no two starts agree.
"""

from __future__ import annotations

import importlib
import zlib
from typing import Any

PACKED = ("qweight", "weight_packed")
"""Names of quantised weights of four bits, eight in a 32-bit integer along the input."""
ZEROED = ("qzeros", "g_idx", "weight_zero_point")
CODES_PER_INT = 8
CODE_SD = (16**2 / 12) ** 0.5
"""Standard deviation of a code drawn evenly from 16."""


def use_fan_in(rank: int) -> None:
    """From now on the dummy loader draws weights at fan-in scale, seeded by name and rank."""
    loader = importlib.import_module("vllm.model_executor.model_loader.dummy_loader")
    if hasattr(loader, "get_layer_tensors"):
        _fill_by_layer(loader, rank)
        return

    def load_weights(self: Any, model: Any, model_config: Any) -> None:
        layers = dict(model.named_modules())
        for name, parameter in model.named_parameters():
            prefix = name.rpartition(".")[0]
            fill(parameter.data, name, rank, layers.get(prefix))

    loader.DummyModelLoader.load_weights = load_weights


def _fill_by_layer(loader: Any, rank: int) -> None:
    """For vLLM from 0.27 on: its own walk, which also quantises online layer by layer, stays."""
    original, tensors_of = loader.DummyModelLoader.load_weights, loader.get_layer_tensors
    names: dict[int, str] = {}
    current: list[Any] = [None]

    def get_layer_tensors(layer: Any) -> Any:
        current[0] = layer
        return tensors_of(layer)

    def initialize_single_dummy_weight(tensor: Any, *_: Any, name: str = "", **__: Any) -> None:
        if tensor.device.type == "meta":
            return  # Filled once its layer is materialised.
        layer = current[0]
        fill(tensor.data, f"{names.get(id(layer), '')}.{name}", rank, layer)

    def load_weights(self: Any, model: Any, model_config: Any) -> None:
        names.update((id(layer), prefix) for prefix, layer in model.named_modules())
        original(self, model, model_config)
        names.clear()

    loader.get_layer_tensors = get_layer_tensors
    loader.initialize_single_dummy_weight = initialize_single_dummy_weight
    loader.DummyModelLoader.load_weights = load_weights


def fill(data: Any, name: str, rank: int, layer: Any = None) -> None:
    """Draw one tensor: norms 1, other vectors 0, the rest uniform ±sqrt(3 / fan-in).

    Args:
        data: the tensor, changed in place.
        name: its whole name, which seeds it.
        rank: which seeds it too, so that ranks differ as shards do.
        layer: the module that holds it, where known.
    """
    import torch

    seed = zlib.crc32(f"{name}/{rank}".encode())
    generator = torch.Generator(device=data.device).manual_seed(seed)
    own = name.rpartition(".")[2]
    if not data.is_floating_point():
        if own in PACKED:
            data.random_(-(2**31), 2**31 - 1, generator=generator)
        elif own in ZEROED:
            data.zero_()
        return
    if "scale" in own and layer is not None:
        packed = next((getattr(layer, n) for n in PACKED if hasattr(layer, n)), None)
        if packed is not None:
            data.fill_(1 / (CODE_SD * (packed.shape[0] * CODES_PER_INT) ** 0.5))
            return
        data.fill_(1.0)
        return
    if data.dim() < 2 or "norm" in name:
        # Gemma's norms multiply by one more than their weight.
        offset = type(layer).__name__.startswith("Gemma") if layer is not None else False
        is_scale = "norm" in name and own != "bias" and not offset
        data.fill_(1.0 if is_scale else 0.0)
        return
    bound = (3.0 / data.shape[-1]) ** 0.5
    data.uniform_(-bound, bound, generator=generator)

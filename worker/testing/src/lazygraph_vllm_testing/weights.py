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


ECHO = 0.005
"""What a layer adds to the residual, as a share of what it adds otherwise, for embeddings of length
1 a value; these are of length 1 in all."""


def use_fan_in(rank: int, *, echo: bool = False) -> None:
    """From now on the dummy loader draws weights at fan-in scale, seeded by name and rank.

    Args:
        rank: of this process.
        echo: layers add little to a token's embedding, and an EAGLE head passes it on: target and
            head then go by the last token, and agree on the next one nearly always.
    """
    loader = importlib.import_module("vllm.model_executor.model_loader.dummy_loader")
    layerwise_info = getattr(loader, "get_layerwise_info", None)
    # The layer that vLLM quantises online now, and its name.
    current: list[Any] = [None, ""]

    def initialize_single_dummy_weight(tensor: Any, *_: Any, **__: Any) -> None:
        layer, prefix = current
        tensors = loader.get_layer_tensors(layer).items()
        own = next((name for name, other in tensors if other is tensor), "")
        draw(tensor.data, f"{prefix}.{own}", layer)

    def draw(data: Any, name: str, layer: Any) -> None:
        fill(data, name, rank, layer)
        if echo:
            quieten(data, name)

    def load_weights(self: Any, model: Any, model_config: Any) -> None:
        for prefix, layer in model.named_modules():
            info = layerwise_info(layer) if layerwise_info else None
            if info is not None and info.can_load():
                # Its weights are there only while vLLM makes and quantises them.
                current[:] = [layer, prefix]
                self._process_online_quant_layer(layer, info)
                continue
            for own, parameter in layer.named_parameters(recurse=False):
                draw(parameter.data, f"{prefix}.{own}".lstrip("."), layer)

    loader.initialize_single_dummy_weight = initialize_single_dummy_weight  # type: ignore[attr-defined]
    loader.DummyModelLoader.load_weights = load_weights


def quieten(data: Any, name: str) -> None:
    """Make of one tensor what ``echo`` wants; see ``use_fan_in``."""
    if data.device.type == "meta":
        return
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        data.mul_(ECHO / data.shape[0] ** 0.5)
    elif name.endswith("fc.weight") and data.shape[-1] == 2 * data.shape[0]:
        # Its input is the embedding of the last token, then the target's hidden state.
        data.zero_()
        data[:, : data.shape[0]].fill_diagonal_(1.0)


def fill(data: Any, name: str, rank: int, layer: Any = None) -> None:
    """Draw one tensor: norms 1, other vectors 0, the rest uniform ±sqrt(3 / fan-in).

    Args:
        data: the tensor, changed in place.
        name: its whole name, which seeds it.
        rank: which seeds it too, so that ranks differ as shards do.
        layer: the module that holds it, where known.
    """
    import torch

    if data.device.type == "meta":
        return  # Nothing there to draw.
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

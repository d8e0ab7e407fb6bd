"""Writes real safetensors of random weights for a folder of random_model.py: bytes that are loaded.

    python3 bench/gpu/random_weights.py DIR [--shard-bytes N]

For dense Llama shapes. Files and index are as Hugging Face has them, bfloat16, norms one, all else
drawn from ±0.035 out of one block of 8 MiB, which each tensor begins at another place of: a loader
sees sizes and layout, and neither reads nor copies faster for that. Standard library only.
"""

from __future__ import annotations

import argparse
import array
import json
import math
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

SHARD_BYTES = 5 * 10**9
BLOCK_VALUES = 4 << 20
BYTES = 2
ONE = b"\x80\x3f"
LARGEST = 0.035
# A large prime, so that no two tensors begin alike.
STRIDE = 1_000_003


def tensors(config: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """Names and shapes, in the order of a forward pass."""
    if config.get("model_type") != "llama":
        raise SystemExit(f"Expected a Llama's config.json, got {config.get('model_type')!r}.")
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or hidden // heads
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", [hidden]
        yield prefix + "self_attn.q_proj.weight", [heads * size, hidden]
        yield prefix + "self_attn.k_proj.weight", [kv_heads * size, hidden]
        yield prefix + "self_attn.v_proj.weight", [kv_heads * size, hidden]
        yield prefix + "self_attn.o_proj.weight", [hidden, heads * size]
        yield prefix + "post_attention_layernorm.weight", [hidden]
        yield prefix + "mlp.gate_proj.weight", [inner, hidden]
        yield prefix + "mlp.up_proj.weight", [inner, hidden]
        yield prefix + "mlp.down_proj.weight", [hidden, inner]
    yield "model.norm.weight", [hidden]
    if not config.get("tie_word_embeddings"):
        yield "lm_head.weight", [config["vocab_size"], hidden]


def shards(config: dict[str, Any], most: int) -> list[list[tuple[str, list[int]]]]:
    """Tensors by file, each of at most so many bytes where a tensor isn't larger itself."""
    files: list[list[tuple[str, list[int]]]] = [[]]
    size = 0
    for name, shape in tensors(config):
        own = math.prod(shape) * BYTES
        if files[-1] and size + own > most:
            files.append([])
            size = 0
        files[-1].append((name, shape))
        size += own
    return files


def block() -> bytes:
    """Values as bfloat16, which is the upper half of a float32."""
    draw = random.Random(1).random
    floats = array.array("f", (LARGEST * (2 * draw() - 1) for _ in range(BLOCK_VALUES)))
    halves = array.array("H", floats.tobytes())
    return halves[1::2].tobytes() if sys.byteorder == "little" else halves[0::2].tobytes()


def write_tensor(file: BinaryIO, name: str, count: int, number: int, values: bytes) -> None:
    """One tensor's bytes."""
    left = count * BYTES
    if name.endswith("norm.weight"):
        file.write(ONE * count)
        return
    at = (number * STRIDE * BYTES) % len(values)
    while left > 0:
        piece = values[at : at + left]
        file.write(piece)
        left -= len(piece)
        at = 0


def write_shard(path: Path, own: list[tuple[str, list[int]]], first: int, values: bytes) -> int:
    """Write a file, and count the bytes of its tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in own:
        end = at + math.prod(shape) * BYTES
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, (name, shape) in enumerate(own, first):
            write_tensor(file, name, math.prod(shape), number, values)
        # Else dropping the page cache would leave what isn't on the disk yet.
        file.flush()
        os.fsync(file.fileno())
    return at


def write(folder: Path, most: int) -> int:
    """All files and their index. Returns the bytes of all tensors."""
    config = json.loads((folder / "config.json").read_text())
    files = shards(config, most)
    values = block()
    places: dict[str, str] = {}
    total = number = 0
    for index, own in enumerate(files, 1):
        name = f"model-{index:05}-of-{len(files):05}.safetensors"
        total += write_shard(folder / name, own, number, values)
        number += len(own)
        places |= {tensor: name for tensor, _ in own}
    index_body = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_body, indent=1))
    return total


def main() -> None:
    """Write, and tell how much."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shard-bytes", type=int, default=SHARD_BYTES)
    options = parser.parse_args()
    print(json.dumps({"bytes": write(options.folder, options.shard_bytes)}))


if __name__ == "__main__":
    main()

"""Writes LoRA adapters with random weights for a shape of model_shapes.py, as PEFT saves them.

    python3 bench/gpu/random_adapters.py SHAPE DIR COUNT [RANK]

DIR/1 ... DIR/COUNT are one adapter each, of every linear layer of a dense Llama-like model. Their
weights are drawn at fan-in scale, large enough that each adapter answers in its own way, and depend
on the adapter's number and on nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from model_shapes import SHAPES

RANK = 8
# Of the base model's own outputs: too small, and greedy tokens of all adapters are the same.
STRENGTH = 0.5


def linear_layers(config: dict) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each linear layer of a decoder layer."""
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries = config["num_attention_heads"] * head
    keys = config["num_key_value_heads"] * head
    return {
        "self_attn.q_proj": (hidden, queries),
        "self_attn.k_proj": (hidden, keys),
        "self_attn.v_proj": (hidden, keys),
        "self_attn.o_proj": (queries, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }


def write_adapter(folder: Path, config: dict, number: int, rank: int) -> None:
    """One adapter; whole at once, so that who stops us leaves no half of it."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(number)
    tensors = {}
    layers = linear_layers(config)
    for layer in range(config["num_hidden_layers"]):
        for name, (inputs, outputs) in layers.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            down = torch.randn((rank, inputs), generator=generator) / inputs**0.5
            up = torch.randn((outputs, rank), generator=generator) * STRENGTH / rank**0.5
            tensors[f"{prefix}.lora_A.weight"] = down.to(torch.bfloat16)
            tensors[f"{prefix}.lora_B.weight"] = up.to(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "random",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(name.rpartition(".")[2] for name in layers),
    }
    # Last: who finds it finds the weights.
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1))


def write_adapters(shape: str, folder: Path, count: int, rank: int = RANK) -> list[Path]:
    """The folders of so many adapters; those that are there are kept."""
    folders = [folder / str(number) for number in range(1, count + 1)]
    for number, each in enumerate(folders, 1):
        if not (each / "adapter_config.json").exists():
            write_adapter(each, SHAPES[shape], number, rank)
    return folders


def main() -> None:
    words = sys.argv[1:]
    if (
        len(words) not in (3, 4)
        or words[0] not in SHAPES
        or not all(w.isdigit() for w in words[2:])
    ):
        sys.exit(f"usage: random_adapters.py {'|'.join(SHAPES)} DIR COUNT [RANK]")
    count, rank = int(words[2]), int(words[3]) if len(words) == 4 else RANK
    for folder in write_adapters(words[0], Path(words[1]), count, rank):
        print(folder)


if __name__ == "__main__":
    main()

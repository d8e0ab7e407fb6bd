"""Writes a model folder of a real shape without weights, for `--load-format dummy`.

    python3 bench/gpu/random_model.py llama-3.1-8b|llama-3.1-70b|llama-3.2-3b|qwen3-0.6b DIR

The configurations are the published ones of the models. The tokenizer is byte-level and has the
full vocabulary, so that a server with random weights takes and returns text. DIR/letters is one of
single letters, each a token of the other, too: text made with it comes to as many tokens there.
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "head_dim": 128,
    "num_key_value_heads": 8,
}
SHAPES = {
    "llama-3.1-8b": LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
    "llama-3.1-70b": LLAMA
    | {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "tie_word_embeddings": False,
    },
    "llama-3.2-3b": LLAMA
    | {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "tie_word_embeddings": True,
    },
    "qwen3-0.6b": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": True,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "attention_bias": False,
    },
}
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


def write_tokenizer(folder: Path, config: dict) -> None:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = {config["bos_token_id"]: "<|begin|>", config["eos_token_id"]: "<|end|>"}
    names = alphabet + [
        f"\u0120t{i}" for i in range(len(alphabet), config["vocab_size"])
    ]
    for token_id, name in special.items():
        names[token_id] = name
    more = {
        "bos_token": special[config["bos_token_id"]],
        "eos_token": special[config["eos_token_id"]],
        "model_max_length": config["max_position_embeddings"],
        "chat_template": TEMPLATE,
    }
    save_byte_level(folder, names, list(special.values()), more)


def write_letters(folder: Path) -> None:
    save_byte_level(folder, list(string.ascii_letters + string.digits), [], {})


def save_byte_level(folder: Path, names: list[str], special: list[str], more: dict) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {name: token_id for token_id, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | more
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(f"usage: random_model.py {'|'.join(SHAPES)} DIR")
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    config = SHAPES[sys.argv[1]]
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_tokenizer(folder, config)
    write_letters(folder / "letters")


if __name__ == "__main__":
    main()

"""Writes a model folder of a real shape without weights, for `--load-format dummy`.

    python3 bench/gpu/random_model.py SHAPE DIR      (shapes: model_shapes.py)

The configurations are the published ones of the models (of Qwen3-Next half of the layers). The
tokenizer is byte-level and has the full vocabulary, so that a server with random weights takes and
returns text. DIR/letters is one of single letters, each a token of the other, too: text made with
it comes to as many tokens there.
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path

from model_shapes import PROCESSORS, SHAPES, TOKENS

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


def write_tokenizer(folder: Path, config: dict) -> None:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = {config[key]: name for key, name in TOKENS.items() if key in config}
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
    # A processor asks its tokenizer for these by attribute, such as `image_token`.
    named = {key.removesuffix("_id"): TOKENS[key] for key in TOKENS if key in config}
    others = {key: name for key, name in named.items() if key not in more}
    if others:
        more["extra_special_tokens"] = others
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
    processor = PROCESSORS.get(sys.argv[1])
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    write_tokenizer(folder, config)
    write_letters(folder / "letters")


if __name__ == "__main__":
    main()

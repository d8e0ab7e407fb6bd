"""A model's classes, by its folder, before any server wants them."""

from __future__ import annotations

import json
from pathlib import Path


def import_model(folder: str) -> None:
    """Import what vLLM imports for it: the configuration's class and the model's.

    Args:
        folder: the model, with its `config.json`.

    Raises:
        OSError: there is no such file.
        ValueError: it is no JSON.
        KeyError: neither transformers nor vLLM knows its kind by itself.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from vllm.model_executor.models.registry import ModelRegistry

    config = json.loads(Path(folder, "config.json").read_text())
    _ = CONFIG_MAPPING[config["model_type"]]
    for architecture in config["architectures"]:
        ModelRegistry.models[architecture].load_model_cls()
